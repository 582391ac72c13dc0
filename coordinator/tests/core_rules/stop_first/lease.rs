//! The lease in the ways of versions that take turns.

use std::time::Duration;

use handover::core::event::{BackStep, Event, Outcome};
use handover::core::next::Decision;
use handover::core::order::Order;
use handover_proto::lease::IntentKind;

use super::site::{Move, Site};
use crate::world::{agent, instance_id, slot};

#[test]
fn on_the_way_back_one_candidate_is_not_asked_to_hand_the_lease_to_the_next() {
    let mut site = Site::new(3, "soak = \"1h\"\n", true);
    site.until_event(|event| matches!(event, Event::Entered { step: 10 }));
    site.obey();
    site.world.order(Order::Rollback);
    // The first host's current version does not become ready any more, and the floor keeps the next one where it is.
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
