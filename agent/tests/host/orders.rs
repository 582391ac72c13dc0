//! Orders are carried out beside the host, and what becomes of them is heard.

use handover_agent::clock;
use handover_agent::core::next::{Effect, Waiting};
use handover_agent::core::observed::Process;
use handover_agent::driver::{Order, ProcessRecord, Told};
use handover_agent::host::KILLED_AGAIN;
use handover_proto::blocker::BlockerKind;

use crate::site::{Site, slot};

/// Its process runs, and is known.
async fn up() -> Site {
    let mut site = Site::new().await;
    assert_eq!(site.host.act(&Site::start()), None);
    assert_eq!(site.running().process, Process::Starting);
    assert!(!site.running().ready(), "nobody is asked before it is started");
    site.until("it runs", |site| site.running().process == Process::Running).await;
    site.until("it is known", |site| site.pid().is_some()).await;
    site
}

fn killed(site: &Site) -> bool {
    matches!(site.running().process, Process::Stopping { killed: true, .. })
}

#[tokio::test]
async fn a_kill_that_is_refused_is_due_again_and_works_in_the_end() {
    let mut site = up().await;
    site.set("busy");
    site.host.act(&Effect::Terminate { slot: slot(), kill_at: Default::default() });
    site.host.act(&Effect::Kill { slot: slot() });
    assert!(killed(&site), "ordered");
    let ordered = clock::boot();
    site.until("the refusal", |site| !killed(site)).await;
    let Process::Stopping { kill_at, .. } = site.running().process else { panic!("it stops") };
    assert!(kill_at >= ordered + KILLED_AGAIN, "not at once: {ordered:?} {kill_at:?}");
    site.unset("busy");
    site.host.act(&Effect::Kill { slot: slot() });
    site.until("its end", |site| site.place().running.is_none()).await;
    assert!(site.place().last_exit.as_ref().is_some_and(|exit| exit.wanted));
}

#[tokio::test]
async fn a_kill_that_takes_long_holds_up_nothing() {
    let mut site = up().await;
    site.set("hold-kill");
    site.host.act(&Effect::Kill { slot: slot() });
    site.until("the command to be under way", |site| site.has("held-kill")).await;
    assert_eq!(site.host.note_readiness(), None, "the loop goes on");
    assert!(site.pid().is_some() && killed(&site));
    site.unset("hold-kill");
    site.until("its end", |site| site.place().running.is_none()).await;
}

#[tokio::test]
async fn a_stop_that_is_refused_after_the_kill_was_ordered_says_nothing_any_more() {
    let mut site = up().await;
    let refused = |order, why: &str| Told::Ordered {
        instance: site.running().record.instance.clone(),
        order,
        failed: Some(why.to_owned()),
    };
    let (stop, kill) = (refused(Order::Stop, "the engine is deaf"), refused(Order::Kill, "the engine is busy"));
    let says = |site: &Site, what: &str| {
        let observed = site.running().refused().unwrap_or_default();
        observed.contains(what)
    };
    site.host.act(&Effect::Terminate { slot: slot(), kill_at: Default::default() });
    assert_eq!(site.host.told(&stop), None);
    assert!(says(&site, "deaf"), "before it is killed");
    site.set("hold-kill");
    site.host.act(&Effect::Kill { slot: slot() });
    assert_eq!(site.host.told(&stop), None);
    assert!(!says(&site, "deaf"));
    assert_eq!(site.host.told(&kill), None);
    assert!(says(&site, "busy"));
}

#[tokio::test]
async fn what_the_disk_did_not_take_is_known_all_the_same_and_recorded_later() {
    let mut site = up().await;
    let now = site.running().record.process.clone().expect("known");
    let began = ProcessRecord { command: Some("another name".into()), ..now };
    let (state, away) = (site.dir.path().join("state"), site.dir.path().join("away"));
    std::fs::rename(&state, &away).expect("moved away");
    let disk = |trouble: Option<Waiting>| trouble.is_some_and(|trouble| trouble.kind == BlockerKind::Disk);
    assert!(disk(site.host.told(&Told::Began(began.clone()))), "the disk does not take it");
    assert_eq!(site.running().record.process.as_ref(), Some(&began), "it is so all the same");
    assert!(disk(site.host.record_again()), "and told with every lap");
    assert_ne!(site.pid(), Some("another name"));
    std::fs::rename(&away, &state).expect("put back");
    assert_eq!(site.host.record_again(), None);
    assert_eq!(site.pid(), Some("another name"));
}

#[tokio::test]
async fn an_agent_that_ends_hears_first_what_became_of_its_starts() {
    let mut site = Site::new().await;
    site.await_starts().await;
    site.set("hold-start");
    assert_eq!(site.host.act(&Site::start()), None);
    assert_eq!(site.running().process, Process::Starting, "it is under way");
    let known = |site: &Site| site.host.file.state.instances[&slot()].process.is_some();
    assert!(!known(&site));
    site.unset("hold-start");
    site.await_starts().await;
    assert!(site.running().process == Process::Running && known(&site), "the next agent adopts it");
}

#[tokio::test]
async fn a_start_that_cannot_be_is_counted_and_leaves_no_record() {
    let mut site = Site::new().await;
    std::fs::remove_dir(site.dir.path().join("builds/1.5.0")).expect("removed");
    assert_eq!(site.host.act(&Site::start()), None);
    assert_eq!(site.host.file.state.instances.len(), 1, "recorded before it is tried");
    site.until("the refusal", |site| site.place().running.is_none()).await;
    let crashes = site.place().crashes.as_ref().expect("counted");
    assert!(crashes.count == 1 && crashes.reason.contains("does not exist"), "{crashes:?}");
    assert!(site.host.file.state.instances.is_empty());
}
