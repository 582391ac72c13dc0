use super::*;

fn token(n: i64) -> Token {
    Token::try_from(n).expect("a token")
}

fn record(state: Told, seq: u64, n: i64) -> LeaseRecord {
    let text = format!(r#"{{"v":1,"instance":"00000000000000aa","state":"STOPPED","seq":{seq},"token":"{n}"}}"#);
    LeaseRecord { state, ..serde_json::from_str(&text).expect("a record") }
}

fn until(soft: u64) -> Deadline {
    Deadline { soft: BootNs(soft), hard: BootNs(soft + 10) }
}

fn active(seq: u64, n: i64, soft: u64) -> Right {
    let mut right = Right::none();
    let heard = right.hear(&record(Told::Active, seq, n), until(soft));
    assert_eq!(heard, Heard::Install { token: token(n), deadline: until(soft) });
    assert_eq!(right.may_start(BootNs(0)), None, "not before install");
    right.installed(token(n), until(soft));
    right
}

#[test]
fn a_process_starts_stopped() {
    assert_eq!(Right::none().may_start(BootNs(0)), None);
    assert_eq!(Right::none().standing(), Standing::Stopped);
}

#[test]
fn silence_ends_the_right_at_the_soft_deadline_to_the_nanosecond() {
    let right = active(1, 5, 100);
    assert_eq!(right.may_start(BootNs(99)), Some((token(5), until(100))));
    assert_eq!(right.may_start(BootNs(100)), None);
}

#[test]
fn a_message_extends_the_deadline_and_never_shortens_it() {
    let mut right = active(1, 5, 100);
    assert_eq!(right.hear(&record(Told::Active, 2, 5), until(200)), Heard::Extended);
    assert_eq!(right.hear(&record(Told::Active, 3, 5), until(50)), Heard::Extended);
    assert_eq!(right.may_start(BootNs(199)), Some((token(5), until(200))));
}

#[test]
fn an_extension_after_the_soft_deadline_gives_the_right_back() {
    let mut right = active(1, 5, 100);
    assert_eq!(right.may_start(BootNs(150)), None);
    assert_eq!(right.hear(&record(Told::Active, 2, 5), until(200)), Heard::Extended);
    assert!(right.may_start(BootNs(150)).is_some());
}

#[test]
fn whatever_is_not_active_ends_the_right_at_once() {
    for state in [Told::Quiesce, Told::Stopped, Told::Fenced, Told::Unknown] {
        let mut right = active(1, 5, 100);
        assert_eq!(right.hear(&record(state, 2, 5), until(200)), Heard::Ended, "{state:?}");
        assert_eq!(right.may_start(BootNs(0)), None, "{state:?}");
        assert_eq!(right.standing(), Standing::Ended { token: token(5), why: Ended::Told(state) });
    }
}

#[test]
fn quiesced_is_final_for_the_record_but_a_new_active_resumes_after_another_install() {
    let mut right = active(1, 5, 100);
    right.hear(&record(Told::Quiesce, 2, 5), Deadline::default());
    assert!(matches!(right.hear(&record(Told::Active, 1, 5), until(200)), Heard::Refused(Refusal::Stale { .. })));
    assert_eq!(
        right.hear(&record(Told::Active, 2, 5), until(200)),
        Heard::Refused(Refusal::NotNew { seq: 2 }),
        "the number of the QUIESCE itself"
    );
    let resumed = right.hear(&record(Told::Active, 3, 5), until(200));
    assert_eq!(resumed, Heard::Install { token: token(5), deadline: until(200) });
}

#[test]
fn a_stale_quiesce_does_not_end_the_right() {
    let mut right = active(3, 5, 100);
    let heard = right.hear(&record(Told::Quiesce, 2, 5), Deadline::default());
    assert_eq!(heard, Heard::Refused(Refusal::Stale { seq: 2, seen: 3 }));
    assert!(right.may_start(BootNs(0)).is_some());
}

#[test]
fn fenced_by_the_ledger_is_final_for_the_same_record() {
    let mut right = active(1, 5, 100);
    right.fenced();
    assert_eq!(right.may_start(BootNs(0)), None);
    assert_eq!(right.hear(&record(Told::Active, 1, 5), until(200)), Heard::Refused(Refusal::NotNew { seq: 1 }));
}

#[test]
fn a_failed_install_may_be_repeated_with_the_same_record() {
    let mut right = Right::none();
    for _ in 0..2 {
        let heard = right.hear(&record(Told::Active, 1, 5), until(100));
        assert!(matches!(heard, Heard::Install { .. }), "{heard:?}");
    }
}

#[test]
fn another_token_ends_the_old_right_before_it_is_installed() {
    let mut right = active(1, 5, 100);
    assert!(matches!(right.hear(&record(Told::Active, 2, 6), until(100)), Heard::Install { .. }));
    assert_eq!(right.may_start(BootNs(0)), None);
}

#[test]
fn active_without_a_token_gives_no_right() {
    let mut right = Right::none();
    let record = LeaseRecord { token: None, ..record(Told::Active, 1, 5) };
    assert_eq!(right.hear(&record, until(100)), Heard::Refused(Refusal::NoToken));
}
