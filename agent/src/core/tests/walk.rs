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
