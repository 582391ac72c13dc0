//! The `exec` probe: a command ends with code 0. It runs in the version's directory, and is killed when its time is up.

use super::check::{Target, failed};
use super::condition::Reading;
use super::settings::ExecCheck;
use crate::driver::ExitStatus;
use crate::driver::command::{self, Leavings};

pub(super) async fn look(check: &ExecCheck, target: &Target) -> Reading {
    let words: Vec<String> = check.command.iter().map(|word| word.render(&target.values)).collect();
    let what = || format!("cannot run {}", words.first().map_or("the probe's command", String::as_str));
    let directory = target.values.builds.join(target.values.version.as_str());
    match command::run(&words, &directory, &[], Leavings::Kill).await {
        Ok((ExitStatus::Code(0), line)) => Reading::Good(if line.is_empty() { "exit code 0".to_owned() } else { line }),
        Ok((status, line)) if line.is_empty() => Reading::Bad(status.to_string()),
        Ok((status, line)) => Reading::Bad(format!("{status}: {line}")),
        Err(error) => failed(&what(), &error),
    }
}
