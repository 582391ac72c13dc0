//! The journal in the store: what an append compares, and what it writes.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may")]

mod site;

use std::collections::BTreeMap;

use handover::core::event::{Event, Outcome, Record};
use handover::core::next::Act;
use handover::core::plan::Plan;
use handover::core::spec::Spec;
use handover::rollout::Rollout;
use handover::serve::{Append, AppendError, Mandate};
use handover::world::World;
use handover_proto::assignment::{Assignment, Cause, DrainPolicy};
use handover_proto::ids::{AgentId, OpId, RolloutId};
use handover_proto::numbers::{Era, Term};
use handover_proto::txn::{Op, Txn};
use handover_proto::wire::{GateReport, Report};
use site::{Site, agent, service, spec};

/// A leader key of our own making, without an election.
async fn lead(site: &Site) -> Mandate {
    let key = site.keys.leader();
    let then = vec![Op::put(key.clone(), "{}")];
    site.store.txn(&Txn { then: vec![Op::Delete(key.clone())], ..Txn::default() }).await.expect("deleted");
    let reply = site.store.txn(&Txn { then, ..Txn::default() }).await.expect("written");
    let term = Term::new(Era(0), reply.revision).expect("fits");
    Mandate { key, create_revision: reply.revision, term, endpoint: "here".into() }
}

/// A plan that brings up one agent.
async fn plan(site: &Site) -> (Plan, World) {
    let name: AgentId = "app-01".parse().expect("a name");
    agent::register(site, &name, "127.0.0.1:1".parse().expect("an address")).await;
    let mut world = site.world().await;
    let gate = GateReport { connected: true, ..GateReport::default() };
    world.heard_mut(&service(), &name).report = Some(Report { gate: Some(gate), ..Report::default() });
    let spec = Spec::parse("test", &spec("1.0.0", "")).expect("a spec");
    let fleet = world.fleet(&service(), 1).expect("a fleet");
    (Plan::make(&spec, &fleet, &world.services(), &RolloutId::random()).expect("a plan"), world)
}

fn started(plan: &Plan) -> Event {
    let (by, spec_hash) = ("test".to_owned(), String::new());
    Event::Started { spec_hash, plan_hash: plan.hash().to_owned(), by, op: OpId::random() }
}

fn first(world: &World, mandate: &Mandate, plan: &Plan) -> Append {
    let record = Record::after(None, 1, mandate.term, started(plan)).expect("a record");
    Append::first(world, mandate, plan, "spec", record).expect("an append")
}

fn act(event: Event, agents: &[&str]) -> Act {
    let assignment = Assignment {
        v: 1,
        term: Term::default(),
        cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
        slots: BTreeMap::new(),
        routes: vec![],
        drain: DrainPolicy {
            deadline_ms: 1000,
            at_deadline: handover_proto::assignment::AtDeadline::Wait,
            over_all: false,
        },
        leaving: false,
        lease: Default::default(),
        hooks: vec![],
        fallback: None,
    };
    let agents = agents.iter().map(|name| (name.parse().expect("a name"), assignment.clone()));
    Act { event, assignments: agents.collect(), ask: None, staging: None }
}

fn assigned() -> Event {
    Event::Assigned { agents: vec!["app-01".parse().expect("a name")] }
}

/// The rollout's first record, committed.
async fn begun(site: &Site) -> (Mandate, Plan, Record) {
    let mandate = lead(site).await;
    let (plan, world) = plan(site).await;
    let append = first(&world, &mandate, &plan);
    append.commit(&site.store, &mandate).await.expect("committed");
    (mandate, plan, append.record)
}

#[tokio::test]
async fn the_first_record_claims_the_service_and_keeps_spec_and_plan() {
    let site = Site::start().await;
    let (_, plan, _) = begun(&site).await;
    let world = site.world().await;
    assert_eq!(Rollout::claimed(&world, &service()).expect("a claim"), Some(plan.id.clone()));
    let rollout = Rollout::read(&world, &plan.id).expect("a rollout");
    assert_eq!((rollout.plan, rollout.records.len()), (plan.clone(), 1));
    let spec = world.entry(&site.keys.rollout(&plan.id).spec()).expect("a spec");
    assert_eq!(spec.value, b"spec");
}

#[tokio::test]
async fn a_service_is_claimed_once() {
    let site = Site::start().await;
    let (mandate, _, _) = begun(&site).await;
    let (other, world) = plan(&site).await;
    let error = first(&world, &mandate, &other).commit(&site.store, &mandate).await.expect_err("claimed");
    assert!(matches!(error, AppendError::Moved { seq: 1, .. }), "{error}");
    assert!(site.world().await.entry(&site.keys.rollout(&other.id).event(1)).is_none());
}

#[tokio::test]
async fn a_record_and_its_assignments_are_written_in_one_revision() {
    let site = Site::start().await;
    let (mandate, plan, last) = begun(&site).await;
    let record = Record::after(Some(&last), 2, mandate.term, assigned()).expect("a record");
    let append =
        Append::next(&site.world().await, &mandate, &plan, record, &act(assigned(), &["app-01"])).expect("an append");
    let appended = append.commit(&site.store, &mandate).await.expect("committed");
    let world = site.world().await;
    let event = world.entry(&site.keys.rollout(&plan.id).event(2)).expect("the record").mod_revision;
    let serial = world.assigned(&service(), &append.agents[0]).expect("readable").expect("assigned").serial;
    assert_eq!((serial, serial.0), (appended.serial, event));
}

