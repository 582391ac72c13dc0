//! Instances that end by themselves.

use super::*;

#[test]
fn a_crash_is_followed_by_a_new_start_but_not_before_its_time() {
    let (mut host, wish) = Host::serving();
    host.exit("a");
    let slot = host.seen.slots.get_mut(&id("a")).expect("slot");
    let retry_at = host.now + crate::core::slot::retry_after(1);
    let version = "1".parse().expect("version");
    slot.crashes = Some(Crashes { version, count: 1, retry_at, reason: "signal 9".into() });
    let out = host.settle(&wish);
    assert_eq!((kind(&out), out.wake_at), (BlockerKind::Crash, Some(retry_at)));
    assert!(out.waiting.expect("a reason").sentence.contains("version 1 ended once (signal 9)"));
    host.now = retry_at;
    host.settle(&wish);
    assert!(matches!(host.log[..], [Effect::Start { .. }]));
}

#[test]
fn retries_grow_and_stay_within_their_limit() {
    let waits: Vec<_> = (1..=40).map(crate::core::slot::retry_after).collect();
    assert!(waits.is_sorted());
    assert_eq!((waits[0], waits[39]), (Duration::from_millis(500), Duration::from_secs(10)));
}
