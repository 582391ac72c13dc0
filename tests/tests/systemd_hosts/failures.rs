//! A unit that does not do what it should: the rollout goes back, and says why in one sentence.

use handover_tests::fleet::Spec;

use crate::site::{Site, until};

/// Rolls to a version with a fault; what was said.
fn goes_back(site: &Site, version: &str, behaviour: &str) -> String {
    site.install(version, behaviour);
    let (code, said) = site.roll(&Spec { start_deadline: "8s", ..site.spec(version) });
    assert_eq!(code, 3, "{said}{}", site.logs());
    until("1.0.0 to serve", || site.serving_count("1.0.0") == 1);
    said + &site.cli(&["rollout", "history"]).1
}

#[test]
fn a_unit_that_fails_at_start_never_notifies_or_crashes_in_a_loop_is_rolled_back_with_the_true_cause() {
    let Some(site) = Site::serving(1) else { return };
    let said = goes_back(&site, "1.1.0", "crash-at-start = true");
    assert!(said.contains("exit code 3") && said.contains("crash-at-start asks"), "status and last words: {said}");
    let said = goes_back(&site, "1.2.0", "never-notify = true");
    assert!(said.contains("READY=1"), "what systemd waits for, or waited for: {said}");
    let said = goes_back(&site, "1.3.0", "crash-after = \"300ms\"");
    assert!(said.contains("exit code 3"), "{said}");
    // The version is there, and its program is not.
    let host = site.hosts.host(0);
    host.must(&["mkdir", "-p", "/builds/billing/1.4.0"]).expect("made");
    let (code, said) = site.roll(&Spec { start_deadline: "8s", ..site.spec("1.4.0") });
    assert_eq!(code, 3, "{said}");
    assert!((said + &site.cli(&["rollout", "history"]).1).contains("EXEC"), "systemd's own step is named");
}

#[test]
fn a_unit_that_fills_its_memory_is_rolled_back_and_its_limit_is_named() {
    let Some(site) = Site::start(1) else { return };
    let host = site.hosts.host(0);
    host.put("/etc/systemd/system/billing@.service.d/memory.conf", "[Service]\nMemoryMax=100M\n").expect("written");
    host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
    site.bring_up();
    site.install("1.1.0", "grow-mib-per-s = 100");
    let spec = Spec { soak: "20s", ..site.spec("1.1.0") };
    let (code, said) = site.roll(&spec);
    assert_eq!(code, 3, "{said}{}", site.logs());
    until("1.0.0 to serve", || site.serving_count("1.0.0") == 1);
    // Where the kernel keeps the limit, it is first.
    let cause = |said: &str| {
        let by_agent = said.contains("out of memory: it used") && said.contains("MemoryMax= of its unit is 100 MiB");
        said.contains("the candidate 1.1.0 ended by itself") && (by_agent || said.contains("killed for lack of memory"))
    };
    let history = site.cli(&["rollout", "history"]).1;
    assert!(cause(&said) && cause(&history), "{said}\n{history}");
    until("`why` to tell it", || cause(&site.cli(&["why"]).1));
}

#[test]
fn a_unit_whose_watchdog_hears_nothing_is_seen_at_once_and_started_anew() {
    let Some(site) = Site::start(1) else { return };
    let host = site.hosts.host(0);
    host.put("/etc/systemd/system/billing@.service.d/watchdog.conf", "[Service]\nWatchdogSec=1s\n").expect("written");
    host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
    site.bring_up();
    let before = host.must(&["cat", "/run/handover/billing/slots/a.env"]).expect("variables");
    host.put("/builds/billing/1.0.0/behaviour.toml", "mute-watchdog = true").expect("written");
    until("the watchdog to have killed it", || site.logs().contains("killed by systemd's watchdog"));
    host.put("/builds/billing/1.0.0/behaviour.toml", "").expect("written");
    until("a new instance to serve", || site.serving_count("1.0.0") == 1);
    let after = host.must(&["cat", "/run/handover/billing/slots/a.env"]).expect("variables");
    assert_ne!(before, after, "another start is another instance");
}
