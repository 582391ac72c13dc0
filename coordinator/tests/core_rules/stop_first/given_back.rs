//! Hosts that have left their balancers and cannot go on: somebody gives them back.

use std::time::Duration;

use handover::core::event::{BackStep, Event, Outcome};
use handover::core::next::{Decision, MAX_ASSIGNMENTS};
use handover::core::order::{Order, carried_out, order};
use handover::core::plan::PlanError;
use handover::core::progress::State;
use handover_proto::assignment::LeaseWish::Eligible;
use handover_proto::blocker::BlockerKind;

use super::site::{Move, STOP_FIRST, Site};
use super::{leaving, wish};
use crate::world::{agent, blockers, event, plan, spec, term};

fn at_the_last_step_back(site: &mut Site) {
    for step in [BackStep::Lease, BackStep::Stop] {
        site.world.journal(Event::BackEntered { step });
    }
}

fn abort(site: &mut Site) -> Vec<usize> {
    let world = &site.world;
    let event = order(&world.plan, &world.progress, Order::Abort, "ann", "enough").expect("the way out");
    let acts = carried_out(&world.plan, &world.progress, &world.fleet, event, term());
    let sizes = acts.iter().map(|act| act.assignments.len()).collect();
    acts.into_iter().for_each(|act| site.world.commit(act));
    assert!(matches!(site.world.progress.state, State::Ended { outcome: Outcome::Failed, .. }));
    sizes
}

#[test]
fn an_abort_at_the_last_step_back_gives_hosts_back_that_have_left() {
    let mut site = Site::new(3, "soak = \"1h\"\n", false);
    site.until(|site, _| site.versions().iter().all(|version| version == "1.1.0"));
    site.world.order(Order::Rollback);
    site.lap();
    // Its balancers never say that they send nothing.
    at_the_last_step_back(&mut site);
    assert!(leaving(&site, 1) && wish(&site, 1).version.as_str() == "1.1.0");
    abort(&mut site);
    assert!((1..=3).all(|number| !leaving(&site, number)), "nobody else would give them back");
    site.obey();
    assert_eq!(site.serving(), 3, "{:?}", site.versions());
}

#[test]
fn a_host_that_has_left_serves_again_while_another_one_is_lost() {
    let mut site = Site::new(3, "", true);
    site.until(|site, _| leaving(site, 1));
    for what in [Move::Take, Move::Balance] {
        assert!(site.step(0, what), "{what:?}");
    }
    site.hosts[1].runs = None;
    assert_eq!(event(&site.lap()), &Event::Assigned { agents: vec![agent(1)] });
    assert!(!leaving(&site, 1) && wish(&site, 1).lease == Eligible, "as it was");
    for _ in 0..20 {
        site.step(0, Move::Take);
        site.step(0, Move::Balance);
        assert_eq!(blockers(&site.lap()), [BlockerKind::Floor], "it does not go to and fro");
        site.world.pass(Duration::from_secs(5));
    }
    assert_eq!(site.serving(), 2);
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done), "the lost one is back, and it leaves again");
    assert_eq!(site.versions(), ["1.1.0"; 3]);
}

#[test]
fn a_host_whose_balancers_never_let_it_go_is_given_back_and_the_rollout_pauses() {
    let mut site = Site::new(3, "", false);
    site.until(|site, _| leaving(site, 1));
    site.step(0, Move::Take);
    for _ in 0..59 {
        assert!(matches!(site.lap(), Decision::Wait { .. }));
        site.world.pass(Duration::from_secs(10));
    }
    site.world.pass(Duration::from_secs(11));
    let paused = site.lap();
    let Event::Paused { reason, .. } = event(&paused) else { panic!("{paused:?}") };
    assert!(reason.contains("app-01") && reason.contains("10m") && reason.contains("resume"), "{reason}");
    assert!(!leaving(&site, 1));
    site.world.order(Order::Resume);
    site.lap();
    assert!(leaving(&site, 1), "it tries again");
    site.step(0, Move::Take);
    assert!(matches!(site.lap(), Decision::Wait { .. }), "and has its time anew");
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done));
}

#[test]
fn more_hosts_than_a_transaction_takes_are_given_back_in_parts() {
    let mut site = Site::new(120, "wave_size = 119\nmin_serving = 1\n", false);
    site.world.order(Order::Rollback);
    at_the_last_step_back(&mut site);
    for host in site.world.fleet.agents.values_mut() {
        host.assigned.as_mut().expect("assigned").assignment.leaving = true;
    }
    assert_eq!(abort(&mut site), [MAX_ASSIGNMENTS, 19]);
    let begun = site.plan().hosts.iter().filter(|host| host.wave == 0);
    let left = begun.filter(|host| site.world.fleet.agents[&host.agent].assignment().expect("assigned").leaving);
    assert_eq!(left.count(), 0);
}

#[test]
fn a_host_that_nobody_keeps_out_is_named_before_a_rollout_with_what_gives_it_back() {
    let mut fleet = super::site::single_slots(3);
    fleet.agents.get_mut(&agent(2)).expect("an agent").assigned.as_mut().expect("assigned").assignment.leaving = true;
    let error = plan(&spec(STOP_FIRST), &fleet).expect_err("no plan");
    assert!(matches!(error, PlanError::Leaves { .. }), "{error:?}");
    assert!(error.to_string().contains("app-02") && error.to_string().contains("handover undrain app-02"), "{error}");
}

