//! Fetching by a command.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::fetch::Why;
use crate::driver::ExitStatus;
use crate::driver::command::{self, Leavings};

/// Between two looks at what a command writes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the command, which is to write the file, and ends it as soon as there is more than `most_bytes` of it. Dropping the
/// future ends the command.
pub(super) async fn fetch(words: &[String], to: &Path, most_bytes: u64) -> Result<(), Why> {
    let ended = tokio::select! {
        ended = command::run(words, Path::new("/"), &[], Leavings::Kill) => ended,
        () = outgrown(to, most_bytes) => return Err(Why::TooLarge(most_bytes)),
    };
    match ended {
        Ok((ExitStatus::Code(0), _)) if size_bytes(to) > most_bytes => Err(Why::TooLarge(most_bytes)),
        Ok((ExitStatus::Code(0), _)) if to.is_file() => Ok(()),
        Ok((ExitStatus::Code(0), _)) => Err(Why::NoFile(to.to_owned())),
        Ok((status, line)) if line.is_empty() => Err(Why::Command(status.to_string())),
        Ok((status, line)) => Err(Why::Command(format!("{status}: {line}"))),
        Err(error) => Err(Why::Command(format!("the command cannot be run: {error}"))),
    }
}

/// Returns once the file is larger than that. A limit of the kernel's would be for every file that the command writes, also
/// for an archive out of which it takes this one.
async fn outgrown(file: &Path, most_bytes: u64) {
    while size_bytes(file) <= most_bytes {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn size_bytes(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |about| about.len())
}
