//! Every way that there is.

use std::collections::BTreeMap;

use super::*;

/// From every state that an instance can be in, every assignment that can follow is reached, by legal moves only.
#[test]
fn every_state_reaches_every_assignment() {
    let states = [
        None,
        Some(Lifecycle::Ready),
        Some(Lifecycle::Serving),
        Some(Lifecycle::Draining),
        Some(Lifecycle::Terminated),
    ];
    let wishes: [&[(&str, &str, Lifecycle, u32)]; 4] = [
        &[("a", "1", Lifecycle::Serving, 100)],
        &[("a", "1", Lifecycle::Ready, 0)],
        &[("a", "2", Lifecycle::Serving, 100)],
        &[],
    ];
    let mut walked = BTreeMap::new();
    for (from, state) in states.into_iter().enumerate() {
        for (to, wish) in wishes.iter().enumerate() {
            let mut host = Host::new();
            host.act(&Effect::Start { slot: id("a"), version: "1".parse().expect("version") });
            host.instance("a").lifecycle = state;
            let wish = assigned(wish);
            for _ in 0..6 {
                host.settle(&wish);
                if let Some(it) = &mut host.seen.slots.get_mut(&id("a")).expect("slot").instance {
                    it.ready = true;
                    if it.process != Process::Running {
                        host.exit("a");
                    }
                }
            }
            walked.insert((from, to), host.settle(&wish).reached);
        }
    }
    assert_eq!(walked.len(), 20);
    assert!(walked.values().all(|reached| *reached), "{walked:?}");
}

/// Stop-first: one assignment that wants another version in the same slot, with its traffic.
#[test]
fn a_version_makes_room_for_the_next_one_in_its_slot_and_the_gate_holds_meanwhile() {
    let mut host = Host::new();
    let (old, new) =
        (assigned(&[("a", "1", Lifecycle::Serving, 100)]), assigned(&[("a", "2", Lifecycle::Serving, 100)]));
    host.settle(&old);
    host.instance("a").ready = true;
    assert!(host.settle(&old).reached);
    host.instance("a").ledger = Ledger { lines: vec![Line::counted(Kind::Requests, 1, Duration::ZERO)] };
    let out = host.settle(&new);
    assert!(out.routes.open && !out.reached, "requests are held, not refused");
    assert_eq!(out.routes.local[0].reads, 0, "nothing new for the old one");
    assert_eq!(out.waiting.expect("a wait").kind, BlockerKind::Drain);
    host.instance("a").ledger = Ledger::default();
    assert_eq!(host.settle(&new).waiting.expect("a wait").kind, BlockerKind::Stop);
    host.exit("a");
    let out = host.settle(&new);
    assert!(out.routes.open && out.routes.local.is_empty(), "nobody is there yet");
    assert_eq!(out.waiting.expect("a wait").kind, BlockerKind::Readiness);
    host.instance("a").ready = true;
    let out = host.settle(&new);
    assert!(out.reached && out.routes.local[0].reads == 100, "it opens by itself");
}
