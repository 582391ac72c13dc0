use super::*;

fn slot(text: &str) -> SlotId {
    text.parse().expect("slot")
}

fn route(name: &str, reads: u32, writes: u32, ready: bool) -> LocalRoute {
    let (instance, version) = (handover_proto::ids::InstanceId::random(), "1.0.0".parse().expect("version"));
    LocalRoute { slot: slot(name), instance, version, reads, writes, ready }
}

fn routes(local: Vec<LocalRoute>) -> Routes {
    Routes { local, open: true, ..Routes::default() }
}

fn of(routes: &Routes, by: By) -> Vec<Wish> {
    wishes(routes, by, &mut [slot("a"), slot("b")].iter()).into_values().collect()
}

const ALL: Wish = Wish::Serve { percent: 100 };

#[test]
fn a_host_is_served_while_a_ready_instance_has_weight_and_it_does_not_leave() {
    let mut host = routes(vec![route("a", 100, 0, true)]);
    assert_eq!(of(&host, By::Host), [ALL]);
    host.leaving = true;
    assert_eq!(of(&host, By::Host), [Wish::Drain]);
    host = Routes { open: false, leaving: false, ..host };
    assert_eq!(of(&host, By::Host), [Wish::Drain]);
    for none in [route("a", 100, 100, false), route("a", 0, 0, true)] {
        assert_eq!(of(&routes(vec![none]), By::Host), [Wish::Drain]);
    }
}

#[test]
fn between_instances_the_weights_for_writes_count_and_those_for_reads_only_without_any() {
    let both = routes(vec![route("a", 75, 100, true), route("b", 25, 0, true)]);
    assert_eq!(of(&both, By::Slot), [ALL, Wish::Drain]);
    let reads = routes(vec![route("a", 75, 0, true), route("b", 25, 0, true)]);
    assert_eq!(of(&reads, By::Slot), [Wish::Serve { percent: 75 }, Wish::Serve { percent: 25 }]);
    let leaving = Routes { leaving: true, ..both.clone() };
    assert_eq!(of(&leaving, By::Slot), [Wish::Drain, Wish::Drain]);
    let unready = routes(vec![route("a", 50, 50, false), route("b", 50, 50, true)]);
    assert_eq!(of(&unready, By::Slot), [Wish::Drain, Wish::Serve { percent: 50 }]);
    assert_eq!(of(&routes(vec![]), By::Slot), [Wish::Drain, Wish::Drain], "an empty slot gets nothing");
}

#[test]
fn every_balancer_must_confirm_the_very_wishes() {
    let drain = Wishes::from([(Target::Host, Wish::Drain)]);
    let serve = Wishes::from([(Target::Host, ALL)]);
    let balancer = |name: &str, confirmed| BalancerSeen { name: name.into(), confirmed, trouble: None };
    assert_eq!(FrontSeen::default().pending(&drain), None, "nobody is told, nobody is waited for");
    let mut front = FrontSeen { by: By::Host, balancers: vec![balancer("one", Some(drain.clone()))] };
    assert_eq!(front.pending(&drain), None);
    assert!(front.pending(&serve).is_some());
    front.balancers.push(balancer("two", Some(serve)));
    let waiting = front.pending(&drain).expect("the second has not confirmed");
    assert_eq!(waiting.kind, BlockerKind::BalancerNotConfirmed);
    assert!(waiting.sentence.contains("two") && waiting.sentence.contains("nothing more"), "{}", waiting.sentence);
    let down = Waiting { kind: BlockerKind::BalancerUnreachable, sentence: "two: refused".into() };
    front.balancers[1] = BalancerSeen { name: "two".into(), confirmed: None, trouble: Some(down.clone()) };
    assert_eq!(front.pending(&drain), Some(down));
}
