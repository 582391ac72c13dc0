//! How long a kill takes, tried on real processes.

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
    let took = stage.driver.kill_time(&shell("setsid -f sleep 71307; sleep 71307 & echo up; wait")).expect("a time");
    assert!(took > Duration::ZERO && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(running("71307"), 0);
}

#[tokio::test]
async fn a_trial_that_cannot_be_made_says_why() {
    let stage = Stage::new().await;
    let error = stage.driver.kill_time(&["/no/such/program".to_owned()]).expect_err("no program");
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    let error = stage.driver.kill_time(&shell("exit 3")).expect_err("it never says that it is up");
    assert!(error.to_string().contains("did not come up"), "{error}");
}
