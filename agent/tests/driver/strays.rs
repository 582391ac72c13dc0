//! Children that the agent inherits, and children of its own.

use std::process::{Command, Stdio};
use std::time::Duration;

use handover_agent::driver::{ExitStatus, child};
use nix::sys::signal::Signal;

use crate::stage::{Stage, eventually, kill, me, pids, runs, stat};

/// Hides where it comes from: no marks, a session of its own, and its parents end at once.
const HIDDEN: &str = "env -i D=$D setsid -f sh -c 'echo $$ > $D/hidden; exec sleep 1000'";

#[tokio::test]
async fn a_child_of_unknown_descent_denies_the_proof_and_is_not_killed() {
    let mut stage = Stage::new().await;
    stage.start(&format!("{HIDDEN}; until [ -s $D/hidden ]; do sleep 0.01; done"));
    let exit = stage.exit().await;
    let hidden = stage.number("hidden").await;
    assert!(runs(hidden), "it may be anybody's");
    assert!(exit.left.is_none() && !exit.proven);
    kill(hidden, Signal::SIGKILL);
    eventually("the sweep reaps it", || stat(hidden).is_none()).await;
}

#[tokio::test]
async fn a_descendant_that_was_seen_in_time_is_known_when_it_hides() {
    let mut stage = Stage::new().await;
    let instance = stage.start("env -i D=$D setsid sh -c 'echo $$ > $D/hidden; exec sleep 1000' & wait");
    let hidden = stage.number("hidden").await;
    assert_ne!(stat(hidden).expect("it runs")[1], me().to_string(), "its parent still runs");
    stage.driver.signal_stop(&instance).await.expect("signalled, and surveyed");
    let exit = stage.exit().await;
    assert!(exit.left.is_none() && exit.proven);
    assert!(stat(hidden).is_none());
}

#[tokio::test]
async fn zombies_that_a_running_instance_leaves_to_the_agent_are_reaped() {
    let mut stage = Stage::new().await;
    let instance = stage.start("for i in 1 2 3; do setsid -f true; done; echo 1 > $D/done; exec sleep 1000");
    stage.number("done").await;
    let zombies = || pids().filter_map(stat).filter(|fields| fields[0] == "Z" && fields[1] == me().to_string()).count();
    eventually("no zombie is left", || zombies() == 0).await;
    stage.driver.kill(&instance).await.expect("killed");
    assert!(stage.exit().await.proven);
}

#[tokio::test]
async fn the_exit_status_of_the_agents_own_child_is_left_to_who_started_it() {
    let mut stage = Stage::new().await;
    let own = child::spawn(Command::new("sh").args(["-c", "exit 3"]).stdin(Stdio::null())).expect("started");
    eventually("it has ended", || own.peek().expect("known").is_some()).await;
    stage.start("exit 0");
    assert!(stage.exit().await.proven, "our own child is no stray, running or ended");
    // Longer than a sweep and the grace of a stray.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(own.reap().expect("reaped"), Some(ExitStatus::Code(3)));
}
