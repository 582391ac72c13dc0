//! Every reachable state of a rollout over three hosts, with faults, orders and restarts of the coordinator at any
//! moment, and what must hold in each.

mod lap;
mod model;
mod search;

use std::collections::BTreeMap;

use handover::core::event::{BackStep, Outcome, check_chain};
use handover::core::progress::{Progress, State};

use model::{Health, Kind, Model, Rules, Side};
use search::{Graph, search};

#[test]
fn three_hosts_with_a_fault_at_any_moment_keep_floor_lease_and_the_way_back() {
    let states = walk(&Rules::new(3, 2, 1));
    assert!(states > 20_000, "only {states} states");
}

#[test]
fn two_hosts_with_two_faults_at_any_moments_do_so_too() {
    let states = walk(&Rules::new(2, 1, 2));
    assert!(states > 10_000, "only {states} states");
}

#[test]
fn two_hosts_that_both_have_to_serve_do_so_too() {
    let states = walk(&Rules::new(2, 2, 1));
    assert!(states > 2_000, "only {states} states");
}

#[test]
#[ignore = "some minutes; for changes to the decision: cargo test -p handover --test core_rules -- --ignored"]
fn three_hosts_with_two_faults_at_any_moments_do_so_too() {
    let states = walk(&Rules::new(3, 2, 2));
    assert!(states > 200_000, "only {states} states");
}

fn walk(rules: &Rules) -> usize {
    let graph = search(rules);
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for model in &graph.states {
        let kind = match &model.progress.state {
            State::Running { .. } => "running",
            State::Paused { .. } => "paused",
            State::GoingBack { step: BackStep::Routes, .. } => "back: routes",
            State::GoingBack { step: BackStep::Lease, .. } => "back: lease",
            State::GoingBack { step: BackStep::Stop, .. } => "back: stop",
            State::Ended { outcome: Outcome::Done, .. } => "done",
            State::Ended { outcome: Outcome::RolledBack, .. } => "rolled back",
            State::Ended { outcome: Outcome::Failed, .. } => "failed",
        };
        *kinds.entry(kind).or_default() += 1;
        floor_holds(rules, model);
        holders_are_as_they_should(rules, model);
        ends_are_honest(rules, model);
    }
    println!("{} states, {} moves: {kinds:?}", graph.states.len(), graph.moves.len());
    everything_was_walked(rules, &graph, &kinds);
    rollback_is_reached_from_everywhere(rules, &graph);
    a_fold_of_the_journal_is_the_same_state(rules, &graph);
    forward_is_possible_from_everywhere(&graph);
    graph.states.len()
}

/// Hosts with a fault of their own may fail the floor; our moves never do.
fn floor_holds(rules: &Rules, model: &Model) {
    let serving = model.hosts.iter().filter(|host| host.serves(rules)).count();
    let faulty = model.hosts.iter().filter(|host| host.has_fault()).count();
    let owed = rules.plan.min_serving.min(model.hosts.len() - faulty);
    assert!(serving >= owed, "{serving} hosts serve, {faulty} have a fault of their own: {model:?}");
    for host in &model.hosts {
        assert!(host.has_fault() || host.serves(rules), "a healthy host was taken out: {model:?}");
    }
}

fn holders_are_as_they_should(rules: &Rules, model: &Model) {
    assert!(model.acting.len() <= 1, "more than one instance schedules: {model:?}");
    let Some((number, side)) = model.holder else { return };
    let host = &model.hosts[number];
    let healthy = model.faults_left == rules.faults;
    if healthy && !matches!(model.progress.state, State::GoingBack { .. } | State::Ended { .. }) {
        assert_ne!(host.side(side), Health::Absent, "the holder was stopped under the lease: {model:?}");
    }
}

fn ends_are_honest(rules: &Rules, model: &Model) {
    let State::Ended { outcome, .. } = &model.progress.state else { return };
    let alone = |side, other| model.hosts.iter().all(|host| host.has_only(rules, side, other));
    match outcome {
        Outcome::Done => assert!(alone(Side::Candidate, Side::Current), "{model:?}"),
        Outcome::RolledBack => assert!(alone(Side::Current, Side::Candidate), "{model:?}"),
        Outcome::Failed => assert!(model.faults_left < rules.faults, "{model:?}"),
    }
}

/// Against a walk that has become empty without anybody noticing.
fn everything_was_walked(rules: &Rules, graph: &Graph, kinds: &BTreeMap<&str, usize>) {
    for kind in ["running", "paused", "back: routes", "back: lease", "back: stop", "done", "rolled back", "failed"] {
        assert!(kinds.contains_key(kind), "no state is {kind}");
    }
    for step in 0..rules.plan.steps.len() as u32 {
        assert!(graph.states.iter().any(|m| m.progress.state == State::Running { step }), "step {step}");
    }
    for kind in Kind::ALL {
        assert!(graph.moves.iter().any(|(_, moved, _)| *moved == kind), "nothing ever was {kind:?}");
    }
}

/// From every state, `abort` and then nothing but what our own side does: no candidate gets well, none hands over.
fn rollback_is_reached_from_everywhere(rules: &Rules, graph: &Graph) {
    let rolled_back = |m: &Model| matches!(m.progress.state, State::Ended { outcome: Outcome::RolledBack, .. });
    let reaches = graph.can_reach(rolled_back, Kind::is_ours);
    let aborts = graph.by_kind(Kind::Abort);
    let mut asked = 0;
    for (index, model) in graph.states.iter().enumerate() {
        let back = match &model.progress.state {
            State::Running { .. } | State::Paused { .. } if model.progress.can_go_back(&rules.plan) => aborts[&index],
            State::GoingBack { .. } => index,
            State::Running { .. } | State::Paused { .. } | State::Ended { .. } => continue,
        };
        asked += 1;
        assert!(reaches[back], "no way back from {:?}", graph.states[back]);
    }
    assert!(asked > graph.states.len() / 2, "{asked}");
}

/// No path ends where only another fault helps.
fn forward_is_possible_from_everywhere(graph: &Graph) {
    let free = |kind: Kind| !kind.costs() && kind != Kind::Abort;
    let over = graph.can_reach(|m| matches!(m.progress.state, State::Ended { .. }), free);
    let stuck = graph.states.iter().zip(over).find(|(_, over)| !over);
    assert!(stuck.is_none(), "this never ends: {stuck:?}");
    let done = graph.can_reach(|m| matches!(m.progress.state, State::Ended { outcome: Outcome::Done, .. }), free);
    assert!(done[0], "a rollout without faults succeeds");
}

/// A coordinator that starts anywhere knows what its predecessor knew.
fn a_fold_of_the_journal_is_the_same_state(rules: &Rules, graph: &Graph) {
    for index in (0..graph.states.len()).step_by(53) {
        let records = graph.journal(rules, index);
        check_chain(&records).expect("a whole journal");
        let folded = Progress::fold(&rules.plan, &records).expect("a legal journal");
        let model = Model { progress: folded, ..graph.states[index].clone() };
        assert_eq!(model.plain().progress, graph.states[index].progress);
    }
}
