//! The order of leaving where balancers are in front (`SAFETY.md` R5, R6).

use super::*;
use crate::core::front::{BalancerSeen, By, Target, Wish, Wishes};
use crate::core::next::Waiting;

fn balancer(confirmed: Option<Wishes>) -> BalancerSeen {
    let kind = BlockerKind::BalancerUnreachable;
    let trouble = Waiting { kind, sentence: "haproxy: refused".into() };
    BalancerSeen { name: "haproxy".into(), trouble: confirmed.is_none().then_some(trouble), confirmed }
}

fn host(wish: Wish) -> Option<Wishes> {
    Some(Wishes::from([(Target::Host, wish)]))
}

const ALL: Wish = Wish::Serve { percent: 100 };

fn behind(by: By) -> (Host, Assignment) {
    let (mut host, wish) = Host::serving();
    host.seen.front.by = by;
    host.seen.front.balancers = vec![balancer(None)];
    (host, wish)
}

#[test]
fn a_host_that_is_to_serve_nothing_serves_on_until_its_balancer_lets_it_go() {
    let (mut it, _) = behind(By::Host);
    it.seen.front.balancers = vec![balancer(host(ALL))];
    let gone = assigned(&[]);
    let out = it.settle(&gone);
    assert_eq!(Some(&out.wishes), host(Wish::Drain).as_ref(), "the balancer is told first");
    assert!(out.routes.leaving && out.routes.open, "a lame duck: {:?}", out.routes);
    assert_eq!((out.routes.local[0].reads, out.routes.local[0].writes), (100, 100));
    assert_eq!(kind(&out), BlockerKind::BalancerNotConfirmed);
    it.now += Duration::from_secs(3600);
    it.seen.front.balancers = vec![balancer(None)];
    let out = it.settle(&gone);
    assert_eq!(kind(&out), BlockerKind::BalancerUnreachable, "no deadline lets it go");
    assert_eq!(it.instance("a").lifecycle, Some(Lifecycle::Serving));
    assert_eq!(it.log, [], "nothing was done");

    it.seen.front.balancers = vec![balancer(host(Wish::Drain))];
    assert_eq!(kind(&it.settle(&gone)), BlockerKind::Stop, "now it is drained and stopped");
    assert!(it.seen.gate.applied.as_ref().is_some_and(|routes| !routes.open));
}

#[test]
fn a_host_that_leaves_is_as_assigned_once_every_balancer_says_so() {
    let (mut it, mut wish) = behind(By::Host);
    wish.leaving = true;
    let out = it.settle(&wish);
    assert!(!out.reached);
    assert_eq!(kind(&out), BlockerKind::BalancerUnreachable);
    it.seen.front.balancers = vec![balancer(host(Wish::Drain)), balancer(host(ALL))];
    assert!(!it.settle(&wish).reached, "one of two");
    it.seen.front.balancers[1] = balancer(host(Wish::Drain));
    assert!(it.settle(&wish).reached);
}

#[test]
fn a_host_is_back_once_its_balancer_sends_to_it() {
    let (mut it, wish) = behind(By::Host);
    it.seen.front.balancers = vec![balancer(host(Wish::Drain))];
    let out = it.settle(&wish);
    assert_eq!((out.reached, kind(&out)), (false, BlockerKind::BalancerNotConfirmed));
    it.seen.front.balancers = vec![balancer(host(ALL))];
    assert!(it.settle(&wish).reached);
}

#[test]
fn a_host_on_which_nothing_serves_is_emptied_without_a_balancer() {
    let (mut it, _) = behind(By::Host);
    it.instance("a").lifecycle = Some(Lifecycle::Ready);
    assert_eq!(kind(&it.settle(&assigned(&[]))), BlockerKind::Stop);
}

#[test]
fn a_change_of_instance_behind_one_gate_asks_no_balancer() {
    let (mut it, _) = behind(By::Host);
    let both = assigned(&[("a", "1", Lifecycle::Ready, 0), ("b", "2", Lifecycle::Serving, 100)]);
    it.settle(&both);
    it.instance("b").ready = true;
    it.settle(&both);
    assert_eq!(it.instance("a").lifecycle, Some(Lifecycle::Ready), "drained, though the balancer is away");
}

/// Where balancers choose between instances, the shell says as applied what they have confirmed.
#[test]
fn an_instance_is_stopped_only_once_its_balancer_says_that_it_sends_nothing_and_its_connections_are_gone() {
    let (mut it, wish) = behind(By::Slot);
    let serving = it.settle(&wish).routes;
    let sockets = |count| Line::counted(Kind::Sockets, count, Duration::ZERO);
    it.instance("a").ledger = Ledger { lines: vec![sockets(3)] };
    let gone = assigned(&[]);
    let lap = |it: &mut Host, applied: &Routes| {
        (0..5).for_each(|_| {
            it.seen.gate.applied = Some(applied.clone());
            it.lap(&gone);
        });
        it.lap(&gone)
    };
    let out = lap(&mut it, &serving);
    assert_eq!(kind(&out), BlockerKind::BalancerUnreachable);
    assert!(out.wishes.values().all(|wish| *wish == Wish::Drain), "{:?}", out.wishes);
    it.instance("a").ledger = Ledger::default();
    lap(&mut it, &serving);
    assert!(!it.log.iter().any(|effect| matches!(effect, Effect::Terminate { .. })), "idle, but not cut off");

    it.seen.front.balancers = vec![balancer(Some(out.wishes.clone()))];
    it.instance("a").ledger = Ledger { lines: vec![sockets(2)] };
    let waits = lap(&mut it, &out.routes);
    assert_eq!(kind(&waits), BlockerKind::Drain);
    assert!(waits.waiting.expect("a reason").sentence.contains("2 sockets"));
    it.instance("a").ledger = Ledger { lines: vec![Line::unknown(Kind::Sockets, "no netlink".into())] };
    assert_eq!(kind(&lap(&mut it, &out.routes)), BlockerKind::Uncounted, "uncounted is not zero");
    it.instance("a").ledger = Ledger { lines: vec![sockets(0)] };
    assert_eq!(kind(&lap(&mut it, &out.routes)), BlockerKind::Stop);
}
