//! A service with one plain unit per host, `billing.service`, behind HAProxy: changed in place, there and back, under load.
//! About 20 seconds, a minute on a very busy machine.

use std::time::Duration;

use handover_tests::booted::front::Front;
use handover_tests::clock::BootNs;
use handover_tests::fleet::Spec;
use handover_tests::load::{Load, LoadSpec};
use handover_tests::receipt::verdict::Expect;
use handover_tests::receipt::{Evidence, Receipt};

use crate::site::{Site, config, until};

/// The service's only unit: one slot, one link.
const UNIT: &str = "[Service]
Type=notify
EnvironmentFile=/run/handover/billing/slots/a.env
ExecStart=/builds/billing/current/billing --version-name ${HANDOVER_VERSION} --port ${PORT} --ledger /srv/site/ledger.db \
  --activity /srv/site/activity-%H.jsonl --lease-socket /run/handover/billing/lease.sock \
  --behaviour /builds/billing/current/behaviour.toml
Restart=no
TimeoutStartSec=4s
TimeoutStopSec=20s
";

/// Hosts whose agents have one slot and one unit, and tell HAProxy.
pub(crate) fn single_units(hosts: u8) -> Option<(Site, Front)> {
    let site = Site::start(hosts)?;
    for host in site.hosts.hosts() {
        let text = config(host, &Front::lines_for(host)).replace("billing@{slot}.service", "billing.service");
        let text = text.replace("[[slot]]\nname = \"b\"\nport = 8082\n", "");
        assert_eq!(text.matches("[[slot]]").count(), 1, "{text}");
        host.put("/etc/handover/billing.toml", &text).expect("written");
        host.put("/etc/systemd/system/billing.service", UNIT).expect("written");
        host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
    }
    let front = Front::start(&site.hosts, 8080).expect("HAProxy");
    site.install("1.0.0", "");
    site.begin("billing");
    Some((site, front))
}

pub(crate) fn spec(version: &str) -> Spec {
    Spec { min_serving: 2, ..Spec::in_place(version) }
}

/// Requests through HAProxy; nothing of them, of the ledger and of the lease may go wrong.
fn lost_nothing(site: &Site, load: Load) -> Receipt {
    let until = BootNs::now();
    let load = load.stop().expect("the load's numbers");
    let dir = site.hosts.shared();
    let activity = site.hosts.hosts().iter().map(|host| dir.join(format!("activity-{}.jsonl", host.name()))).collect();
    let evidence = Evidence { ledger: dir.join("ledger.db").into(), activity, until };
    let expect = Expect { longest_dark: Some(Duration::from_secs(5)), ..Expect::default() };
    let receipt = Receipt::draw_up(load, &evidence, &expect).expect("a receipt");
    assert!(receipt.verdict.passed, "{receipt}\n{}", site.logs());
    eprintln!("{receipt}");
    receipt
}

pub(crate) fn links_to(site: &Site, version: &str) {
    for host in site.hosts.hosts() {
        let link = host.must(&["readlink", "/builds/billing/current"]).expect("a link");
        assert_eq!(link.trim(), format!("/builds/billing/{version}"));
    }
}

#[test]
fn single_units_behind_haproxy_are_upgraded_in_place_and_rolled_back_and_nothing_is_lost() {
    let Some((site, _front)) = single_units(3) else { return };
    let (code, said) = site.roll(&site.spec("1.0.0"));
    assert!(code != 0 && said.contains("way = \"stop-first\""), "start-first has no second place: {said}");
    let (code, said) = site.roll(&spec("1.0.0"));
    assert_eq!(code, 0, "bring-up: {said}{}", site.logs());
    until("the scheduler lease to be held", || site.status()["lease"]["state"] == "held");
    site.install("1.1.0", "");
    site.install("1.4.0", "schema-gate-closed = true");

    let load = Load::start(LoadSpec::new(vec![Front::address()], 60.0)).expect("load");
    until("the load to be answered", || load.answered_well() > 50);
    let (code, said) = site.roll(&spec("1.1.0"));
    assert_eq!(code, 0, "{said}{}", site.logs());
    until("all to be seen to serve the new version", || site.serving_count("1.1.0") == 3);
    links_to(&site, "1.1.0");
    // The whole fleet back, as a rollout of its own.
    let (code, said) = site.cli(&["rollout", "rollback"]);
    assert_eq!(code, 0, "{said}");
    until("the fleet to be back", || {
        let rollout = &site.status()["rollout"];
        rollout["state"] == "done" && rollout["to_version"] == "1.0.0"
    });
    until("all to be seen to serve the old one again", || site.serving_count("1.0.0") == 3);
    links_to(&site, "1.0.0");
    // One that never becomes ready: its host goes back in place, the others are not touched.
    let (code, said) = site.roll(&Spec { start_deadline: "3s", ..spec("1.4.0") });
    assert_eq!(code, 3, "{said}{}", site.logs());
    assert!(said.contains("the candidate 1.4.0 is not READY after 3s"), "{said}");
    until("none to be left on the one that failed", || site.serving_count("1.0.0") == 3);
    let receipt = lost_nothing(&site, load);
    let turns = &receipt.holders.turns;
    assert!(turns.len() <= 3 && turns.iter().all(|turn| turn.planned), "the lease moves once per rollout: {receipt}");
}
