//! Memory: an instance that uses more than it may is ended, and its exit says so.

use handover_agent::driver::{ExitStatus, LimitedBy};

use crate::stage::{Stage, runs};

const LIMIT_BYTES: u64 = 20 << 20;

#[tokio::test]
async fn an_instance_whose_descendants_use_too_much_memory_is_killed_whole_and_no_other() {
    let mut stage = Stage::new().await;
    stage.driver.limit_memory(Some(LIMIT_BYTES));
    stage.start("echo $$ > $D/modest; sleep 1000");
    let modest = stage.number("modest").await;
    // With a command after it the sleep does not take the shell's place, and so its memory away.
    let greedy =
        stage.start("(filled=$(head -c 60000000 /dev/zero | tr '\\0' a); sleep 1000; :) & echo $! > $D/child; wait");
    let child = stage.number("child").await;
    let exit = stage.exit().await;
    assert_eq!(exit.instance, greedy);
    let ExitStatus::Memory(over) = exit.status else { panic!("{exit:?}") };
    assert!(over.used_bytes > LIMIT_BYTES && over.max.bytes == LIMIT_BYTES, "{over:?}");
    assert_eq!(over.max.by, LimitedBy::Config);
    assert!(exit.proven && exit.left.is_none() && !runs(child), "{exit:?}");
    assert!(runs(modest) && stage.exits.try_recv().is_err(), "the other one goes on");
}
