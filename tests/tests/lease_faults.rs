//! Services and agents that hang, are stopped, or leave processes behind: who works then, and after how long.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use handover_tests::billing::activity::{Event, Line};
use handover_tests::clock::BootNs;
use handover_tests::fleet::{Fleet, Options, processes_of};
use handover_tests::receipt::rows;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

mod support;
use support::serving;

/// `stall` of the default preset.
const STALL: Duration = Duration::from_secs(10);
/// For the kill, the proof, T4, T1 and the install: `SAFETY.md` §1.9 allows one second. These are debug builds on a busy
/// machine.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// The holder, as the coordinator shows it.
struct Holder {
    host: usize,
    token: String,
    pid: Pid,
}

fn two_hosts() -> Fleet {
    serving(Options { hosts: 2, ..Options::default() })
}

fn holder(fleet: &Fleet) -> Holder {
    let lease = fleet.cli().status().expect("status")["lease"].clone();
    let agent = lease["agent"].as_str().expect("a holder");
    let host = fleet.hosts.iter().position(|host| host.name == agent).expect("the holder's host");
    let state = std::fs::read_to_string(fleet.hosts[host].state_dir.join("agent.json")).expect("the state file");
    let pid = state.split("\"pid\":").nth(1).expect("a pid").trim_start();
    let pid: String = pid.chars().take_while(char::is_ascii_digit).collect();
    let pid = Pid::from_raw(pid.parse().expect("a number"));
    Holder { host, token: lease["token"].as_str().expect("a token").to_owned(), pid }
}

fn activity(fleet: &Fleet) -> Vec<Line> {
    rows::activity(&[&fleet.activity()]).expect("activity")
}

/// From the last unit under `token` to the first one under another; none: there is none yet.
fn dark(lines: &[Line], token: &str) -> Option<Duration> {
    let unit = |line: &&Line| matches!(line.event, Event::UnitStart { .. } | Event::UnitEnd { .. });
    let last: BootNs = lines.iter().filter(unit).rfind(|line| line.token.to_string() == token)?.at_boot_ns;
    let next = lines.iter().filter(unit).find(|line| line.token.to_string() != token && line.at_boot_ns > last)?;
    Some(next.at_boot_ns.since(last))
}

fn until_others_work(fleet: &Fleet, token: &str) -> Duration {
    let limit = STALL + AFTERWARDS + Duration::from_secs(20);
    fleet
        .wait_within(limit, "units under another token", |fleet| Ok(dark(&activity(fleet), token).is_some()))
        .expect("another holder");
    dark(&activity(fleet), token).expect("just seen")
}

fn works(fleet: &Fleet, token: &str) -> bool {
    let begun = activity(fleet).len();
    let unit = |line: &Line| line.token.to_string() == token && matches!(line.event, Event::UnitEnd { .. });
    fleet.wait_for("a unit", |fleet| Ok(activity(fleet)[begun..].iter().any(unit))).is_ok()
}

fn log(fleet: &Fleet, host: usize) -> String {
    fleet.hosts[host].agent.as_ref().expect("an agent").output()
}

/// Processes of the holder's instance, its main one included.
fn left_of(fleet: &Fleet, holder: &Holder) -> Vec<i32> {
    let lines = activity(fleet);
    let instance = lines.iter().find(|line| line.token.to_string() == holder.token).map(|line| line.instance.clone());
    let mark = format!("HANDOVER_INSTANCE={}", instance.expect("it worked"));
    let environ = |pid: &i32| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let marked = |pid: &i32| environ(pid).split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
    processes_of(fleet.dir()).into_iter().filter(marked).collect()
}

