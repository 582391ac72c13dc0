//! Links to agents: what is delivered, and what is known of an agent that is not heard.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may")]

mod site;

use std::sync::Arc;

use handover::serve::{Leadership, Links, Mandate};
use handover::world::{Heard, World};
use handover_proto::assignment::{Assignment, AtDeadline, Cause, DrainPolicy};
use handover_proto::ids::AgentId;
use handover_proto::numbers::{Era, Serial, Term};
use handover_proto::stored::encode;
use handover_proto::txn::{Op, Txn};
use site::agent::{Mood, Scripted, State, register};
use site::{Site, service, until};
use tokio::sync::watch;

struct Linked {
    site: Site,
    world: Arc<watch::Sender<World>>,
    leadership: watch::Sender<Leadership>,
}

fn leading(term: i64) -> Leadership {
    let term = Term::new(Era(0), term).expect("fits");
    Leadership::Leading(Mandate { key: "leader".into(), create_revision: term.get(), term, endpoint: "here".into() })
}

async fn linked(leadership: Leadership) -> Linked {
    let site = Site::start().await;
    let world = site.follow();
    let (leadership, receiver) = watch::channel(leadership);
    tokio::spawn(Links::new(Arc::clone(&world), receiver).run());
    Linked { site, world, leadership }
}

impl Linked {
    /// Stores an assignment for `agent`, as the journal would.
    async fn assign(&self, agent: &AgentId) -> i64 {
        let assignment = Assignment {
            v: 1,
            term: Term::default(),
            cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
            slots: Default::default(),
            routes: vec![],
            drain: DrainPolicy { deadline_ms: 1000, at_deadline: AtDeadline::Wait, over_all: false },
            leaving: false,
            lease: Default::default(),
            hooks: vec![],
            fallback: None,
        };
        let key = self.site.keys.service(&service()).assigned(agent);
        let txn = Txn { then: vec![Op::put(key, encode(&assignment).expect("json"))], ..Txn::default() };
        self.site.store.txn(&txn).await.expect("stored").revision
    }

    async fn until_heard(&self, agent: &AgentId, what: &str, wish: impl Fn(&Heard) -> bool) {
        let name = (service(), agent.clone());
        until(&mut self.world.subscribe(), what, |world| world.heard.get(&name).is_some_and(&wish)).await;
    }
}

#[tokio::test]
async fn what_is_stored_is_delivered_with_its_serial_and_the_leaders_term() {
    let linked = linked(leading(7)).await;
    let agent = Scripted::start(&linked.site, "app-01").await;
    let serial = linked.assign(&agent.name).await;
    until(&mut agent.state.subscribe(), "delivered", |state| state.accepted == serial && state.term == 7).await;
    linked
        .until_heard(&agent.name, "reported", |heard| {
            heard.report.as_ref().is_some_and(|report| report.accepted == serial)
        })
        .await;
}

#[tokio::test]
async fn a_follower_delivers_nothing_until_it_leads() {
    let linked = linked(Leadership::Unknown).await;
    let agent = Scripted::start(&linked.site, "app-01").await;
    let serial = linked.assign(&agent.name).await;
    linked.until_heard(&agent.name, "heard", |heard| heard.report.is_some()).await;
    let key = linked.site.keys.service(&service()).assigned(&agent.name);
    until(&mut linked.world.subscribe(), "the assignment is known", |world| world.entry(&key).is_some()).await;
    assert!(agent.state.borrow().delivered.is_empty());
    linked.leadership.send_replace(leading(9));
    until(&mut agent.state.subscribe(), "delivered", |state| state.accepted == serial && state.term == 9).await;
}

#[tokio::test]
async fn an_agent_that_has_lost_its_state_gets_its_assignment_again() {
    let linked = linked(leading(7)).await;
    let agent = Scripted::start(&linked.site, "app-01").await;
    let serial = linked.assign(&agent.name).await;
    until(&mut agent.state.subscribe(), "delivered", |state| state.accepted == serial).await;
    agent.stop();
    let agent = Scripted::with(&linked.site, "app-01", State::default()).await;
    until(&mut agent.state.subscribe(), "delivered again", |state| state.accepted == serial).await;
}

#[tokio::test]
async fn an_agent_that_kept_its_state_is_not_bothered() {
    let linked = linked(leading(7)).await;
    let agent = Scripted::start(&linked.site, "app-01").await;
    let serial = linked.assign(&agent.name).await;
    until(&mut agent.state.subscribe(), "delivered", |state| state.accepted == serial).await;
    let kept = agent.stop();
    let agent = Scripted::with(&linked.site, "app-01", kept).await;
    agent.state.send_modify(|state| state.delivered.clear());
    linked.until_heard(&agent.name, "silent or heard again", |heard| heard.silent.is_none()).await;
    let next = linked.assign(&agent.name).await;
    until(&mut agent.state.subscribe(), "the next one", |state| state.accepted == next).await;
    assert_eq!(agent.state.borrow().delivered, [next]);
}

#[tokio::test]
async fn a_refusal_is_known_until_an_assignment_is_accepted() {
    let linked = linked(leading(7)).await;
    let agent = Scripted::start(&linked.site, "app-01").await;
    agent.mood(Mood::Refusing);
    let serial = linked.assign(&agent.name).await;
    linked
        .until_heard(&agent.name, "refused", |heard| {
            heard
                .refused
                .as_ref()
                .is_some_and(|refusal| refusal.serial == Serial(serial) && refusal.reason.contains("taste"))
        })
        .await;
    agent.mood(Mood::Willing);
    let next = linked.assign(&agent.name).await;
    until(&mut agent.state.subscribe(), "accepted", |state| state.accepted == next).await;
    linked.until_heard(&agent.name, "no refusal", |heard| heard.refused.is_none()).await;
}

#[tokio::test]
async fn an_agent_that_is_gone_is_silent_and_its_last_report_is_kept() {
    let linked = linked(leading(7)).await;
    let agent = Scripted::start(&linked.site, "app-01").await;
    linked.until_heard(&agent.name, "heard", |heard| heard.report.is_some() && heard.silent.is_none()).await;
    let name = agent.name.clone();
    agent.stop();
    linked.until_heard(&name, "silent", |heard| heard.silent.is_some() && heard.report.is_some()).await;
    let back = Scripted::start(&linked.site, "app-01").await;
    linked.until_heard(&back.name, "heard at its new address", |heard| heard.silent.is_none()).await;
}

#[tokio::test]
async fn whoever_else_answers_at_an_agents_address_is_not_taken_for_it() {
    let linked = linked(leading(7)).await;
    let agent = Scripted::start(&linked.site, "app-01").await;
    linked.until_heard(&agent.name, "heard", |heard| heard.report.is_some()).await;
    let endpoint = linked.world.borrow().registrations(&service()).expect("readable")[&agent.name].endpoint;
    let other: AgentId = "app-02".parse().expect("a name");
    register(&linked.site, &other, endpoint).await;
    linked
        .until_heard(&other, "silent", |heard| {
            heard.silent.as_ref().is_some_and(|silence| silence.reason.contains("app-01 of billing answers there"))
        })
        .await;
    assert!(linked.world.borrow().heard[&(service(), other)].report.is_none());
}
