//! The lease in the ways of versions that take turns.

use std::time::Duration;

use handover::core::event::{BackStep, Event, Outcome};
use handover::core::next::Decision;
use handover::core::order::Order;
use handover_proto::blocker::BlockerKind;
use handover_proto::lease::IntentKind;

use super::leaving;
use super::site::{Move, OURS, Site};
use crate::world::{agent, blockers, event, hold, instance_id, slot};

#[test]
fn on_the_way_back_one_candidate_is_not_asked_to_hand_the_lease_to_the_next() {
    let mut site = Site::new(3, "soak = \"1h\"\n", true);
    site.until_event(|event| matches!(event, Event::Entered { step: 10 }));
    site.obey();
    site.world.order(Order::Rollback);
    // The first candidate holds. The second host's current version does not become ready, and the floor keeps the third.
    site.faults += 1;
    let entered = |site: &Site| site.world.events().contains(&&Event::BackEntered { step: BackStep::Stop });
    let mut until = 2_000;
    while !entered(&site) && until > 0 {
        until -= 1;
        site.lap();
        for number in 0..3 {
            for what in [Move::Take, Move::Balance, Move::Stop, Move::Start] {
                site.step(number, what);
            }
        }
        site.lease_moves();
        site.world.pass(Duration::from_millis(200));
    }
    assert!(entered(&site), "{:?}", site.world.progress.state);
    let asked = |event: &&Event| match event {
        Event::Asked { intent: IntentKind::Return, to, .. } => {
            (1..=3).any(|host| *to == instance_id(&agent(host), &slot("b")))
        }
        _ => false,
    };
    assert_eq!(site.world.events().into_iter().filter(asked).count(), 0, "from a candidate to a candidate");
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack));
}

#[test]
fn before_a_host_leaves_nobody_is_late_for_a_lease_that_cannot_move_yet() {
    let mut site = Site::new(2, "min_serving = 0\n", true);
    hold(&mut site.world.fleet.lease, &agent(1), "a", "1.0.0", 70);
    site.hosts[1].runs.as_mut().expect("it runs").ready = false;
    for _ in 0..60 {
        assert_eq!(blockers(&site.lap()), [BlockerKind::Lease], "nobody is ready to take it");
        assert!(!leaving(&site, 1));
        site.world.pass(Duration::from_secs(10));
    }
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done));
}

#[test]
fn a_holder_that_was_asked_and_does_not_answer_pauses_the_rollout_before_its_host_leaves() {
    let mut site = Site::new(3, "", true);
    hold(&mut site.world.fleet.lease, &agent(1), "a", "1.0.0", 70);
    assert!(matches!(event(&site.lap()), Event::Asked { .. }));
    site.world.pass(Duration::from_secs(46));
    assert!(matches!(event(&site.lap()), Event::Paused { .. }));
    assert!(!leaving(&site, 1));
}

#[test]
fn on_the_way_back_a_host_that_is_not_heard_does_not_keep_the_lease_from_moving() {
    let mut site = Site::new(3, "soak = \"1h\"\nmin_serving = 1\n", true);
    site.until_event(|event| matches!(event, Event::Entered { step: 10 }));
    site.obey();
    site.world.order(Order::Rollback);
    let began = site.world.now.boot;
    site.step(1, Move::Silence);
    let back = |site: &Site| site.world.events().contains(&&Event::BackEntered { step: BackStep::Stop });
    while !back(&site) && site.world.now.boot < began + Duration::from_secs(600) {
        site.lap();
        for number in [0, 2] {
            while OURS.into_iter().any(|what| site.step(number, what)) {}
        }
        site.lease_moves();
        site.world.pass(Duration::from_millis(200));
    }
    assert!(site.world.now.boot < began + Duration::from_secs(20), "{:?}", site.world.progress.state);
    let returned = |event: &&Event| matches!(event, Event::Asked { intent: IntentKind::Return, .. });
    assert!(site.world.events().iter().any(returned), "by then the first host's candidate had given it back");
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack), "it is heard again");
    assert_eq!(site.versions(), ["1.0.0"; 3]);
}