fn is_there(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

#[test]
fn a_holder_whose_service_is_stopped_is_killed_and_another_works_within_the_stall_and_little_more() {
    let fleet = two_hosts();
    let before = holder(&fleet);
    assert!(works(&fleet, &before.token));
    kill(before.pid, Signal::SIGSTOP).expect("stopped");
    let dark = until_others_work(&fleet, &before.token);
    println!("dark after SIGSTOP of the service: {dark:?}");
    assert!(dark > STALL - Duration::from_secs(2) && dark < STALL + AFTERWARDS, "{dark:?}");
    let log = log(&fleet, before.host);
    assert!(log.contains("its service has not answered for") && log.contains("Release(Dead)"), "{log}");
    assert!(!is_there(before.pid), "SIGKILL works on stopped processes");
}

#[test]
fn a_holder_whose_service_hangs_in_a_unit_is_killed_and_another_works() {
    let fleet = two_hosts();
    let before = holder(&fleet);
    assert!(works(&fleet, &before.token));
    fleet.install("1.0.0", "hang-in-unit = true").expect("a fault");
    let limit = STALL + AFTERWARDS;
    fleet.wait_within(limit, "the kill", |_| Ok(!is_there(before.pid))).expect("killed");
    // The fault is every instance's: only the one that had it first was to hang.
    fleet.install("1.0.0", "").expect("no fault");
    let dark = until_others_work(&fleet, &before.token);
    println!("dark after a hang in a unit: {dark:?}");
    assert!(dark > STALL - Duration::from_secs(2) && dark < STALL + AFTERWARDS, "{dark:?}");
    let log = log(&fleet, before.host);
    assert!(log.contains("has made no progress for") && log.contains("Release(Dead)"), "{log}");
}

#[test]
fn an_agent_that_was_stopped_for_a_moment_has_its_service_stop_until_the_lease_is_confirmed() {
    let fleet = two_hosts();
    let before = holder(&fleet);
    assert!(works(&fleet, &before.token));
    let agent = fleet.hosts[before.host].agent.as_ref().expect("an agent");
    agent.signal(Signal::SIGSTOP).expect("stopped");
    // The fault itself lasts so long.
    std::thread::sleep(Duration::from_secs(2));
    agent.signal(Signal::SIGCONT).expect("continued");
    let said = |fleet: &Fleet| log(fleet, before.host).contains("the agent stood still for");
    fleet.wait_for("the agent to notice", |fleet| Ok(said(fleet))).expect("a suspicion");
    fleet
        .wait_for("the service to be stopped softly", |fleet| {
            let quiesced =
                |line: &Line| matches!(line.event, Event::Inactive { .. }) && line.token.to_string() == before.token;
            Ok(activity(fleet).iter().any(quiesced))
        })
        .expect("quiesced");
    assert!(works(&fleet, &before.token), "the same turn goes on");
    assert_eq!(holder(&fleet).token, before.token);
}

#[test]
fn a_crash_that_leaves_processes_behind_is_a_stop_only_once_they_are_gone() {
    for leak in ["child", "daemon"] {
        let fleet = two_hosts();
        let before = holder(&fleet);
        assert!(works(&fleet, &before.token));
        fleet.install("1.0.0", &format!("leak = \"{leak}\"")).expect("a fault");
        let two = |fleet: &Fleet| Ok(left_of(fleet, &before).len() >= 2);
        fleet.wait_for("a process beside the main one", two).expect("a leak");
        fleet.install("1.0.0", "crash-in-unit = true").expect("a fault");
        fleet.wait_for("the crash", |_| Ok(!is_there(before.pid))).expect("crashed");
        fleet.install("1.0.0", "").expect("no fault");
        let dark = until_others_work(&fleet, &before.token);
        println!("dark after a crash with a {leak} left behind: {dark:?}");
        let left = left_of(&fleet, &before);
        assert!(left.is_empty(), "{left:?} are left of an instance whose turn was given on");
        let log = log(&fleet, before.host);
        assert!(
            log.contains("instance ended") && log.contains("proven=true") && log.contains("Release(Dead)"),
            "{log}"
        );
    }
}

#[test]
fn a_service_that_ignores_quiesce_is_killed_at_the_hard_deadline() {
    let fleet = two_hosts();
    let before = holder(&fleet);
    assert!(works(&fleet, &before.token));
    fleet.install("1.0.0", "ignore-quiesce = true").expect("a fault");
    let store = store(&fleet);
    kill(store, Signal::SIGSTOP).expect("stopped");
    let stopped = BootNs::now();
    fleet.wait_within(Duration::from_secs(12), "the kill", |_| Ok(!is_there(before.pid))).expect("killed");
    let after = BootNs::now().since(stopped);
    kill(store, Signal::SIGCONT).expect("continued");
    // The last renewal is at most one interval and one attempt old, D_hard is 7.15 s after it.
    assert!(after > Duration::from_secs(5) && after < Duration::from_millis(9_500), "{after:?}");
    assert!(log(&fleet, before.host).contains("had not stopped by the hard deadline"));
    until_others_work(&fleet, &before.token);
}

/// The embedded store's process.
fn store(fleet: &Fleet) -> Pid {
    let is_store = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"store")
    };
    Pid::from_raw(processes_of(fleet.dir()).into_iter().find(is_store).expect("the embedded store"))
}
