use super::*;
use crate::core::front::{BalancerSeen, Wishes};
use crate::core::observed::LocalRoute;

/// An instance in slot `a` and one in slot `b`, with these weights.
struct Pair(InstanceId, InstanceId);

impl Pair {
    fn routes(&self, a: u32, b: u32) -> Routes {
        let route = |slot: &str, instance: &InstanceId, weight| LocalRoute {
            slot: slot.parse().expect("a slot"),
            instance: instance.clone(),
            version: "1.0.0".parse().expect("a version"),
            reads: weight,
            writes: weight,
            ready: true,
        };
        Routes { local: vec![route("a", &self.0, a), route("b", &self.1, b)], open: true, ..Routes::default() }
    }
}

fn slots() -> [SlotId; 2] {
    ["a", "b"].map(|slot| slot.parse().expect("a slot"))
}

/// Two HAProxies: the second one has said this, or nothing.
fn front(first: &Routes, second: Option<&Routes>) -> FrontSeen {
    let say = |routes: &Routes| -> Wishes { wishes(routes, By::Slot, &mut slots().iter()) };
    let one = |name: &str, routes: Option<&Routes>| BalancerSeen {
        name: name.to_owned(),
        confirmed: routes.map(say),
        trouble: None,
    };
    FrontSeen { by: By::Slot, balancers: vec![one("one", Some(first)), one("two", second)] }
}

fn seen(it: &mut SignalRouting, front: &FrontSeen) -> GateSeen {
    it.seen(front, &mut slots().iter())
}

#[tokio::test]
async fn a_drain_that_was_taken_back_and_ordered_again_waits_for_every_balancer_again() {
    let (mut it, pair) =
        (SignalRouting::new(Arc::new(Notify::new())), Pair(InstanceId::random(), InstanceId::random()));
    let (drains, serves) = (pair.routes(0, 100), pair.routes(100, 100));
    it.tell(&drains);
    assert!(seen(&mut it, &front(&drains, Some(&drains))).sends_nothing_to(&pair.0), "both have said so");
    // The second one is away, so this is never applied.
    it.tell(&serves);
    assert!(!seen(&mut it, &front(&serves, None)).sends_nothing_to(&pair.0), "the first one sends");
    it.tell(&drains);
    assert!(!seen(&mut it, &front(&serves, None)).sends_nothing_to(&pair.0), "it sends still");
    assert!(!seen(&mut it, &front(&drains, None)).sends_nothing_to(&pair.0), "the second one may send");
    assert!(seen(&mut it, &front(&drains, Some(&drains))).sends_nothing_to(&pair.0));
}

#[tokio::test]
async fn a_drain_that_nothing_takes_back_stays_confirmed_while_other_routes_wait_for_a_balancer() {
    let (mut it, pair) =
        (SignalRouting::new(Arc::new(Notify::new())), Pair(InstanceId::random(), InstanceId::random()));
    let (drains, less) = (pair.routes(0, 100), pair.routes(0, 50));
    it.tell(&drains);
    let cut_off = seen(&mut it, &front(&drains, Some(&drains)));
    it.tell(&less);
    let waits = seen(&mut it, &front(&less, None));
    assert!(waits == cut_off && waits.sends_nothing_to(&pair.0), "every order since then says the same of it");
    assert!(!waits.sends_nothing_to(&pair.1));
}
