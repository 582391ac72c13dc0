//! Ending: exits are seen with their proof, and whatever belongs to the instance ends with it.

use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use handover_agent::driver::ExitStatus;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use crate::stage::{Stage, eventually, kill, me, runs, stat};

#[tokio::test]
async fn an_exit_is_seen_at_once_with_its_code_its_proof_and_its_last_lines() {
    let mut stage = Stage::new().await;
    let instance = stage.start("echo one; echo two >&2; mkfifo $D/pipe; read line < $D/pipe; exit 7");
    let pipe = stage.path("pipe");
    // Opening it for writing succeeds only once the script reads; closing it then ends the script.
    let reads = || {
        let open = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
        std::fs::OpenOptions::new().write(true).custom_flags(open.bits()).open(&pipe).ok()
    };
    let mut reader = None;
    eventually("it reads", || {
        reader = reads();
        reader.is_some()
    })
    .await;
    drop(reader);
    let ended = Instant::now();
    let exit = stage.exit().await;
    assert_eq!((exit.instance, exit.status), (instance, ExitStatus::Code(7)));
    assert!(exit.left.is_none() && exit.proven);
    assert_eq!(exit.tail, ["one", "two"]);
    assert!(ended.elapsed().as_millis() < 900, "no timer lies between: the sweep comes once a second at most");
}

#[tokio::test]
async fn an_instance_that_ignores_sigterm_is_ended_by_kill() {
    let mut stage = Stage::new().await;
    let instance = stage.start(r#"trap 'echo told > $D/told' TERM; echo $$ > $D/pid; while :; do sleep 0.01; done"#);
    let pid = stage.number("pid").await;
    stage.driver.signal_stop(&instance).await.expect("signalled");
    eventually("it was told", || stage.path("told").exists()).await;
    assert!(runs(pid) && stage.exits.try_recv().is_err(), "it goes on");
    stage.driver.kill(&instance).await.expect("killed");
    let exit = stage.exit().await;
    assert_eq!(exit.status, ExitStatus::Signal(9));
    assert!(exit.proven && !runs(pid));
}

#[tokio::test]
async fn sigterm_reaches_the_whole_group() {
    let mut stage = Stage::new().await;
    let instance = stage.start("sleep 1000 & echo $! > $D/child; trap 'wait; exit 0' TERM; wait; exit 1");
    let child = stage.number("child").await;
    assert!(runs(child));
    stage.driver.signal_stop(&instance).await.expect("signalled");
    let exit = stage.exit().await;
    assert_eq!(exit.status, ExitStatus::Code(0), "it could wait for its child, so the child was told as well");
    assert!(exit.proven && !runs(child));
}

#[tokio::test]
async fn a_stopped_instance_is_not_woken_by_sigterm_and_is_ended_by_kill() {
    let mut stage = Stage::new().await;
    let instance = stage.start("echo $$ > $D/pid; exec sleep 1000");
    let pid = stage.number("pid").await;
    kill(pid, Signal::SIGSTOP);
    eventually("it is stopped", || stat(pid).is_some_and(|fields| fields[0] == "T")).await;
    stage.driver.signal_stop(&instance).await.expect("signalled");
    assert_eq!(stat(pid).expect("it is there")[0], "T");
    stage.driver.kill(&instance).await.expect("killed");
    assert!(stage.exit().await.proven);
    assert!(!runs(pid));
}

#[tokio::test]
async fn a_daemon_of_the_instance_is_killed_before_the_stop_is_proven() {
    let mut stage = Stage::new().await;
    // Two forks and a session of its own: neither its parents nor its group lead to the instance any more.
    stage.start("setsid -f sh -c 'echo $$ > $D/daemon; exec sleep 1000'; UNTIL_GO");
    let daemon = stage.number("daemon").await;
    eventually("the agent is its parent", || {
        stat(daemon).is_some_and(|fields| fields[1] == me().to_string() && fields[3] == daemon.to_string())
    })
    .await;
    std::fs::write(stage.path("go"), "").expect("a sign");
    let exit = stage.exit().await;
    assert!(exit.left.is_none() && exit.proven);
    assert!(stat(daemon).is_none(), "killed and reaped");
}

#[tokio::test]
async fn kill_reaches_descendants_outside_the_group_while_the_main_process_hangs_on() {
    let mut stage = Stage::new().await;
    let instance = stage.start("setsid sh -c 'trap \"\" TERM; echo $$ > $D/child; sleep 1000' & wait");
    let child = stage.number("child").await;
    assert_ne!(stat(child).expect("it runs")[3], stat(me()).expect("we run")[3], "a session of its own");
    stage.driver.kill(&instance).await.expect("killed");
    assert!(stage.exit().await.proven);
    assert!(stat(child).is_none());
}

#[tokio::test]
async fn the_end_of_one_instance_leaves_the_daemon_of_another_alone() {
    let mut stage = Stage::new().await;
    let script = |name: &str| format!("setsid -f sh -c 'echo $$ > $D/{name}; exec sleep 1000'; exec sleep 1000");
    let (first, second) = (stage.start(&script("one")), stage.start(&script("two")));
    let (one, two) = (stage.number("one").await, stage.number("two").await);
    stage.driver.kill(&first).await.expect("killed");
    let exit = stage.exit().await;
    assert_eq!(exit.instance, first);
    assert!(exit.proven && !runs(one) && runs(two));
    stage.driver.kill(&second).await.expect("killed");
    assert!(stage.exit().await.proven);
    assert!(!runs(two));
}

#[tokio::test]
async fn a_tree_that_forks_as_fast_as_it_can_is_ended_and_proven() {
    let mut stage = Stage::new().await;
    // Each generation starts the next in the background and ends, so that it is never where one just looked.
    let hop = r#"n=$(($1+1)); echo $n > $D/count.new; mv $D/count.new $D/count; setsid sh "$0" $n & exit 0"#;
    std::fs::write(stage.path("hop"), hop).expect("a script");
    let instance = stage.start("sh $D/hop 0; exec sleep 1000");
    eventually("it hops", || {
        std::fs::read_to_string(stage.path("count")).is_ok_and(|n| n.trim().parse::<u32>().is_ok_and(|n| n > 20))
    })
    .await;
    stage.driver.kill(&instance).await.expect("killed");
    let exit = stage.exit().await;
    assert!(exit.left.is_none() && exit.proven);
    let count = || std::fs::read_to_string(stage.path("count")).expect("a count");
    let before = count();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(count(), before, "nobody hops any more");
}
