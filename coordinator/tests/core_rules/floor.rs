//! Which hosts serve, and which changes would take that away.

use std::collections::BTreeMap;

use handover::core::fleet::Heard;
use handover::core::floor::{serving, serving_after, would_stop_serving};
use handover_proto::lifecycle::Lifecycle;

use crate::world::{World, agent, serves, slot, version};

#[test]
fn a_host_serves_while_its_gate_has_a_ready_instance_for_reads_and_one_for_writes() {
    let mut world = World::new(3, "");
    assert_eq!(serving(&world.fleet).len(), 3);
    world.instance(1, "a").ready = false;
    world.instance(2, "a").writes = 0;
    assert_eq!(serving(&world.fleet).into_iter().collect::<Vec<_>>(), [agent(3)]);
}

#[test]
fn a_host_that_is_not_heard_does_not_count() {
    let mut world = World::new(3, "");
    world.host(2).heard = Heard::Silent { since_ms: 1 };
    assert_eq!(serving(&world.fleet).into_iter().collect::<Vec<_>>(), [agent(1), agent(3)]);
    world.host(3).report = None;
    assert_eq!(serving(&world.fleet).len(), 1);
}

#[test]
fn what_is_stored_but_not_taken_yet_counts_already() {
    let mut world = World::new(2, "");
    let stored = &mut world.host(1).assigned.as_mut().expect("assigned").assignment;
    stored.routes.clear();
    assert_eq!(serving(&world.fleet).into_iter().collect::<Vec<_>>(), [agent(2)]);
}

#[test]
fn a_change_to_an_instance_that_is_not_ready_or_not_there_stops_a_host() {
    let mut world = World::new(2, "");
    let to_b = serves("b", "1.1.0");
    assert!(would_stop_serving(&world.fleet.agents[&agent(1)], &to_b), "nothing runs in b");
    let after = |world: &World| serving_after(&world.fleet, &BTreeMap::from([(agent(1), to_b.clone())])).len();
    assert_eq!(after(&world), 1);
    let mut candidate = world.instance(1, "a").clone();
    (candidate.version, candidate.reads, candidate.writes) = (version("1.1.0"), 0, 0);
    world.report(1).slots.get_mut(&slot("b")).expect("a slot").instance = Some(candidate);
    assert!(!would_stop_serving(&world.fleet.agents[&agent(1)], &to_b), "it is ready there");
    assert_eq!(after(&world), 2);
    world.instance(1, "b").ready = false;
    assert!(would_stop_serving(&world.fleet.agents[&agent(1)], &to_b));
    world.instance(1, "a").ready = false;
    assert!(!would_stop_serving(&world.fleet.agents[&agent(1)], &to_b), "it does not serve anyway");
}

#[test]
fn another_version_in_the_slot_or_another_state_of_it_is_no_replacement() {
    let world = World::new(1, "");
    let host = &world.fleet.agents[&agent(1)];
    assert!(!would_stop_serving(host, &serves("a", "1.0.0")));
    assert!(would_stop_serving(host, &serves("a", "1.0.1")), "the one that runs is another one");
    let mut ready_only = serves("a", "1.0.0");
    ready_only.slots.get_mut(&slot("a")).expect("a wish").lifecycle = Lifecycle::Ready;
    assert!(would_stop_serving(host, &ready_only));
}
