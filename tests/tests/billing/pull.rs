//! A single pull: what it counts from, and what it refuses.

use std::time::Duration;

use handover_proto::ids::InstanceId;
use handover_tests::billing::contract::Told;
use handover_tests::billing::pull::{Agent, PullError};
use handover_tests::clock::{BootNs, ClockName};

use crate::agent::{FakeAgent, Pulls, lasting, record};
use crate::process::Place;

fn asking(fake: &FakeAgent) -> Agent {
    let clock = ClockName::ours().expect("clock");
    Agent { socket: fake.socket.clone(), instance: InstanceId::random(), clock }
}

#[tokio::test]
async fn its_spans_count_from_before_the_agent_was_asked() {
    let place = Place::new();
    let fake = FakeAgent::start(place.path("agent.sock"));
    let agent = asking(&fake);
    let template = record(&agent.instance, Told::Active, 1, 48);
    // The agent reads its clock when it is asked, so this soft deadline is its time of asking plus the span.
    fake.answers(Pulls::Extend(template, Duration::from_secs(5)));
    let (record, sent) = agent.pull().await.expect("a record");
    let asked = BootNs(record.soft_deadline_boot_ns).since(BootNs(5_000_000_000));
    assert!(sent.0 <= u64::try_from(asked.as_nanos()).expect("ns"), "counted from {sent}, the agent was asked later");
    let elsewhere = ClockName { time_ns: "time:[1]".to_owned(), ..agent.clock.clone() };
    let deadline = record.deadline(&elsewhere, Some(sent)).expect("a deadline");
    assert!(deadline.soft <= BootNs(record.soft_deadline_boot_ns), "never later than the agent's own");
}

#[tokio::test]
async fn what_is_no_record_for_us_is_refused() {
    let place = Place::new();
    let fake = FakeAgent::start(place.path("agent.sock"));
    let agent = asking(&fake);
    let other = lasting(&record(&InstanceId::random(), Told::Active, 1, 48), Duration::from_secs(5));
    fake.answers(Pulls::Fixed(other));
    assert!(matches!(agent.pull().await, Err(PullError::Answer(_))), "another's record");
    fake.answers(Pulls::Garbage);
    assert!(matches!(agent.pull().await, Err(PullError::Answer(_))), "no record at all");
}

#[tokio::test]
async fn an_agent_that_hangs_or_is_not_there_is_an_error_soon() {
    let place = Place::new();
    let fake = FakeAgent::start(place.path("agent.sock"));
    assert!(matches!(asking(&fake).pull().await, Err(PullError::Silent)));
    assert_eq!(fake.pulled(), 1);
    let nobody = Agent { socket: place.path("nobody.sock"), ..asking(&fake) };
    assert!(matches!(nobody.pull().await, Err(PullError::Connect { .. })));
}
