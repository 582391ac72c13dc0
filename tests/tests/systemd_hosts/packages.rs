//! The Debian packages on a host that has nothing of ours: installed, upgraded under load, removed.

use std::path::{Path, PathBuf};
use std::process::Command;

use handover_tests::booted::BootedHost;
use handover_tests::fleet::Binaries;
use handover_tests::load::{Load, LoadSpec};
use serde_json::Value;

use crate::site::{Site, until};

const AGENT: &str = "handover-agent@billing";
const GATE: &str = "handover-gate@billing";

/// Builds a package in two versions, where every host finds them. They differ in their version only.
fn build(site: &Site, package: &str) {
    ["0.1.0", "0.1.1"].iter().for_each(|version| build_one(&packages(site), package, version));
}

/// Of the programs that the tests run.
pub(crate) fn build_one(to: &Path, package: &str, version: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("systemd/package");
    let mut command = Command::new(script);
    command.args(["--version", version]).arg(Binaries::find().expect("programs").dir()).arg(to).arg(package);
    let done = command.output().expect("systemd/package");
    assert!(done.status.success(), "{}; tests/run --tools", String::from_utf8_lossy(&done.stderr));
}

fn packages(site: &Site) -> PathBuf {
    site.hosts.shared().join("packages")
}

/// As an operator would.
fn apt(host: &BootedHost, verb: &str, what: &str) {
    let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", verb, "--yes", "--quiet", what];
    host.must(&words).expect(verb);
}

fn install(host: &BootedHost, site: &Site, package: &str, version: &str) {
    let prefix = format!("{package}_{version}_");
    let all = std::fs::read_dir(packages(site)).expect("packages").flatten();
    let mut names = all.filter_map(|entry| entry.file_name().into_string().ok());
    let name = names.find(|name| name.starts_with(&prefix)).expect("a package of that version");
    apt(host, "install", &format!("/srv/site/packages/{name}"));
    let said = host.must(&["dpkg-query", "--show", "--showformat=${Version} ${Status}", package]).expect("shown");
    assert_eq!(said, format!("{version} install ok installed"));
}

/// Takes away what the harness has put on the host.
pub(crate) fn make_clean(host: &BootedHost) {
    let remove =
        "rm -f /usr/bin/handover /usr/bin/handover-agent /usr/lib/systemd/system/handover* /usr/sbin/policy-rc.d
        systemctl daemon-reload; ! command -v handover-agent && ! systemctl cat handover.service";
    host.must(&["sh", "-c", remove]).expect("nothing of ours is there");
}

fn property(host: &BootedHost, unit: &str, name: &str) -> String {
    let value = host.must(&["systemctl", "show", "--value", &format!("--property={name}"), unit]).expect("a property");
    value.trim().to_owned()
}

fn active(host: &BootedHost, unit: &str) -> String {
    host.run(&["systemctl", "is-active", unit]).expect("run").out.trim().to_owned()
}

/// On a host where all is well, and with a config that does not fit it.
fn checks(host: &BootedHost) {
    let check = |file: &str| {
        let said = host.run(&["handover-agent", "check", "--json", "--config", file]).expect("run");
        let parse = |line| serde_json::from_str::<Value>(line).expect("a finding");
        (said.code, said.out.lines().map(parse).collect::<Vec<_>>())
    };
    let has = |all: &[Value], verdict: &str, text: &str| {
        all.iter().any(|one| one["verdict"] == verdict && one["sentence"].as_str().is_some_and(|s| s.contains(text)))
    };
    let (code, all) = check("/etc/handover/billing.toml");
    assert!(code == 1 && has(&all, "fail", "others may read the private key"), "{all:?}");
    host.must(&["chmod", "600", "/srv/site/pki/app-01.key"]).expect("mended");
    let (code, all) = check("/etc/handover/billing.toml");
    assert_eq!(code, 0, "{all:?}");
    for text in ["agent@billing.service runs, and is", "gate@billing.service runs, and is", "the unit of slot a fits"] {
        assert!(has(&all, "ok", text), "{text}: {all:?}");
    }
    for text in ["10.88.0.1:8080 is in use, as it should be", "app-01 is registered from here", "slot a, ready: "] {
        assert!(has(&all, "ok", text), "{text}: {all:?}");
    }
    let config = host.must(&["cat", "/etc/handover/billing.toml"]).expect("read");
    let other = config.replace("10.88.0.1:8080", "192.0.2.1:8080").replace("billing@{slot}", "biling@{slot}");
    host.put("/tmp/other.toml", &other).expect("written");
    let (code, all) = check("/tmp/other.toml");
    assert!(code == 1 && has(&all, "fail", "no address 192.0.2.1"), "{all:?}");
    assert!(has(&all, "fail", "biling@b.service is not to be had"), "{all:?}");
}

