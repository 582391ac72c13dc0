use super::*;

const SETTLE: Duration = Duration::from_secs(1);
const ALL: Wish = Wish::Serve { percent: 100 };

fn at(seconds: u64) -> Boot {
    Duration::from_secs(1000 + seconds)
}

fn one() -> (Target, IpAddr) {
    (Target::Host, IpAddr::from([10, 0, 0, 1]))
}

fn two() -> (Target, IpAddr) {
    (Target::Host, IpAddr::from([10, 0, 0, 2]))
}

fn host(wish: Wish) -> Wishes {
    Wishes::from([(Target::Host, wish)])
}

#[test]
fn a_drain_is_known_once_everybody_who_asks_was_told_and_the_time_to_ask_is_over() {
    let mut askers = Askers::default();
    assert_eq!(askers.known(SETTLE, at(0)), Ok(None), "nothing is told before anything is assigned");
    askers.tell(&host(ALL), at(0));
    askers.answered(one(), ALL, false, SETTLE, at(0));
    askers.answered(two(), ALL, false, SETTLE, at(0));
    askers.tell(&host(Wish::Drain), at(5));
    assert!(askers.known(SETTLE, at(7)).is_err(), "they have not asked since");
    askers.answered(one(), Wish::Drain, false, SETTLE, at(5));
    let waits = askers.known(SETTLE, at(7)).expect_err("the second has not");
    assert!(waits.sentence.contains("10.0.0.2"), "{}", waits.sentence);
    askers.answered(two(), Wish::Drain, false, SETTLE, at(5));
    assert!(askers.known(SETTLE, at(5)).is_err(), "a third may be about to ask for the first time");
    assert_eq!(askers.known(SETTLE, at(6)), Ok(Some(host(Wish::Drain))));
}

#[test]
fn nobody_who_asks_is_a_reason_of_its_own_and_one_who_is_gone_is_not_waited_for() {
    let mut askers = Askers::default();
    askers.tell(&host(Wish::Drain), at(0));
    let waits = askers.known(SETTLE, at(2)).expect_err("nobody asks");
    assert_eq!(waits.kind, BlockerKind::BalancerUnreachable);
    askers.answered(two(), ALL, false, SETTLE, at(0));
    askers.answered(one(), Wish::Drain, false, SETTLE, at(30));
    assert!(askers.known(SETTLE, at(59)).is_err(), "silent, perhaps only slow");
    assert!(askers.known(SETTLE, at(61)).is_ok());
}

#[test]
fn nobody_is_drained_before_the_asker_knows_of_one_that_serves() {
    let slot = |name: &str| Target::Slot(name.parse().expect("slot"));
    let (a, b, asker) = (slot("a"), slot("b"), one().1);
    let mut askers = Askers::default();
    askers.tell(&[(a.clone(), ALL), (b.clone(), Wish::Drain)].into(), at(0));
    for target in [&a, &b] {
        let wish = askers.wish(target, asker, SETTLE, at(0)).expect("a wish");
        askers.answered((target.clone(), asker), wish, false, SETTLE, at(0));
    }
    askers.tell(&[(a.clone(), Wish::Drain), (b.clone(), ALL)].into(), at(1));
    assert_eq!(askers.wish(&a, asker, SETTLE, at(1)), Some(ALL), "b has not been asked for yet");
    assert_eq!(askers.wish(&a, two().1, SETTLE, at(1)), Some(Wish::Drain), "one that was never told otherwise");
    askers.answered((b.clone(), asker), ALL, false, SETTLE, at(1));
    assert_eq!(askers.wish(&a, asker, SETTLE, at(1)), Some(Wish::Drain));
    askers.tell(&[(a.clone(), Wish::Drain), (b, Wish::Drain)].into(), at(2));
    assert_eq!(askers.wish(&a, asker, SETTLE, at(2)), Some(Wish::Drain), "where nobody is to serve, at once");
}

#[test]
fn one_that_never_asked_about_what_is_to_serve_is_told_to_drain_once_it_has_had_the_time_to_ask() {
    let slot = |name: &str| Target::Slot(name.parse().expect("slot"));
    let (a, b) = (slot("a"), slot("b"));
    let (only_a, both) = (one().1, two().1);
    let mut askers = Askers::default();
    askers.tell(&[(a.clone(), ALL), (b.clone(), Wish::Drain)].into(), at(0));
    askers.answered((a.clone(), only_a), ALL, false, SETTLE, at(0));
    askers.answered((a.clone(), both), ALL, false, SETTLE, at(0));
    askers.answered((b.clone(), both), Wish::Drain, false, SETTLE, at(0));
    askers.tell(&[(a.clone(), Wish::Drain), (b.clone(), ALL)].into(), at(1));
    assert_eq!(askers.wish(&a, only_a, SETTLE, at(1)), Some(ALL), "it may be about to ask");
    assert_eq!(askers.wish(&a, only_a, SETTLE, at(2)), Some(Wish::Drain));
    askers.answered((a.clone(), only_a), Wish::Drain, true, SETTLE, at(2));
    // The other one was told to drain b: with a drained, too, it would have nobody.
    assert_eq!(askers.wish(&a, both, SETTLE, at(50)), Some(ALL));
    askers.answered((a.clone(), both), ALL, false, SETTLE, at(50));
    let waits = askers.known(SETTLE, at(50)).expect_err("b has not been asked for since");
    assert_eq!(
        waits.sentence,
        "HAProxy at 10.0.0.2 to ask the agent-check port about slot b, before it is told to drain"
    );
    askers.answered((b, both), ALL, false, SETTLE, at(51));
    assert_eq!(askers.wish(&a, both, SETTLE, at(51)), Some(Wish::Drain));
    let waits = askers.known(SETTLE, at(51)).expect_err("it has not been told yet");
    assert_eq!(waits.sentence, "HAProxy at 10.0.0.2 to ask the agent-check port about slot a again");
}

