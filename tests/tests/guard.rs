//! The guard with real processes: whoever of the three is killed, nothing is left.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sleepers last only so long that a test that fails leaves nothing for ever.
/// Leaves a plain child, one in a session of its own, an orphan, and one that ignores SIGTERM; then says so and waits.
const FAMILY: &str = "sleep 300 &
    setsid sleep 300 &
    (setsid sh -c 'sleep 300 & sleep 300' &)
    sh -c \"trap '' TERM INT HUP; sleep 300; sleep 300\" &
    touch \"$READY\"
    sleep 300";

fn processes() -> BTreeMap<i32, (i32, String)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.rsplit_once(')') else { continue };
        let mut fields = rest.split_ascii_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|parent| parent.parse().ok()));
        if let (true, Some(parent)) = (state != Some("Z"), parent) {
            found.insert(pid, (parent, name.split_once('(').map_or("", |(_, name)| name).to_owned()));
        }
    }
    found
}

fn below(root: i32) -> Vec<i32> {
    let all = processes();
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.iter().filter(|(_, (of, _))| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    family.split_off(1)
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn alive(pid: i32) -> bool {
    processes().contains_key(&pid)
}

struct Family {
    outer: Child,
    middle: i32,
    inside: i32,
    rest: Vec<i32>,
}

/// Starts the family under guard, and returns when every member is there.
fn family(dir: &Path) -> Family {
    let ready = dir.join("ready");
    let outer = Command::new(env!("CARGO_BIN_EXE_guard"))
        .args(["--", "sh", "-c", FAMILY])
        .env("READY", &ready)
        .stdin(Stdio::null())
        .spawn()
        .expect("guard");
    let root = i32::try_from(outer.id()).expect("pid");
    let sleeping = |pids: &[i32]| {
        let all = processes();
        pids.iter().filter(|pid| all.get(pid).is_some_and(|(_, name)| name == "sleep")).count()
    };
    until("six sleepers", || ready.exists() && sleeping(&below(root)) == 6);
    let child = |parent| processes().into_iter().find(|(_, (of, _))| *of == parent).map(|(pid, _)| pid).expect("child");
    let middle = child(root);
    let all = below(middle);
    let inside = child(middle);
    let rest: Vec<i32> = all.into_iter().filter(|pid| *pid != inside).collect();
    assert!(rest.len() >= 8, "sh, 6 sleeps and their shells: {rest:?}");
    Family { outer, middle, inside, rest }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Outer,
    Middle,
    Inside,
}

impl Family {
    /// Kills these with a pause between, and waits until nobody of the family is left.
    fn killed(mut self, victims: &[Who], pause: Duration) {
        let root = i32::try_from(self.outer.id()).expect("pid");
        for (n, who) in victims.iter().enumerate() {
            let pid = match who {
                Who::Outer => root,
                Who::Middle => self.middle,
                Who::Inside => self.inside,
            };
            // A later one may have ended by itself meanwhile.
            let killed = kill(Pid::from_raw(pid), Signal::SIGKILL);
            assert!(killed.is_ok() || n > 0, "{who:?}: {killed:?}");
            std::thread::sleep(pause);
        }
        let status = self.outer.wait().expect("outer ends");
        assert!(!status.success(), "{status}");
        let all = [&self.rest[..], &[self.middle, self.inside]].concat();
        if victims.contains(&Who::Outer) {
            // Nobody is left to wait for the others, so we look.
            until("all gone", || !all.iter().any(|pid| alive(*pid)));
        }
        let left: Vec<_> = all.into_iter().filter(|pid| alive(*pid)).collect();
        assert_eq!(left, Vec::<i32>::new(), "left behind when the outer process had ended");
    }
}

const ALL: [Who; 3] = [Who::Outer, Who::Middle, Who::Inside];

#[test]
fn nothing_is_left_whichever_one_is_killed() {
    for who in ALL {
        let dir = tempfile::tempdir().expect("dir");
        family(dir.path()).killed(&[who], Duration::ZERO);
    }
}

#[test]
fn nothing_is_left_whichever_two_are_killed_in_whichever_order() {
    for first in ALL {
        for second in ALL.into_iter().filter(|who| *who != first) {
            for pause_us in [0, 300, 1000, 3000] {
                let dir = tempfile::tempdir().expect("dir");
                family(dir.path()).killed(&[first, second], Duration::from_micros(pause_us));
            }
        }
    }
}

#[test]
fn a_stop_signal_reaches_the_command_and_its_exit_code_comes_back() {
    let dir = tempfile::tempdir().expect("dir");
    let ready = dir.path().join("ready");
    let script = "trap 'exit 7' TERM; sleep 300 & touch \"$READY\"; wait";
    let mut outer = Command::new(env!("CARGO_BIN_EXE_guard"))
        .args(["--", "sh", "-c", script])
        .env("READY", &ready)
        .spawn()
        .expect("guard");
    until("started", || ready.exists());
    let root = i32::try_from(outer.id()).expect("pid");
    let all = below(root);
    kill(Pid::from_raw(root), Signal::SIGTERM).expect("SIGTERM");
    assert_eq!(outer.wait().expect("end").code(), Some(7));
    assert!(!all.iter().any(|pid| alive(*pid)), "the sleeper that the command left is gone too");
}

#[test]
fn what_a_command_leaves_behind_is_ended_when_it_is_done() {
    let dir = tempfile::tempdir().expect("dir");
    let pid_file = dir.path().join("pid");
    let script = "setsid sleep 300 & echo $! > \"$PID\"; exit 0";
    let status = Command::new(env!("CARGO_BIN_EXE_guard"))
        .args(["--", "sh", "-c", script])
        .env("PID", &pid_file)
        .status()
        .expect("guard");
    assert_eq!(status.code(), Some(0));
    let left: i32 = std::fs::read_to_string(&pid_file).expect("pid file").trim().parse().expect("a pid");
    assert!(!alive(left));
}

#[test]
fn a_command_that_cannot_be_started_is_an_error() {
    let status = Command::new(env!("CARGO_BIN_EXE_guard")).args(["--", "/no/such/command"]).status().expect("guard");
    assert_eq!(status.code(), Some(1));
}
