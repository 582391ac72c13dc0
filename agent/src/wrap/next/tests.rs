use super::*;
use crate::lease::record::RECORD_VERSION;

fn at(ms: u64) -> Boot {
    Boot::from_ns(ms * 1_000_000)
}

fn record(state: Told, seq: u64, token: &str) -> LeaseRecord {
    LeaseRecord {
        v: RECORD_VERSION,
        instance: "00000000000000aa".parse().expect("an id"),
        state,
        token: (!token.is_empty()).then(|| token.to_owned()),
        seq,
        op: None,
        boot_id: "boot".to_owned(),
        time_ns: "time:[1]".to_owned(),
        soft_deadline_boot_ns: 0,
        hard_deadline_boot_ns: 0,
        remaining_soft_ms: 0,
        remaining_hard_ms: 0,
        reason: String::new(),
    }
}

fn active(seq: u64, token: &str, soft: u64, hard: u64) -> Event {
    Event::Heard(record(Told::Active, seq, token), Some(Deadlines { soft: at(soft), hard: at(hard) }))
}

fn told(state: Told, seq: u64, token: &str) -> Event {
    Event::Heard(record(state, seq, token), None)
}

/// A command that runs under token 7 until 5000 and 8000 ms, with its STARTED acknowledged.
fn running(restart: bool) -> Core {
    let mut core = Core::new(restart);
    core.apply(active(10, "7", 5000, 8000), at(0));
    assert_eq!(core.next(at(0)), Step::Start("7".to_owned()));
    core.apply(Event::Started, at(0));
    assert_eq!(acked(&mut core, 0), Some(AckState::Started));
    core
}

/// The next step, which is an acknowledgement that the agent takes; none: it is another step.
fn acked(core: &mut Core, now: u64) -> Option<AckState> {
    let Step::Ack { seq, state, .. } = core.next(at(now)) else { return None };
    core.apply(Event::Acked { seq, taken: true }, at(now));
    Some(state)
}

#[test]
fn nothing_is_started_before_active_and_nothing_after_its_soft_deadline() {
    let mut core = Core::new(false);
    assert_eq!(core.next(at(0)), Step::Wait(None));
    core.apply(told(Told::Stopped, 1, ""), at(0));
    assert_eq!(acked(&mut core, 0), Some(AckState::Quiesced), "stopped it is: A5");
    core.apply(active(2, "7", 5000, 8000), at(5000));
    assert!(matches!(core.next(at(5000)), Step::Wait(_)), "ACTIVE that comes too late");
}

#[test]
fn quiesced_is_said_only_when_no_descendant_is_left() {
    let mut core = running(true);
    core.apply(told(Told::Quiesce, 11, "7"), at(1000));
    assert_eq!(core.next(at(1000)), Step::Term);
    assert_eq!(core.next(at(1000)), Step::Wait(Some(at(8000))), "nothing is acknowledged yet");
    core.apply(Event::LeaderEnded(0), at(1500));
    assert_eq!(core.next(at(1500)), Step::Wait(Some(at(2500))), "a descendant is left");
    core.apply(Event::Empty, at(1600));
    assert_eq!(acked(&mut core, 1600), Some(AckState::Quiesced));
    assert!(matches!(core.next(at(1600)), Step::Wait(_)), "with --restart it waits for another turn");
}

#[test]
fn silence_ends_the_command_at_the_soft_deadline_and_every_descendant_at_the_hard_one() {
    let mut core = running(false);
    assert_eq!(core.next(at(4999)), Step::Wait(Some(at(5000))));
    assert_eq!(core.next(at(5000)), Step::Term);
    assert_eq!(core.next(at(7999)), Step::Wait(Some(at(8000))));
    assert_eq!(core.next(at(8000)), Step::Kill);
    assert_eq!(core.next(at(8000)), Step::Wait(Some(at(8010))));
    assert_eq!(core.next(at(8010)), Step::Kill, "again and again until nothing is left");
}

#[test]
fn one_that_wakes_up_after_the_hard_deadline_kills_at_once() {
    let mut core = running(false);
    assert_eq!(core.next(at(60_000)), Step::Term);
    assert_eq!(core.next(at(60_000)), Step::Kill);
}

#[test]
fn renewals_extend_a_running_command_and_never_one_that_is_stopping() {
    let mut core = running(false);
    core.apply(active(11, "7", 6000, 9000), at(1000));
    core.apply(active(10, "7", 4000, 7000), at(1000));
    assert_eq!(acked(&mut core, 1000), Some(AckState::Started));
    assert_eq!(core.next(at(5999)), Step::Wait(Some(at(6000))), "an older record takes nothing back");
    assert_eq!(core.next(at(6000)), Step::Term);
    core.apply(active(12, "7", 20_000, 30_000), at(6100));
    assert_eq!(core.next(at(9000)), Step::Kill);
}

