//! Which upstream is chosen.

use super::*;

#[test]
fn a_pinned_request_goes_to_its_version_while_that_has_a_weight_for_its_class() {
    let mut core = open(vec![upstream(1, 99, 100), upstream(2, 1, 0)]);
    let pinned = |class| Ask { class, pin: Some(Pin::of("1.2.0")) };
    let mut went = |ask: Ask| match core.admit(ask, Arrival::New, NOW) {
        Verdict::Go(route) => route.upstream.version.as_str().to_owned(),
        other => panic!("{other:?}"),
    };
    let reads: Vec<_> = (0..50).map(|_| went(pinned(Class::Read))).collect();
    assert!(reads.iter().all(|version| version == "1.2.0"), "{reads:?}");
    assert_ne!(went(pinned(Class::Write)), "1.2.0", "it has no weight for writes");
    let nowhere = Ask { class: Class::Read, pin: Some(Pin::of("3.0.0")) };
    assert!(!went(nowhere).is_empty(), "a version that is not there binds nobody");
    // The others' split is as if those had not been.
    let others: Vec<_> = (0..100).map(|_| went(Class::Read.into())).collect();
    assert_eq!(others.iter().filter(|version| *version == "1.2.0").count(), 1);
}

#[test]
fn an_upstream_that_could_not_be_connected_to_is_passed_over_for_a_second_unless_it_is_the_last() {
    let mut core = open(vec![upstream(1, 50, 50), upstream(2, 50, 50)]);
    let Verdict::Go(first) = core.admit(Class::Read, Arrival::New, NOW) else { panic!("open") };
    let Verdict::Go(second) = core.admit(Class::Read, Arrival::Again(&[first.key]), NOW) else { panic!("another") };
    let keys = |core: &mut Core, now| -> Vec<u64> {
        let mut go = || match core.admit(Class::Read, Arrival::New, now) {
            Verdict::Go(route) => route.key,
            other => panic!("{other:?}"),
        };
        (0..10).map(|_| go()).collect()
    };
    assert_eq!(keys(&mut core, NOW), [second.key; 10]);
    assert!(keys(&mut core, NOW + PASSED_OVER).contains(&first.key), "tried again after a second");
    assert_eq!(
        core.admit(Class::Read, Arrival::Again(&[first.key, second.key]), NOW),
        Verdict::Refuse(Reason::Connect)
    );
    assert_eq!(keys(&mut core, NOW).len(), 10, "where there is no other, a lost one is better than none");
}
