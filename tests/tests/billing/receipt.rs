//! The whole chain: real load on real instances, and the receipt over it, with violations planted by processes.

use std::time::Duration;

use handover_tests::billing::activity::{Event, Why};
use handover_tests::billing::contract::{Answer, Told};
use handover_tests::clock::BootNs;
use handover_tests::load::outcome::Outcome;
use handover_tests::load::tally::LoadReceipt;
use handover_tests::load::{Load, LoadSpec};
use handover_tests::receipt::verdict::Expect;
use handover_tests::receipt::{Evidence, Receipt};
use nix::sys::signal::Signal;

use crate::agent::{active, nobody, record};
use crate::process::{Billing, Place, until};

fn start(place: &Place, flags: &[&str]) -> Billing {
    Billing::start(place, &nobody(&place.path("")), flags)
}

fn draw_up(place: &Place, load: LoadReceipt) -> Receipt {
    let (ledger, activity) = (place.path("ledger.db").into(), vec![place.path("activity.jsonl")]);
    let evidence = Evidence { ledger, activity, until: BootNs::now() };
    Receipt::draw_up(load, &evidence, &Expect::default()).expect("evidence")
}

fn broken(receipt: &Receipt) -> Vec<&'static str> {
    receipt.verdict.broken.iter().map(|broken| broken.rule).collect()
}

async fn some_load(addresses: Vec<std::net::SocketAddr>) -> Load {
    let load = Load::start(LoadSpec::new(addresses, 200.0)).expect("load");
    until("good answers", || load.answered_well() >= 50).await;
    load
}

#[tokio::test]
async fn a_planned_hand_over_under_load_passes_and_is_measured() {
    let place = Place::new();
    let (old, new) = (start(&place, &[]), start(&place, &[]));
    let load = some_load(vec![old.address, new.address]).await;
    assert_eq!(old.push(&active(&old.instance, 1, 5)).await.state, Answer::Started);
    until("ticks of the old one", || place.charges().len() >= 10).await;
    load.mark("hand over");
    assert_eq!(old.push(&record(&old.instance, Told::Quiesce, 2, 5)).await.state, Answer::Quiesced);
    assert_eq!(new.push(&active(&new.instance, 1, 9)).await.state, Answer::Started);
    until("ticks of both", || place.charges().iter().filter(|charge| charge.token == 9).count() >= 10).await;
    let receipt = draw_up(&place, load.stop().expect("load"));
    let text = receipt.to_string();
    assert!(receipt.verdict.passed, "{text}");
    assert_eq!((receipt.fence.installs, receipt.holders.turns.len()), (2, 1), "{text}");
    let turn = &receipt.holders.turns[0];
    assert!(turn.planned && turn.dark < Duration::from_secs(1), "{text}");
    assert!(text.contains("hand over") && text.contains("Verdict   passed"), "{text}");
    assert!(receipt.writes.acknowledged > 0 && receipt.load.total.versions["1.0.0"] > 50, "{text}");
    assert!(serde_json::to_string(&receipt).expect("json").contains("\"passed\":true"));
}

#[tokio::test]
async fn a_service_that_lies_about_having_quiesced_is_caught_as_overlap_and_stopped_by_the_fence() {
    let place = Place::new();
    let (old, new) = (start(&place, &["--fault", "quiesce-lie", "--fault", "unit=60ms"]), start(&place, &[]));
    let load = some_load(vec![old.address]).await;
    old.push(&active(&old.instance, 1, 5)).await;
    until("ticks of the liar", || place.charges().len() >= 3).await;
    let ack = old.push(&record(&old.instance, Told::Quiesce, 2, 5)).await;
    assert_eq!(ack.state, Answer::Quiesced, "the lie");
    new.push(&active(&new.instance, 1, 9)).await;
    until("ticks of the new one", || place.charges().iter().filter(|charge| charge.token == 9).count() >= 10).await;
    until("the liar's end at the fence", || place.has(|line| line.event == Event::Inactive { why: Why::Fenced })).await;
    let receipt = draw_up(&place, load.stop().expect("load"));
    assert_eq!(broken(&receipt), ["overlap"], "{receipt}");
    assert!(receipt.fence.violations.is_empty() && receipt.ticks.doubled == 0, "the fence held: {receipt}");
}

#[tokio::test]
async fn a_killed_instance_loses_requests_but_no_acknowledged_write() {
    let place = Place::new();
    let (mut one, two) = (start(&place, &[]), start(&place, &[]));
    let load = some_load(vec![one.address, two.address]).await;
    load.mark("kill");
    one.signal(Signal::SIGKILL);
    one.wait();
    let answered = load.answered_well();
    until("more answers of the other", || load.answered_well() >= answered + 50).await;
    let receipt = draw_up(&place, load.stop().expect("load"));
    assert_eq!(broken(&receipt), ["lost"], "{receipt}");
    assert!(receipt.load.total.of(Outcome::Refused) > 0, "{receipt}");
    assert_eq!(receipt.writes.missing_count, 0, "{receipt}");
    assert!(receipt.load.failures.iter().all(|failure| failure.gate == 0), "{receipt}");
}

#[tokio::test]
async fn a_lost_write_is_caught() {
    let place = Place::new();
    let billing = start(&place, &[]);
    let load = some_load(vec![billing.address]).await.stop().expect("load");
    let writes = load.acknowledged.len();
    assert!(writes > 0);
    let thief = rusqlite::Connection::open(place.path("ledger.db")).expect("open");
    let stolen = thief.execute("DELETE FROM payments WHERE rowid = (SELECT min(rowid) FROM payments)", []);
    assert_eq!(stolen.expect("delete"), 1);
    let receipt = draw_up(&place, load);
    assert_eq!((broken(&receipt), receipt.writes.missing_count), (vec!["writes-missing"], 1), "{receipt}");
}