/// As many recorded as may be: strangers that asked in a drain, at these moments.
fn strangers(askers: &mut Askers, asked: impl Fn(u32) -> Boot) -> Vec<(Target, IpAddr)> {
    let limit = u32::try_from(LIMIT).expect("small");
    let recorded: Vec<_> = (1..=limit).map(|n| (Target::Host, IpAddr::from(n.to_be_bytes()))).collect();
    for (n, at) in (0..).zip(&recorded) {
        askers.answered(at.clone(), Wish::Drain, true, SETTLE, asked(n));
    }
    recorded
}

#[test]
fn strangers_that_are_gone_make_room_for_an_haproxy_to_be_told_to_drain() {
    let mut askers = Askers::default();
    askers.tell(&host(Wish::Drain), at(0));
    let mut recorded = strangers(&mut askers, |n| if n == 7 { at(1) } else { at(3) });
    assert_eq!(askers.room(&recorded, at(60)), Room::None, "all of them may be HAProxies");
    let (target, longest) = recorded[7].clone();
    assert_eq!(askers.room(&recorded, at(61)), Room::InsteadOf(target, longest));
    recorded.remove(7);
    assert_eq!(askers.room(&recorded, at(3)), Room::Free);
    // Those that an earlier agent recorded have had the time to ask this one.
    let (mut next, earlier) = (Askers::default(), [recorded, vec![one()]].concat());
    next.tell(&host(ALL), at(100));
    assert_eq!(next.room(&earlier, at(159)), Room::None);
    assert!(matches!(next.room(&earlier, at(160)), Room::InsteadOf(..)));
}

#[test]
fn while_one_that_asks_cannot_be_told_no_drain_is_known_and_the_reason_is_said() {
    let mut askers = Askers::default();
    askers.tell(&host(ALL), at(0));
    askers.answered(one(), ALL, false, SETTLE, at(0));
    askers.tell(&host(Wish::Drain), at(1));
    strangers(&mut askers, |_| at(2));
    // It asks on and on, for longer than one that is silent is waited for.
    for second in 1..=120 {
        askers.refused(one().1, "the record is full", at(second));
        let waits = askers.known(SETTLE, at(second)).expect_err("it sends");
        assert!(
            waits.sentence.contains("10.0.0.1") && waits.sentence.contains("the record is full"),
            "{}",
            waits.sentence
        );
    }
    askers.answered(one(), Wish::Drain, true, SETTLE, at(121));
    strangers(&mut askers, |_| at(170));
    assert!(askers.known(SETTLE, at(179)).is_err(), "it may not have been the only one");
    assert_eq!(askers.known(SETTLE, at(180)), Ok(Some(host(Wish::Drain))));
    askers.tell(&host(ALL), at(181));
    askers.refused(one().1, "the record is full", at(181));
    askers.answered(one(), ALL, false, SETTLE, at(182));
    let waits = askers.known(SETTLE, at(183)).expect_err("the strangers have not asked since");
    assert!(!waits.sentence.contains("full"), "of no concern where nothing drains: {}", waits.sentence);
}

#[test]
fn an_undo_is_said_for_a_while_and_then_forgotten() {
    let mut askers = Askers::default();
    assert!(!askers.answered(one(), Wish::Drain, true, SETTLE, at(0)), "a drain undoes nothing");
    assert!(!askers.answered(one(), ALL, true, SETTLE, at(1)));
    assert!(!askers.answered(two(), ALL, true, SETTLE, at(2)), "each for itself");
    assert!(askers.answered(one(), ALL, true, SETTLE, at(2)));
    assert!(!askers.answered(one(), ALL, false, SETTLE, at(9)), "nothing of ours is there");
}

#[test]
fn many_addresses_are_not_remembered_without_end() {
    let mut askers = Askers::default();
    for n in 0..10_000_u32 {
        askers.answered((Target::Host, IpAddr::from(n.to_be_bytes())), ALL, false, SETTLE, at(0));
    }
    assert_eq!(askers.seen.len(), LIMIT);
    askers.answered(one(), ALL, false, SETTLE, at(100));
    assert_eq!(askers.seen.len(), 1);
}
