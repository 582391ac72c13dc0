//! How long a kill takes, tried on real processes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::stage::{Stage, pids, stat};

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

fn running(mark: &str) -> usize {
    let named = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.windows(mark.len()).any(|w| w == mark.as_bytes()))
    };
    pids().filter(named).filter(|pid| stat(*pid).is_some_and(|fields| fields[0] != "Z")).count()
}

#[tokio::test]
async fn a_kill_is_tried_on_a_tree_that_has_left_its_group_and_nothing_is_left_of_it() {
    let stage = Stage::new().await;
    // Another run of this very test may be under way on this machine.
    let mark = format!("71307.{}", std::process::id());
    let tree = shell(&format!("setsid -f sleep {mark}; sleep {mark} & echo up; wait"));
    let took = stage.driver.kill_time(&tree).expect("a time");
    assert!(took > Duration::ZERO && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(running(&mark), 0);
}

#[tokio::test]
async fn a_trial_that_cannot_be_made_says_why() {
    let stage = Stage::new().await;
    let error = stage.driver.kill_time(&["/no/such/program".to_owned()]).expect_err("no program");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    let error = stage.driver.kill_time(&shell("exit 3")).expect_err("it never says that it is up");
    assert!(error.to_string().contains("did not come up"), "{error}");
}

#[test]
fn what_is_tried_ends_with_the_agent_that_tries_it() {
    let mut target = Command::new(env!("CARGO_BIN_EXE_handover-agent"));
    let mut target = target.arg("kill-target").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
    let mut up = String::new();
    BufReader::new(target.stdout.take().expect("piped")).read_line(&mut up).expect("a line");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", target.id())).expect("children");
    let leaf: i32 = children.trim().parse().expect("one child");
    assert!(up == "up\n" && stat(leaf).is_some(), "both run");
    // The agent's death closes its end.
    drop(target.stdin.take());
    assert!(target.wait().expect("its end").success());
    let ended = |pid| stat(pid).is_none_or(|fields| fields[0] == "Z");
    for _ in 0..200 {
        if ended(leaf) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("process {leaf} is left");
}