#[test]
fn a_pause_gives_back_the_host_that_has_left_and_resume_lets_it_leave_again() {
    let mut site = Site::new(3, "", true);
    site.until(|site, _| leaving(site, 1));
    for what in [Move::Take, Move::Balance] {
        assert!(site.step(0, what), "{what:?}");
    }
    assert_eq!(site.serving(), 2, "it is out");
    site.order(Order::Pause).expect("a pause");
    assert!(!leaving(&site, 1) && wish(&site, 1).lease == Eligible, "as it was");
    site.obey();
    assert_eq!((site.serving(), blockers(&site.lap())), (3, vec![BlockerKind::Paused]), "all night, if need be");
    site.order(Order::Resume).expect("a resume");
    site.lap();
    assert!(leaving(&site, 1));
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done));
}

#[test]
fn a_pause_of_our_own_gives_back_the_host_that_has_left_too() {
    let mut site = Site::new(3, "", true);
    site.until(|site, _| leaving(site, 1));
    site.obey();
    // Holder and beat contradict each other: nobody can say who holds.
    site.world.fleet.lease.beat.as_mut().expect("a beat").mod_revision += 1;
    assert!(site.world.fleet.lease.check().is_err());
    let paused = site.lap();
    let Event::Paused { reason, .. } = event(&paused) else { panic!("{paused:?}") };
    assert!(!leaving(&site, 1), "{reason}");
}

#[test]
fn on_the_way_back_a_host_that_has_left_serves_again_while_another_one_is_lost() {
    let mut site = Site::new(3, "soak = \"1h\"\n", false);
    site.until(|site, _| site.versions().iter().all(|version| version == "1.1.0"));
    site.order(Order::Rollback).expect("a way back");
    site.until(|site, _| leaving(site, 1));
    for what in [Move::Take, Move::Balance] {
        assert!(site.step(0, what), "{what:?}");
    }
    // While its balancers let it go, another host loses its power.
    site.hosts[1].runs = None;
    site.hosts[1].heard = false;
    site.lap();
    assert_eq!((wish(&site, 1).version.as_str(), leaving(&site, 1)), ("1.1.0", false), "it is not stopped now");
    for _ in 0..20 {
        site.step(0, Move::Take);
        site.step(0, Move::Balance);
        assert!(matches!(site.lap(), Decision::Wait { .. }), "it does not go to and fro");
        site.world.pass(Duration::from_secs(1));
    }
    assert_eq!(site.serving(), 2);
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack), "the lost one is back, and it leaves again");
    assert_eq!(site.versions(), ["1.0.0"; 3]);
}

#[test]
fn a_host_that_is_not_heard_does_not_keep_the_others_of_its_wave_out_for_ever() {
    let mut site = Site::new(5, "wave_size = 2\nmin_serving = 3\n", false);
    site.until(|site, _| leaving(site, 1) && leaving(site, 2));
    for what in [Move::Take, Move::Balance] {
        assert!(site.step(0, what), "{what:?}");
    }
    assert!(site.step(1, Move::Silence));
    for _ in 0..59 {
        assert_eq!(blockers(&site.lap()), [BlockerKind::AgentSilent], "three serve, as they have to");
        site.world.pass(Duration::from_secs(10));
    }
    site.world.pass(Duration::from_secs(11));
    let paused = site.lap();
    let Event::Paused { reason, .. } = event(&paused) else { panic!("{paused:?}") };
    assert!(reason.starts_with("app-02: it is not heard") && reason.contains("10m"), "{reason}");
    assert!(!leaving(&site, 1) && !leaving(&site, 2));
    site.obey();
    assert_eq!(site.serving(), 5);
    site.order(Order::Resume).expect("a resume");
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done));
}

/// A wave of 120 of 130 hosts, all of which were told to leave.
fn many_are_told_to_leave(lease: bool) -> Site {
    let mut site = Site::new(130, "wave_size = 120\nmin_serving = 10\n", lease);
    for _ in 0..2 {
        site.lap();
    }
    assert_eq!(how_many_leave(&site), 120);
    site
}

fn how_many_leave(site: &Site) -> usize {
    (1..=130).filter(|number| leaving(site, *number)).count()
}

#[test]
fn a_wave_of_more_hosts_than_a_transaction_takes_is_given_back_in_parts_while_the_floor_is_lost() {
    let mut site = many_are_told_to_leave(false);
    let stays = (1..=130).find(|number| !leaving(&site, *number)).expect("ten stay");
    site.hosts[usize::from(stays) - 1].runs = None;
    for left in [20, 0] {
        assert!(matches!(event(&site.lap()), Event::Assigned { .. }));
        assert_eq!(how_many_leave(&site), left);
    }
    assert!(matches!(site.lap(), Decision::Wait { .. }), "it does not go to and fro");
    assert_eq!(how_many_leave(&site), 0);
}

#[test]
fn a_wave_of_more_hosts_than_a_transaction_takes_is_given_back_in_parts_before_a_pause() {
    let mut slow = many_are_told_to_leave(false);
    slow.lap();
    slow.world.pass(Duration::from_secs(601));
    let mut corrupt = many_are_told_to_leave(true);
    corrupt.world.fleet.lease.beat.as_mut().expect("a beat").mod_revision += 1;
    for site in [&mut slow, &mut corrupt] {
        assert!(matches!(event(&site.lap()), Event::Assigned { .. }));
        assert_eq!(how_many_leave(site), 20);
        assert!(matches!(event(&site.lap()), Event::Paused { .. }));
        assert_eq!(how_many_leave(site), 0);
    }
}
