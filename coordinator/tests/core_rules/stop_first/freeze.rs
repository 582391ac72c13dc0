//! A frozen lease stays with its holder, so its holder stays where it is.

use std::time::Duration;

use handover::core::event::{BackStep, Event, Outcome};
use handover::core::next::Decision;
use handover::core::order::Order;
use handover::core::progress::State;
use handover_proto::blocker::BlockerKind;

use super::site::Site;
use super::wish;

/// Waits for an operator to unfreeze, however long, and leaves the host as it is.
fn waits_for_the_operator(site: &mut Site, runs: &str) {
    for _ in 0..40 {
        site.obey();
        site.world.pass(Duration::from_secs(10));
        site.lap();
        assert_eq!(wish(site, 1).version.as_str(), runs, "it goes on serving");
    }
    let Decision::Wait { blockers, .. } = site.lap() else { panic!("a wait, at {:?}", site.world.progress.state) };
    assert_eq!(blockers[0].kind, BlockerKind::Operator);
    assert!(blockers[0].waiting_for.contains("handover lease unfreeze"), "{blockers:?}");
}

#[test]
fn the_only_host_does_not_begin_under_a_freeze_and_has_all_its_time_when_that_is_over() {
    let mut site = Site::new(1, "", true);
    site.world.fleet.lease.frozen = true;
    waits_for_the_operator(&mut site, "1.0.0");
    assert_eq!(site.world.progress.state, State::Running { step: 0 }, "and does not go back for what it waits for");
    site.world.fleet.lease.frozen = false;
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done));
    assert_eq!(site.versions(), ["1.1.0"]);
}

#[test]
fn the_only_host_does_not_go_back_under_a_freeze_and_keeps_serving() {
    let mut site = Site::new(1, "soak = \"1h\"\n", true);
    site.until_event(|event| matches!(event, Event::Entered { step: 3 }));
    site.obey();
    assert_eq!(site.versions(), ["1.1.0"]);
    site.world.fleet.lease.frozen = true;
    site.world.order(Order::Rollback);
    waits_for_the_operator(&mut site, "1.1.0");
    assert!(matches!(site.world.progress.state, State::GoingBack { step: BackStep::Stop, .. }));
    assert_eq!(site.versions(), ["1.1.0"]);
    site.world.fleet.lease.frozen = false;
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack));
    assert_eq!(site.versions(), ["1.0.0"]);
}

#[test]
fn on_the_way_back_of_a_fleet_only_the_frozen_holders_host_waits() {
    let mut site = Site::new(3, "soak = \"1h\"\n", true);
    site.until_event(|event| matches!(event, Event::Entered { step: 10 }));
    site.obey();
    let holder = site.world.fleet.lease.holder.as_ref().expect("a holder").value.owner().agent.clone();
    site.world.fleet.lease.frozen = true;
    site.world.order(Order::Rollback);
    site.until(|_, decision| {
        matches!(decision, Decision::Wait { blockers, .. } if blockers.iter().any(|it| it.kind == BlockerKind::Operator
            && it.waiting_for.contains(holder.as_str()) && it.waiting_for.contains("unfreeze")))
    });
    for _ in 0..100 {
        site.obey();
        site.world.pass(Duration::from_secs(1));
        site.lap();
    }
    let back = site.versions().iter().filter(|version| *version == "1.0.0").count();
    assert_eq!((back, site.serving()), (2, 3), "{:?}", site.versions());
    site.world.fleet.lease.frozen = false;
    // The step that asks for the lease is over: its agent gives it up with the stop.
    site.faults += 1;
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack));
    assert_eq!(site.versions(), ["1.0.0"; 3]);
}