#[tokio::test]
async fn the_append_of_a_deposed_leader_writes_nothing() {
    let site = Site::start().await;
    let (old, plan, last) = begun(&site).await;
    let record = Record::after(Some(&last), 2, old.term, assigned()).expect("a record");
    let append =
        Append::next(&site.world().await, &old, &plan, record, &act(assigned(), &["app-01"])).expect("an append");
    let new = lead(&site).await;
    assert!(new.term > old.term);
    let before = site.store.list(&site.keys.prefix()).await.expect("a listing").entries;
    let error = append.commit(&site.store, &old).await.expect_err("deposed");
    assert!(matches!(error, AppendError::Deposed { seq: 2 }), "{error}");
    assert_eq!(site.store.list(&site.keys.prefix()).await.expect("a listing").entries, before);
}

#[tokio::test]
async fn a_number_is_used_once_even_under_the_same_leader() {
    let site = Site::start().await;
    let (mandate, plan, last) = begun(&site).await;
    let world = site.world().await;
    let append = |event: Event| {
        let record = Record::after(Some(&last), 2, mandate.term, event.clone()).expect("a record");
        Append::next(&world, &mandate, &plan, record, &act(event, &[])).expect("an append")
    };
    append(assigned()).commit(&site.store, &mandate).await.expect("the first");
    let other = append(Event::Resumed { by: "x".into() }).commit(&site.store, &mandate).await.expect_err("the second");
    assert!(matches!(other, AppendError::Deposed { seq: 2 }), "{other}");
}

#[tokio::test]
async fn an_append_that_is_sent_again_is_found_and_not_repeated() {
    let site = Site::start().await;
    let (mandate, plan, last) = begun(&site).await;
    let record = Record::after(Some(&last), 2, mandate.term, assigned()).expect("a record");
    let append =
        Append::next(&site.world().await, &mandate, &plan, record, &act(assigned(), &["app-01"])).expect("an append");
    let once = append.commit(&site.store, &mandate).await.expect("committed");
    // Also when somebody else leads by then: what was written stands.
    lead(&site).await;
    let twice = append.commit(&site.store, &mandate).await.expect("found");
    assert_eq!(once.serial, twice.serial);
    assert_eq!(
        site.store.get(&append_key(&site, &append)).await.expect("read").expect("there").mod_revision,
        once.serial.0
    );
}

fn append_key(site: &Site, append: &Append) -> String {
    site.keys.service(&service()).assigned(&append.agents[0])
}

#[tokio::test]
async fn the_last_record_gives_up_the_claim() {
    let site = Site::start().await;
    let (mandate, plan, last) = begun(&site).await;
    let ended = Event::Ended { outcome: Outcome::Failed, reason: "test".into() };
    let record = Record::after(Some(&last), 2, mandate.term, ended.clone()).expect("a record");
    let append = Append::next(&site.world().await, &mandate, &plan, record, &act(ended, &[])).expect("an append");
    let appended = append.commit(&site.store, &mandate).await.expect("committed");
    assert_eq!(appended.deleted, [site.keys.service(&service()).rollout()]);
    let world = site.world().await;
    assert_eq!(Rollout::claimed(&world, &service()).expect("readable"), None);
}

#[tokio::test]
async fn more_assignments_than_a_transaction_holds_are_refused_before_anything_is_written() {
    let site = Site::start().await;
    let (mandate, plan, last) = begun(&site).await;
    let names: Vec<String> = (0..128).map(|n| format!("app-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let record = Record::after(Some(&last), 2, mandate.term, assigned()).expect("a record");
    let error =
        Append::next(&site.world().await, &mandate, &plan, record, &act(assigned(), &names)).expect_err("too many");
    assert!(matches!(error, AppendError::TooLarge { ops: 129, .. }), "{error}");
}

#[tokio::test]
async fn a_record_that_was_changed_afterwards_stops_the_rollout() {
    let site = Site::start().await;
    let (mandate, plan, last) = begun(&site).await;
    let record = Record::after(Some(&last), 2, mandate.term, assigned()).expect("a record");
    let append = Append::next(&site.world().await, &mandate, &plan, record, &act(assigned(), &[])).expect("an append");
    append.commit(&site.store, &mandate).await.expect("committed");
    assert!(Rollout::read(&site.world().await, &plan.id).is_ok(), "it was sound");

    let forged = Record { at_ms: 99, ..last };
    let key = site.keys.rollout(&plan.id).event(1);
    let put = Op::put(key, forged.bytes().expect("bytes"));
    site.store.txn(&Txn { then: vec![put], ..Txn::default() }).await.expect("forged");
    let error = Rollout::read(&site.world().await, &plan.id).expect_err("broken");
    assert!(handover::cause::chain(&error).contains("record 2"), "{error:?}");
}
