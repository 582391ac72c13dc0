//! The agent is killed and comes back: instances go on, and the next agent takes them up.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use handover_agent::driver::{Adopted, Exit, ExitStatus, ProcessDriver, ProcessRecord};
use handover_agent::durable;
use nix::sys::signal::Signal;

use crate::stage::{Stage, eventually, kill, me, number_in, owner, runs, spec, stat};

const PLAY: &str = "DRIVER_TEST_DIRECTORY";

/// Not a test: what [`EarlierAgent`] runs in a process of its own.
#[tokio::test]
#[ignore = "the part of an agent, run by other tests as a process"]
async fn plays_an_agent() {
    let Some(dir) = std::env::var_os(PLAY).map(PathBuf::from) else { return };
    let (driver, _exits) = ProcessDriver::open(owner(&dir)).expect("a driver");
    let script = std::fs::read_to_string(dir.join("script")).expect("a script");
    let record = driver.start(&spec(&dir, &script)).expect("started");
    durable::save(&dir.join("record"), &record).expect("recorded");
    std::future::pending::<()>().await;
}

/// An agent that started one instance and was then killed.
async fn killed_agent(dir: &Path, script: &str) -> ProcessRecord {
    std::fs::write(dir.join("script"), script).expect("a script");
    let mut agent = start_agent(dir);
    let record = || durable::load::<ProcessRecord>(&dir.join("record")).expect("readable");
    eventually("the instance is recorded", || record().is_some()).await;
    agent.kill().expect("killed");
    agent.wait().expect("reaped");
    record().expect("a record")
}

