//! What is not to be adopted.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use handover_agent::driver::{Adopted, ProcessRecord, child};
use handover_proto::ids::InstanceId;

use crate::stage::{Stage, runs, stat};

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a boot id").trim().to_owned()
}

fn record(pid: i32, start_time_ticks: u64) -> ProcessRecord {
    ProcessRecord {
        instance: InstanceId::random(),
        pid,
        start_time_ticks,
        boot_id: boot_id(),
        unbroken: true,
        output: "/dev/null".into(),
        output_from_bytes: 0,
        unit: None,
        command: None,
    }
}

#[tokio::test]
async fn a_recycled_pid_is_gone_and_the_stranger_is_never_signalled() {
    let stage = Stage::new().await;
    let mut command = Command::new("sleep");
    // In the stage's care should this test fail.
    command.arg("1000").env("D", stage.dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0);
    let stranger = child::spawn(&mut command).expect("a stranger");
    let started: u64 = stat(stranger.pid()).expect("it runs")[19].parse().expect("a number");
    for other in [record(stranger.pid(), started - 1), record(stranger.pid(), started + 1)] {
        let adopted = stage.driver.adopt(&other).await.expect("an answer");
        assert_eq!(adopted, Adopted::Gone { empty: true, proven: false });
        stage.driver.kill(&other.instance).await.expect_err("nothing is watched under that id");
    }
    let earlier_boot = ProcessRecord { boot_id: "another".to_owned(), ..record(stranger.pid(), started) };
    assert_eq!(
        stage.driver.adopt(&earlier_boot).await.expect("an answer"),
        Adopted::Gone { empty: true, proven: false }
    );
    assert!(runs(stranger.pid()));
    stranger.kill_group().expect("killed");
    crate::stage::eventually("it has ended", || stranger.reap().expect("known").is_some()).await;
}

#[tokio::test]
async fn a_pid_that_nobody_has_is_gone() {
    let stage = Stage::new().await;
    for pid in [0, -1, i32::MAX] {
        let adopted = stage.driver.adopt(&record(pid, 1)).await.expect("an answer");
        assert_eq!(adopted, Adopted::Gone { empty: true, proven: false });
    }
}

#[tokio::test]
async fn what_is_watched_already_is_neither_adopted_twice_nor_cleared_away() {
    let mut stage = Stage::new().await;
    let instance = stage.start("echo $$ > $D/pid; exec sleep 1000");
    let pid = stage.number("pid").await;
    let started: u64 = stat(pid).expect("it runs")[19].parse().expect("a number");
    let again = ProcessRecord { instance: instance.clone(), ..record(pid, started) };
    let Adopted::Running(kept) = stage.driver.adopt(&again).await.expect("an answer") else { panic!("it runs") };
    assert!(kept.unbroken, "it is still the one that this agent started");
    assert!(!stage.driver.clear_leftovers(&instance).await);
    assert!(runs(pid));
    stage.driver.kill(&instance).await.expect("killed");
    assert!(stage.exit().await.proven);
    assert!(stage.exits.try_recv().is_err(), "one exit");
}
