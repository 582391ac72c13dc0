//! Fetching by a command.

use std::path::Path;

use super::fetch::Why;
use crate::driver::ExitStatus;
use crate::driver::command::{self, Leavings};

/// Runs the command, which is to write the file. Dropping the future ends the command.
pub(super) async fn fetch(words: &[String], to: &Path) -> Result<(), Why> {
    match command::run(words, Path::new("/"), &[], Leavings::Kill).await {
        Ok((ExitStatus::Code(0), _)) if to.is_file() => Ok(()),
        Ok((ExitStatus::Code(0), _)) => Err(Why::NoFile(to.to_owned())),
        Ok((status, line)) if line.is_empty() => Err(Why::Command(status.to_string())),
        Ok((status, line)) => Err(Why::Command(format!("{status}: {line}"))),
        Err(error) => Err(Why::Command(format!("the command cannot be run: {error}"))),
    }
}