fn start_agent(dir: &Path) -> Child {
    let program = std::env::current_exe().expect("this binary");
    let mut command = Command::new(program);
    // `D` puts it into the stage's care should a test fail.
    command.env("D", dir);
    command.args(["--ignored", "--exact", "restart::plays_an_agent"]);
    command.env(PLAY, dir).env("HANDOVER_CONFIG", "secret").env("NOTIFY_SOCKET", "/run/n").env("KEPT", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("an agent")
}

const SLEEPER: &str = "sleep 1000 & echo $! > $D/child; env > $D/env; echo $$ > $D/pid; wait";

async fn after_restart(script: &str) -> (Stage, ProcessRecord) {
    Stage::after(async |dir| killed_agent(dir, script).await).await
}

async fn adopt(stage: &Stage, record: &ProcessRecord) -> ProcessRecord {
    match stage.driver.adopt(record).await.expect("an answer") {
        Adopted::Running(record) => record,
        gone @ Adopted::Gone { .. } => panic!("it should run, but is {gone:?}"),
    }
}

#[tokio::test]
async fn an_instance_outlives_its_agent_and_the_next_one_sees_its_exit() {
    let (mut stage, record) = after_restart("UNTIL_GO").await;
    assert!(record.unbroken && runs(record.pid));
    assert_ne!(stat(record.pid).expect("it runs")[1], me().to_string(), "it is not our child");
    let adopted = adopt(&stage, &record).await;
    assert_eq!(adopted, ProcessRecord { unbroken: false, ..record.clone() });
    assert!(stage.driver.resident_bytes(&record.instance).is_some());
    kill(record.pid, Signal::SIGKILL);
    let exit = stage.exit().await;
    assert_eq!(
        exit,
        Exit {
            instance: record.instance,
            status: ExitStatus::Unknown,
            left: None,
            proven: false,
            tail: exit.tail.clone()
        }
    );
}

#[tokio::test]
async fn an_instances_output_goes_on_without_its_agent() {
    let (mut stage, record) = after_restart("UNTIL_GO; echo late").await;
    let adopted = adopt(&stage, &record).await;
    std::fs::write(stage.path("go"), "").expect("a sign");
    let exit = stage.exit().await;
    assert_eq!((exit.instance, exit.tail), (adopted.instance, vec!["late".to_owned()]));
}

#[tokio::test]
async fn an_adopted_instance_is_stopped_with_its_group() {
    let (mut stage, record) = after_restart(SLEEPER).await;
    let child = stage.number("child").await;
    adopt(&stage, &record).await;
    stage.driver.signal_stop(&record.instance).await.expect("signalled");
    let exit = stage.exit().await;
    assert!(exit.left.is_none() && !exit.proven);
    eventually("its child has ended too", || !runs(child)).await;
}

#[tokio::test]
async fn a_stopped_adopted_instance_is_killed_with_its_daemon() {
    let script = "setsid -f sh -c 'echo $$ > $D/daemon; exec sleep 1000'; exec sleep 1000";
    let (mut stage, record) = after_restart(script).await;
    let daemon = stage.number("daemon").await;
    adopt(&stage, &record).await;
    for pid in [record.pid, daemon] {
        kill(pid, Signal::SIGSTOP);
        eventually("it is stopped", || stat(pid).is_some_and(|fields| fields[0] == "T")).await;
    }
    stage.driver.kill(&record.instance).await.expect("killed");
    let exit = stage.exit().await;
    assert!(exit.left.is_none() && !exit.proven && !runs(daemon) && !runs(record.pid));
}

#[tokio::test]
async fn what_is_left_of_an_instance_that_ended_meanwhile_is_cleared() {
    let script = "setsid -f sh -c 'echo $$ > $D/daemon; exec sleep 1000'; exec sleep 1000";
    let (stage, record) = after_restart(script).await;
    let daemon = stage.number("daemon").await;
    kill(record.pid, Signal::SIGKILL);
    eventually("the main process has ended", || stat(record.pid).is_none()).await;
    assert!(runs(daemon));
    assert_eq!(stage.driver.adopt(&record).await.expect("an answer"), Adopted::Gone { empty: true, proven: false });
    assert!(!runs(daemon));
}

#[tokio::test]
async fn an_agent_without_its_state_file_finds_its_instances_and_no_others() {
    let other = tempfile::tempdir().expect("another state directory");
    let both = async |dir: &Path| (killed_agent(dir, SLEEPER).await, killed_agent(other.path(), SLEEPER).await);
    let (mut stage, (record, foreign)) = Stage::after(both).await;
    number_in(&other.path().join("pid")).await;
    stage.number("pid").await;

    let found = stage.driver.find_running().await.expect("looked");
    let [only] = found.as_slice() else { panic!("exactly one: {found:?}") };
    assert_eq!((only.slot.as_str(), only.version.as_str()), ("a", "1.0.0"));
    let main = only.main.clone().expect("its main process");
    assert_eq!(main, ProcessRecord { unbroken: false, ..record.clone() });
    adopt(&stage, &main).await;
    assert_eq!(stage.driver.find_running().await.expect("looked"), [], "what is watched is not found again");
    stage.driver.kill(&record.instance).await.expect("killed");
    stage.exit().await;
    assert!(runs(foreign.pid));
    adopt(&stage, &foreign).await;
    stage.driver.kill(&foreign.instance).await.expect("killed");
    stage.exit().await;
}

#[tokio::test]
async fn leftovers_without_a_main_process_are_found_and_cleared() {
    let script = "setsid -f sh -c 'echo $$ > $D/daemon; exec sleep 1000'; exec sleep 1000";
    let (stage, record) = after_restart(script).await;
    let daemon = stage.number("daemon").await;
    kill(record.pid, Signal::SIGKILL);
    eventually("the main process has ended", || stat(record.pid).is_none()).await;
    let found = stage.driver.find_running().await.expect("looked");
    assert_eq!((found.len(), &found[0].main), (1, &None));
    assert!(stage.driver.clear_leftovers(&found[0].instance).await);
    assert!(!runs(daemon));
    assert_eq!(stage.driver.find_running().await.expect("looked"), []);
}

#[tokio::test]
async fn an_instance_gets_its_marks_and_nothing_that_was_meant_for_the_agent() {
    let (mut stage, record) = after_restart(SLEEPER).await;
    stage.number("pid").await;
    let env = std::fs::read_to_string(stage.path("env")).expect("its environment");
    for expected in ["HANDOVER_SLOT=a", "HANDOVER_VERSION=1.0.0", "HANDOVER_AGENT=test/billing/app-01", "KEPT=1"] {
        assert!(env.lines().any(|line| line == expected), "{expected} in {env}");
    }
    assert!(env.contains(&format!("HANDOVER_INSTANCE={}", record.instance)), "{env}");
    assert!(!env.contains("HANDOVER_CONFIG") && !env.contains("NOTIFY_SOCKET"), "{env}");
    adopt(&stage, &record).await;
    stage.driver.kill(&record.instance).await.expect("killed");
    stage.exit().await;
}
