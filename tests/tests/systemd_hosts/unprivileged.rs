//! The agent as a user of its own, with what `systemd/examples/unprivileged` has for that and nothing more.

use std::path::Path;

use handover_tests::booted::BootedHost;
use handover_tests::load::{Load, LoadSpec};

use crate::site::{Site, config, until};

const USER: &str = "handover-agent";

/// As an operator would, by docs/packages.md.
fn set_up(host: &BootedHost) {
    assert!(
        Path::new("/usr/lib/polkit-1/polkitd").exists(),
        "this test needs polkitd; `tests/run --tools` installs it"
    );
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let examples = examples.join("systemd/examples/unprivileged");
    for (from, to) in [
        ("agent.conf", "/etc/systemd/system/handover-agent@billing.service.d/unprivileged.conf"),
        ("gate.conf", "/etc/systemd/system/handover-gate@billing.service.d/unprivileged.conf"),
        ("handover-trial@.service", "/etc/systemd/system/handover-trial@.service"),
        ("handover.rules", "/etc/polkit-1/rules.d/50-handover.rules"),
    ] {
        let text = std::fs::read_to_string(examples.join(from)).expect(from);
        assert!(text.contains(to), "{from} says where it belongs");
        host.put(to, &text).expect("written");
    }
    host.must(&["useradd", "--system", "--no-create-home", USER]).expect("a user");
    host.must(&["install", "-d", "-o", USER, "/builds/billing"]).expect("its directory");
    host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
    // Its readers of rules look for new ones, but a host that boots has none yet.
    host.must(&["systemctl", "restart", "polkit"]).expect("restarted");
}

/// A command as the agents' user, which must be refused.
fn refused(host: &BootedHost, words: &[&str]) {
    let said = host.run(&[&["runuser", "-u", USER, "--"], words].concat()).expect("run");
    let denied = ["Access denied", "authentication required", "not permitted", "Permission denied"];
    assert!(said.code != 0 && denied.iter().any(|word| said.err.contains(word)), "{words:?}: {said:?}");
}

fn main_pid(host: &BootedHost, unit: &str) -> String {
    let pid = host.must(&["systemctl", "show", "--value", "--property=MainPID", unit]).expect("shown");
    pid.trim().to_owned()
}

#[test]
fn an_agent_that_is_not_root_upgrades_kills_and_adopts_under_load_and_may_do_nothing_else() {
    let Some(site) = Site::start(1) else { return };
    let host = site.hosts.host(0);
    set_up(host);
    let quick = config(host, "").replace("grace = \"5s\"", "grace = \"1s\"");
    host.put("/etc/handover/billing.toml", &quick).expect("written");
    // It has to be killed when its turn is over: its processes are root's.
    site.install("1.0.0", "hang-on-sigterm = true");
    site.install("1.1.0", "");
    site.begin("billing");
    let roll = |version: &str| {
        let (code, said) = site.roll(&site.spec(version));
        assert_eq!(code, 0, "{version}: {said}{}", site.logs());
    };
    roll("1.0.0");
    let lease = || site.status()["lease"].clone();
    until("the lease to be held", || lease()["state"] == "held");
    for unit in ["handover-agent@billing", "handover-gate@billing"] {
        let user = host.must(&["stat", "--format=%U", &format!("/proc/{}", main_pid(host, unit))]).expect("its user");
        assert_eq!(user.trim(), USER, "{unit}");
    }
    let load = Load::start(LoadSpec::new(site.gates(), 60.0)).expect("load");
    until("the load to be answered", || load.answered_well() > 50);
    roll("1.1.0");
    until("the old unit to be at rest", || main_pid(host, "billing@a") == "0");
    assert!(site.logs().contains("the grace is over; killing"), "{}", site.logs());
    until("the lease to be held by the new version", || lease()["version"] == "1.1.0");

    let pid = main_pid(host, "billing@b");
    host.must(&["kill", "-KILL", &main_pid(host, "handover-agent@billing")]).expect("killed");
    until("the adoption", || site.logs().contains("adopted a running instance"));
    let answered = load.answered_well();
    until("more to be answered", || load.answered_well() > answered + 50);
    assert_eq!(main_pid(host, "billing@b"), pid, "the process goes on");
    let logs = site.logs();
    assert!(!logs.contains("does not know"), "it adopts what it recorded, and that only: {logs}");
    assert!(logs.contains("tried how long a kill takes") && !logs.contains("cannot try"), "{logs}");
    let receipt = load.stop().expect("the load's numbers");
    assert_eq!(receipt.total.ours(), 0, "{:?}\n{logs}", receipt.failures);

    refused(host, &["systemctl", "--no-ask-password", "stop", "handover-gate@billing"]);
    refused(host, &["systemctl", "--no-ask-password", "restart", "billing@b"]);
    refused(host, &["systemctl", "--no-ask-password", "daemon-reload"]);
    refused(host, &["systemd-run", "--no-ask-password", "true"]);
}