#[test]
fn an_agents_package_is_installed_upgraded_while_it_serves_and_removed() {
    let Some(site) = Site::start(1) else { return };
    let host = site.hosts.host(0);
    make_clean(host);
    build(&site, "handover-agent");
    install(host, &site, "handover-agent", "0.1.0");
    let units = ["handover-agent@billing.service", "handover-gate@billing.service"];
    let verified = host.run(&[&["systemd-analyze", "verify"], &units[..]].concat()).expect("run");
    let ours = |said: &str| said.lines().any(|line| line.contains("handover"));
    assert!(verified.code == 0 && !ours(&verified.err), "{verified:?}");
    host.must(&["systemctl", "enable", GATE, AGENT]).expect("enabled");
    site.bring_up();
    let status = property(host, AGENT, "StatusText");
    assert!(status == "as assigned" || status.starts_with("waiting for"), "{status:?}");
    checks(host);
    let (code, said) = site.cli(&["doctor"]);
    assert!(code == 0 && said.contains("all 1 are heard") && said.contains("agree within 2 s"), "{said}");
    host.put("/etc/default/handover-agent", "HANDOVER_LOG=debug\n").expect("a config of the operator's");

    let before = [AGENT, GATE, "billing@a"].map(|unit| property(host, unit, "MainPID"));
    let load = Load::start(LoadSpec::new(site.gates(), 60.0)).expect("load");
    until("the load to be answered", || load.answered_well() > 50);
    install(host, &site, "handover-agent", "0.1.1");
    let answered = load.answered_well();
    until("more to be answered", || load.answered_well() > answered + 50);
    until("it to serve", || site.serving_count("1.0.0") == 1);
    let after = [AGENT, GATE, "billing@a"].map(|unit| property(host, unit, "MainPID"));
    assert!(before[0] != after[0] && before[1] != after[1], "both run the new program: {before:?} {after:?}");
    assert_eq!(before[2], after[2], "the service's process goes on");
    assert_eq!(property(host, AGENT, "NRestarts"), "0", "{}", site.logs());
    let receipt = load.stop().expect("the load's numbers");
    assert_eq!(receipt.total.ours(), 0, "{:?}\n{}", receipt.failures, site.logs());
    let kept = host.must(&["cat", "/etc/default/handover-agent"]).expect("read");
    assert_eq!(kept, "HANDOVER_LOG=debug\n", "it is the operator's");

    apt(host, "remove", "handover-agent");
    assert_eq!([active(host, AGENT), active(host, GATE)], ["inactive", "inactive"]);
    assert_eq!(property(host, "billing@a", "MainPID"), after[2], "instances are not the package's");
    host.must(&["ls", "/var/lib/handover/billing/agent.json"]).expect("state outlives a removal");
    let silent = |said: &str| said.contains("agent app-01 on host app-01 has not been heard");
    until("the doctor to miss it", || matches!(site.cli(&["doctor"]), (4, said) if silent(&said)));
    apt(host, "purge", "handover-agent");
    assert_eq!(host.run(&["ls", "/var/lib/handover/billing"]).expect("run").code, 2, "state does not outlive a purge");
    host.must(&["ls", "/etc/handover/billing.toml"]).expect("what the operator wrote stays");
}

#[test]
fn a_coordinators_package_serves_as_a_user_of_its_own_and_its_store_outlives_an_upgrade() {
    let Some(site) = Site::start(1) else { return };
    let host = site.hosts.host(0);
    make_clean(host);
    build(&site, "handover");
    install(host, &site, "handover", "0.1.0");
    assert_eq!(active(host, "handover"), "inactive", "it waits for its config");
    host.must(&["systemd-analyze", "verify", "handover.service"]).expect("verified");
    host.must(&["systemctl", "enable", "--now", "handover"]).expect("up");
    until("it to lead", || property(host, "handover", "StatusText") == "leads; nothing is waited for");
    let store = || host.must(&["pgrep", "--full", "handover store"]).expect("the embedded store").trim().to_owned();
    let (pid, embedded) = (property(host, "handover", "MainPID"), store());
    let user = host.must(&["stat", "--format=%U", &format!("/proc/{embedded}")]).expect("its user");
    assert_eq!(user.trim(), "handover");
    host.must(&["handover", "fleet"]).expect("it answers");

    install(host, &site, "handover", "0.1.1");
    assert_ne!(property(host, "handover", "MainPID"), pid, "the new program");
    assert_eq!(store(), embedded, "leases hang on it");
    host.must(&["handover", "fleet"]).expect("it answers");

    apt(host, "purge", "handover");
    until("everything of it to have ended", || host.run(&["pgrep", "--full", "handover s"]).expect("run").code == 1);
    assert_eq!(host.run(&["ls", "/var/lib/handover"]).expect("run").code, 2, "its state is gone");
}