#[test]
fn fenced_kills_at_once() {
    for event in [told(Told::Fenced, 11, "7"), active(11, "8", 5000, 8000)] {
        let mut core = running(true);
        core.apply(event, at(1000));
        assert_eq!(core.next(at(1000)), Step::Term);
        assert_eq!(core.next(at(1000)), Step::Kill);
    }
}

#[test]
fn a_token_stands_for_one_life_of_the_command() {
    let mut core = running(true);
    core.apply(told(Told::Quiesce, 11, "7"), at(1000));
    assert_eq!(core.next(at(1000)), Step::Term);
    core.apply(Event::LeaderEnded(3), at(1001));
    core.apply(Event::Empty, at(1001));
    assert_eq!(acked(&mut core, 1001), Some(AckState::Quiesced));
    let mut same = core.clone();
    core.apply(active(12, "9", 6000, 9000), at(2000));
    assert_eq!(core.next(at(2000)), Step::Start("9".to_owned()), "the next turn");
    same.apply(active(12, "7", 6000, 9000), at(2000));
    assert_eq!(acked(&mut same, 2000), Some(AckState::Failed), "the hand-over was called off");
    assert_eq!(same.next(at(2000)), Step::Exit(3), "only a new process brings a new token");
}

#[test]
fn without_restart_it_ends_with_the_commands_code_once_quiesced_is_said() {
    let mut core = running(false);
    core.apply(told(Told::Quiesce, 11, "7"), at(1000));
    assert_eq!(core.next(at(1000)), Step::Term);
    core.apply(Event::LeaderEnded(143), at(1001));
    core.apply(Event::Empty, at(1001));
    let Step::Ack { seq: 11, state: AckState::Quiesced, .. } = core.next(at(1001)) else { panic!("no QUIESCED") };
    assert!(matches!(core.next(at(1001)), Step::Wait(_)), "the agent has not taken it yet");
    core.apply(Event::Acked { seq: 11, taken: false }, at(1002));
    assert_eq!(core.next(at(1002)), Step::Exit(143), "an agent that is away sees the process end");
}

#[test]
fn a_command_that_ends_by_itself_passes_its_code_on_whether_restart_or_not() {
    for restart in [true, false] {
        let mut core = running(restart);
        core.apply(Event::LeaderEnded(3), at(100));
        assert_eq!(core.next(at(100)), Step::Term, "what it left behind is told to end");
        assert_eq!(core.next(at(1099)), Step::Wait(Some(at(1100))));
        assert_eq!(core.next(at(1100)), Step::Kill, "and killed after a second, well before the hard deadline");
        core.apply(Event::Empty, at(1101));
        assert_eq!(core.next(at(1101)), Step::Exit(3));
    }
}

#[test]
fn an_agent_that_is_gone_changes_nothing() {
    let mut core = running(false);
    core.apply(active(11, "7", 5500, 8500), at(500));
    let Step::Ack { .. } = core.next(at(500)) else { panic!("no STARTED") };
    core.apply(Event::Acked { seq: 11, taken: false }, at(500));
    assert_eq!(core.next(at(500)), Step::Wait(Some(at(700))), "it tries again later");
    assert!(matches!(core.next(at(5499)), Step::Ack { .. } | Step::Wait(_)));
    assert_eq!(core.next(at(5500)), Step::Term);
}

#[test]
fn sigterm_stops_the_command_and_then_the_wrapper() {
    let mut core = running(true);
    core.apply(Event::Terminated, at(100));
    assert_eq!(core.next(at(100)), Step::Term);
    core.apply(Event::LeaderEnded(0), at(200));
    core.apply(Event::Empty, at(200));
    assert_eq!(core.next(at(200)), Step::Exit(0));
    let mut idle = Core::new(true);
    idle.apply(Event::Terminated, at(0));
    assert_eq!(idle.next(at(0)), Step::Exit(0));
}

#[test]
fn a_command_that_cannot_be_started_is_reported_and_ends_the_wrapper() {
    let mut core = Core::new(true);
    core.apply(active(10, "7", 5000, 8000), at(0));
    assert_eq!(core.next(at(0)), Step::Start("7".to_owned()));
    core.apply(Event::NotStarted(127, "no such program".to_owned()), at(0));
    let Step::Ack { seq, state: AckState::Failed, detail, .. } = core.next(at(0)) else { panic!("no FAILED") };
    assert_eq!(detail, "no such program");
    core.apply(Event::Acked { seq, taken: true }, at(0));
    assert_eq!(core.next(at(0)), Step::Exit(127));
}
