//! The `exec` driver with real commands: a script that starts, stops and tells of a process.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "tests may; clippy.toml's exception does not reach what #[test] functions call"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use handover_agent::driver::{
    Adopted, CommandEnd, Driver, DriverError, DriverSettings, Exit, ExitStatus, Opening, Owner, Place, ProcessRecord,
    Told,
};
use handover_proto::ids::{InstanceId, SlotId, Version};
use tokio::sync::{Notify, mpsc};

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// Keeps one process for each slot, as a container engine would: out of the agent's sight. Files in its directory make it
/// fail: `mute` (status cannot tell), `stuck` (status hangs), `deaf` (stop does nothing), `broken` (start fails half-way), `slow`
/// (start hangs), `idle` (start starts nothing). With `chatty` what runs writes to where its start command wrote.
const ENGINE: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
pidfile="pid-$2"
runs() { [ -e "$pidfile" ] && grep -q '^State:.[^Z]' "/proc/$(cat "$pidfile")/status" 2>/dev/null; }
case $1 in
start)
    [ -e slow ] && exec sleep 300
    [ -e idle ] && exit 0
    if [ -e chatty ]; then setsid sh -c 'while echo still here; do sleep 0.02; done' &
    else setsid sleep 300 >/dev/null 2>&1 </dev/null & fi
    echo $! > "$pidfile"
    [ -e broken ] && { echo "no such image"; exit 125; }
    echo "started $HANDOVER_VERSION as $HANDOVER_INSTANCE, PORT=$PORT" >> log ;;
stop) [ -e deaf ] || { runs && kill "$(cat "$pidfile")"; rm -f "$pidfile"; } ;;
kill) runs && kill -9 "$(cat "$pidfile")"; rm -f "$pidfile" ;;
status)
    [ -e stuck ] && exec sleep 300
    [ -e mute ] && { echo "the engine does not answer"; exit 1; }
    runs || exit 3
    cat "$pidfile" ;;
esac
"#;

struct Site {
    dir: tempfile::TempDir,
    extra: &'static str,
}

struct Agent {
    driver: Driver,
    told: mpsc::Receiver<Told>,
}

impl Site {
    fn new(extra: &'static str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["builds/1.5.0", "state", "run"] {
            fs::create_dir_all(dir.path().join(name)).expect("made");
        }
        let engine = dir.path().join("engine");
        fs::write(&engine, ENGINE).expect("written");
        fs::set_permissions(&engine, Permissions::from_mode(0o755)).expect("executable");
        Self { dir, extra }
    }

    fn set(&self, name: &str) {
        fs::write(self.dir.path().join(name), "").expect("written");
    }

    fn unset(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).expect("removed");
    }

    /// Does with slot `a` what an operator might.
    fn by_hand(&self, verb: &str) {
        std::process::Command::new(self.dir.path().join("engine")).args([verb, "a"]).status().expect("by hand");
    }

    /// The process in slot `a`; none: there is none.
    fn pid(&self) -> Option<i32> {
        let pid = fs::read_to_string(self.dir.path().join("pid-a")).ok()?.trim().parse().ok()?;
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        (!state.contains(") Z ")).then_some(pid)
    }

    async fn agent(&self) -> Agent {
        let engine = self.dir.path().join("engine").display().to_string();
        let command = |verb: &str| format!("{verb} = [\"{engine}\", \"{verb}\", \"{{slot}}\"]\n");
        let commands: String = ["start", "stop", "kill", "status"].map(command).concat();
        let builds = self.dir.path().join("builds").display().to_string();
        let text = format!(
            "kind = \"exec\"\nbuilds = \"{builds}\"\n{commands}every = \"20ms\"\ngrace = \"200ms\"\n{}\nenv = {{ PORT = \"{{port}}\" }}\n",
            self.extra
        );
        let settings: DriverSettings = toml::from_str(&text).expect("settings");
        let owner = Owner {
            env: "test".parse().expect("env"),
            service: "billing".parse().expect("service"),
            agent: "app-01".parse().expect("agent"),
            state_dir: self.dir.path().join("state"),
        };
        let opening = Opening {
            owner,
            slots: vec!["a".parse().expect("slot"), "b".parse().expect("slot")],
            runtime_dir: self.dir.path().join("run"),
            finish: ("driver.grace".into(), settings.grace()),
            wake: Arc::new(Notify::new()),
        };
        let (driver, told) = Driver::open(&settings, opening).await.expect("a driver");
        Agent { driver, told }
    }
}

/// A test that fails leaves no process behind either.
impl Drop for Site {
    fn drop(&mut self) {
        for slot in ["a", "b"] {
            std::process::Command::new(self.dir.path().join("engine")).args(["kill", slot]).status().ok();
        }
    }
}

