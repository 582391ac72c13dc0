use super::*;

const READY: usize = 0;
const LIVE: usize = 1;
const SHOWN: usize = 2;

fn conditions() -> Conditions {
    let probe = |name: &str, affects: &str| {
        let text = format!("name = \"{name}\"\naffects = \"{affects}\"\ntcp = {{}}\nfall = 1");
        toml::from_str::<ProbeSettings>(&text).expect("settings")
    };
    Conditions::new(&[probe("app", "ready"), probe("up", "live"), probe("lease", "report")], s(0))
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn good() -> Reading {
    Reading::Good("200".to_owned())
}

fn bad() -> Reading {
    Reading::Bad("503".to_owned())
}

#[test]
fn the_first_time_is_not_delayed() {
    let mut conditions = conditions();
    assert!(!conditions.summary().ready);
    conditions.feed(READY, good(), s(1));
    let summary = conditions.summary();
    assert!(summary.ready && summary.held_until.is_none());
}

#[test]
fn leaving_is_immediate_and_returning_comes_ten_seconds_after_the_last_return() {
    let mut conditions = conditions();
    conditions.feed(READY, good(), s(1));
    conditions.feed(READY, bad(), s(3));
    assert!(!conditions.summary().ready);
    assert_eq!(conditions.wake_at(), None, "there is nothing to wait for yet");

    conditions.feed(READY, good(), s(4));
    let held = conditions.summary();
    assert!(!held.ready && held.conditions[READY].met);
    assert_eq!((held.held_until, conditions.wake_at()), (Some(s(11)), Some(s(11))));

    conditions.pass(s(10));
    assert!(!conditions.summary().ready);
    conditions.pass(s(11));
    assert!(conditions.summary().ready);
    assert_eq!(conditions.wake_at(), None);
}

#[test]
fn a_held_return_is_forgotten_when_the_condition_falls_again() {
    let mut conditions = conditions();
    conditions.feed(READY, good(), s(1));
    conditions.feed(READY, bad(), s(2));
    conditions.feed(READY, good(), s(3));
    conditions.feed(READY, bad(), s(4));
    conditions.pass(s(20));
    assert!(!conditions.summary().ready);
    conditions.feed(READY, good(), s(21));
    assert!(conditions.summary().ready, "the last return is long ago");
}

#[test]
fn a_flapping_instance_returns_at_most_once_in_ten_seconds() {
    let mut conditions = conditions();
    let mut returns = Vec::new();
    for second in 0..100 {
        let before = conditions.summary().ready;
        conditions.feed(READY, if second % 2 == 0 { good() } else { bad() }, s(second));
        if !before && conditions.summary().ready {
            returns.push(second);
        }
    }
    assert!(returns.len() > 5, "it does return: {returns:?}");
    assert!(returns.windows(2).all(|pair| pair[1] - pair[0] >= 10), "{returns:?}");
}

#[test]
fn a_condition_that_is_only_shown_takes_nothing_away() {
    let mut conditions = conditions();
    conditions.feed(READY, good(), s(1));
    conditions.feed(SHOWN, good(), s(1));
    conditions.feed(SHOWN, bad(), s(2));
    let summary = conditions.summary();
    assert!(summary.ready && summary.live);
    let shown = &summary.conditions[SHOWN];
    assert_eq!((shown.name.as_str(), shown.met, shown.reading.as_str(), shown.since), ("lease", false, "503", s(2)));
}

#[test]
fn a_starting_instance_is_alive_and_one_that_fell_is_not() {
    let mut conditions = conditions();
    conditions.feed(LIVE, bad(), s(1));
    assert!(conditions.summary().live);
    assert!(!conditions.has_started(LIVE));
    conditions.feed(LIVE, good(), s(2));
    conditions.feed(READY, good(), s(2));
    assert!(conditions.has_started(LIVE));
    conditions.feed(LIVE, bad(), s(3));
    let summary = conditions.summary();
    assert!(!summary.live && summary.ready, "liveness is told apart from readiness");
    conditions.feed(LIVE, good(), s(4));
    assert!(conditions.summary().live);
}

#[test]
fn a_reading_that_was_not_taken_takes_no_traffic_away() {
    let mut conditions = conditions();
    conditions.feed(READY, good(), s(1));
    for second in 2..100 {
        conditions.feed(READY, Reading::NotTaken("late".to_owned()), s(second));
    }
    assert!(conditions.summary().ready);
}

#[test]
fn a_reading_of_an_unknown_place_changes_nothing() {
    let mut conditions = conditions();
    let before = conditions.summary();
    conditions.feed(9, good(), s(1));
    assert_eq!(conditions.summary(), before);
    assert!(!conditions.has_started(9));
}