impl Agent {
    async fn start(&self, site: &Site) -> Result<ProcessRecord, DriverError> {
        let (slot, version): (SlotId, Version) = ("a".parse().expect("slot"), "1.5.0".parse().expect("version"));
        let instance = InstanceId::random();
        let state_dir = site.dir.path().join("state");
        let place = Place { slot: &slot, port: 8081, version: &version, instance: &instance, state_dir: &state_dir };
        self.driver.start(&place, Vec::new()).await
    }

    async fn told(&mut self) -> Told {
        tokio::time::timeout(LONG, self.told.recv()).await.expect("told in time").expect("told")
    }

    /// Starts, and waits until it is up.
    async fn up(&mut self, site: &Site) -> ProcessRecord {
        let record = self.start(site).await.expect("started");
        let Told::Began(named) = self.told().await else { panic!("it ended") };
        assert_eq!(named.instance, record.instance);
        assert_eq!(named.command, site.pid().map(|pid| pid.to_string()), "known by what its status command calls it");
        eventually("it is up", || self.driver.awaits(&record.instance).is_none()).await;
        named
    }

    async fn exit(&mut self) -> Exit {
        match self.told().await {
            Told::Exit(exit) => exit,
            other => panic!("it has not ended: {other:?}"),
        }
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LONG, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_instance_is_started_watched_and_stopped_by_its_commands() {
    let site = Site::new("");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    let log = fs::read_to_string(site.dir.path().join("log")).expect("a log");
    assert_eq!(log, format!("started 1.5.0 as {}, PORT=8081\n", record.instance));
    agent.driver.signal_stop(&record.instance).await.expect("ordered");
    let exit = agent.exit().await;
    assert_eq!((exit.status, exit.left), (ExitStatus::Command(CommandEnd::Stopped), None));
    assert!(!exit.proven, "nobody vouched for the status command");
    assert_eq!(site.pid(), None);
}

#[tokio::test]
async fn a_stop_is_proven_only_on_the_operators_word() {
    let site = Site::new("stopped_is_proof = true");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    agent.driver.kill(&record.instance).await.expect("killed");
    assert!(agent.exit().await.proven);
}

#[tokio::test]
async fn an_instance_that_ends_by_itself_is_noticed() {
    let site = Site::new("");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    let pid = nix::unistd::Pid::from_raw(site.pid().expect("it runs"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("killed");
    let exit = agent.exit().await;
    assert_eq!((exit.instance, exit.status), (record.instance, ExitStatus::Command(CommandEnd::Stopped)));
}

#[tokio::test]
async fn while_the_status_command_cannot_tell_nothing_has_ended() {
    let site = Site::new("stopped_is_proof = true");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    site.set("mute");
    agent.driver.kill(&record.instance).await.expect("killed");
    eventually("it is gone", || site.pid().is_none()).await;
    let silence = tokio::time::timeout(Duration::from_millis(300), agent.told.recv()).await;
    assert!(silence.is_err(), "gone, but nobody could know: {silence:?}");
    site.unset("mute");
    assert!(agent.exit().await.proven);
}

#[tokio::test]
async fn a_start_that_fails_is_said_with_its_words_and_leaves_nothing() {
    let site = Site::new("");
    let mut agent = site.agent().await;
    site.set("broken");
    agent.start(&site).await.expect("ordered");
    let exit = agent.exit().await;
    assert_eq!(exit.status, ExitStatus::Command(CommandEnd::NotStarted));
    assert!(exit.tail.concat().contains("exit code 125: no such image"), "{:?}", exit.tail);
    assert_eq!(site.pid(), None, "half of it ran");
}

#[tokio::test]
async fn a_start_that_hangs_is_given_up() {
    let site = Site::new("limit = \"5s\"");
    let mut agent = site.agent().await;
    site.set("slow");
    agent.start(&site).await.expect("ordered");
    let exit = agent.exit().await;
    assert!(exit.tail.concat().contains("the start command did not end within 5s"), "{:?}", exit.tail);
}

#[tokio::test]
async fn nothing_is_started_over_what_runs_already_or_may_run() {
    let site = Site::new("");
    let mut agent = site.agent().await;
    site.by_hand("start");
    let pid = site.pid().expect("it runs");
    agent.start(&site).await.expect("ordered");
    let exit = agent.exit().await;
    assert!(exit.tail.concat().contains("something runs in slot a already"), "{:?}", exit.tail);
    assert_eq!(site.pid(), Some(pid), "what others run is not ours to stop");
    let error = site.agent().await.driver.find_running().await.expect_err("nor is it 1.5.0").to_string();
    assert!(error.contains("slot a"), "{error}");
    site.set("mute");
    agent.start(&site).await.expect("ordered");
    let exit = agent.exit().await;
    assert!(exit.tail.concat().contains("cannot be told"), "{:?}", exit.tail);
}

#[tokio::test]
async fn what_somebody_else_started_in_its_place_is_stopped() {
    let site = Site::new("");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    // Both at once, so that the gap between them is not seen.
    let old = site.pid().expect("it runs");
    site.set("mute");
    site.by_hand("start");
    site.unset("mute");
    let exit = agent.exit().await;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL).expect("killed");
    assert_eq!((exit.instance, exit.status), (record.instance, ExitStatus::Command(CommandEnd::Foreign)));
    assert_eq!(site.pid(), None);
}

#[tokio::test]
async fn what_a_start_command_leaves_may_write_to_where_that_wrote() {
    let site = Site::new("");
    site.set("chatty");
    let mut agent = site.agent().await;
    agent.up(&site).await;
    let pid = site.pid();
    let output = site.dir.path().join("state/output/a.log");
    let lines = || fs::read_to_string(&output).unwrap_or_default().lines().count();
    let before = lines();
    eventually("it writes on", || lines() > before + 5).await;
    assert_eq!(site.pid(), pid, "and lives on");
}

#[tokio::test]
async fn a_start_of_which_nothing_comes_has_ended() {
    let site = Site::new("seen_within = \"100ms\"");
    let mut agent = site.agent().await;
    site.set("idle");
    agent.start(&site).await.expect("ordered");
    assert_eq!(agent.exit().await.status, ExitStatus::Command(CommandEnd::Stopped));
}

#[tokio::test]
async fn an_agent_that_starts_does_not_wait_for_a_status_that_hangs() {
    let site = Site::new("status_limit = \"200ms\"\nlimit = \"1h\"");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    drop(agent);
    site.set("stuck");
    let agent = site.agent().await;
    let looked = tokio::time::timeout(LONG, agent.driver.find_running()).await.expect("in time");
    assert!(looked.expect("looked").is_empty(), "nobody knows");
    let adopted = tokio::time::timeout(LONG, agent.driver.adopt(&record)).await.expect("in time");
    assert_eq!(adopted.expect("asked"), Adopted::Running(record), "taken for running");
}

#[tokio::test]
async fn what_runs_in_its_place_counts_for_nothing_while_it_is_put_away() {
    let site = Site::new("");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    let old = site.pid().expect("it runs");
    site.set("deaf");
    site.set("mute");
    site.by_hand("start");
    site.unset("mute");
    eventually("it is not up any more", || agent.driver.awaits(&record.instance).is_some()).await;
    assert!(site.pid().is_some(), "what runs now was not stopped yet");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(old), nix::sys::signal::Signal::SIGKILL).expect("killed");
    agent.told().await;
}

#[tokio::test]
async fn what_is_started_by_hand_after_an_end_is_not_taken_for_the_instance() {
    let site = Site::new("");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    agent.driver.signal_stop(&record.instance).await.expect("ordered");
    agent.exit().await;
    drop(agent);
    site.by_hand("start");
    let error = site.agent().await.driver.find_running().await.expect_err("unknown").to_string();
    assert!(error.contains("slot a"), "{error}");
}

#[tokio::test]
async fn what_was_started_in_its_place_while_no_agent_watched_is_put_away() {
    let site = Site::new("");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    drop(agent);
    site.by_hand("kill");
    site.by_hand("start");
    let mut agent = site.agent().await;
    let found = agent.driver.find_running().await.expect("looked");
    let main = found[0].main.clone().expect("something runs");
    assert_eq!((&main.instance, &main.command), (&record.instance, &record.command), "by its own name");
    assert!(matches!(agent.driver.adopt(&main).await.expect("asked"), Adopted::Running(_)));
    let exit = agent.exit().await;
    assert_eq!((exit.status, site.pid()), (ExitStatus::Command(CommandEnd::Foreign), None));
}

#[tokio::test]
async fn the_next_agent_adopts_what_runs_and_learns_of_an_end() {
    let site = Site::new("");
    let mut agent = site.agent().await;
    let record = agent.up(&site).await;
    drop(agent);
    let mut agent = site.agent().await;
    let found = agent.driver.find_running().await.expect("looked");
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].instance, found[0].version.as_str()), (&record.instance, "1.5.0"));
    assert!(matches!(agent.driver.adopt(&record).await.expect("asked"), Adopted::Running(_)));
    agent.driver.signal_stop(&record.instance).await.expect("ordered");
    assert_eq!(agent.exit().await.instance, record.instance);
    drop(agent);
    let agent = site.agent().await;
    let adopted = agent.driver.adopt(&record).await.expect("asked");
    assert!(matches!(adopted, Adopted::Gone { proven: false, .. }), "{adopted:?}");
}

#[tokio::test]
async fn what_runs_without_a_record_stops_the_agent_before_it_does_harm() {
    let site = Site::new("");
    site.by_hand("start");
    let error = site.agent().await.driver.find_running().await.expect_err("unknown").to_string();
    assert!(error.contains("slot a") && error.contains("stop it by hand"), "{error}");
}

#[tokio::test]
async fn a_version_that_is_not_here_is_not_started() {
    let site = Site::new("");
    fs::remove_dir(site.dir.path().join("builds/1.5.0")).expect("removed");
    let error = site.agent().await.start(&site).await.expect_err("not here");
    assert!(matches!(error, DriverError::NoDirectory { .. }), "{error}");
}
