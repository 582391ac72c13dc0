//! The last applied state on disk, so that a killed gate comes back with its routes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::control::GateState;

/// Raised when an older gate could not read what a newer one writes.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    format: u32,
    state: GateState,
}

/// The state file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateFileError {
    #[error("cannot {operation} the gate's state file {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("the gate's state file {} is damaged ({reason}); it is left as it is until the agent sends a state", path.display())]
    Damaged { path: PathBuf, reason: String },
}

/// Reads the saved state; none if there is no file yet.
pub(super) fn load(path: &Path) -> Result<Option<GateState>, StateFileError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateFileError::Io { operation: "read", path: path.to_owned(), source }),
    };
    let damaged = |reason: String| StateFileError::Damaged { path: path.to_owned(), reason };
    let saved: Saved = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    if saved.format != FORMAT {
        return Err(damaged(format!("format {} instead of {FORMAT}", saved.format)));
    }
    Ok(Some(saved.state))
}

/// Writes the state aside, makes it durable and puts it in place: a crash leaves the old file or the new one, never half.
/// Blocks on the disk.
pub(super) fn save(path: &Path, state: &GateState) -> Result<(), StateFileError> {
    let aside = path.with_extension("new");
    let io_error = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| StateFileError::Io { operation, path, source }
    };
    let text = serde_json::to_vec(&Saved { format: FORMAT, state: state.clone() })
        .map_err(|error| io_error("write", path)(io::Error::other(error)))?;
    let mut file = File::create(&aside).map_err(io_error("create", &aside))?;
    file.write_all(&text).map_err(io_error("write", &aside))?;
    file.sync_all().map_err(io_error("sync", &aside))?;
    fs::rename(&aside, path).map_err(io_error("put in place", path))?;
    // The rename itself is durable only when the directory is.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error("sync the directory of", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::control::Admission;

    fn state(seq: u64) -> GateState {
        GateState { seq, admission: Admission::Open, upstreams: Vec::new() }
    }

    #[test]
    fn what_is_saved_is_loaded_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.json");
        assert_eq!(load(&path).expect("no file is no error"), None);
        save(&path, &state(1)).expect("saved");
        save(&path, &state(2)).expect("saved over");
        assert_eq!(load(&path).expect("loaded"), Some(state(2)));
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_file_of_the_first_format_is_still_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.json");
        let first = r#"{"format":1,"state":{"seq":7,"admission":"lame_duck","upstreams":[{"instance":"00000000000000aa",
            "version":"1.4.2","address":"127.0.0.1:9001","reads":75,"writes":100,"ready":true}]}}"#;
        fs::write(&path, first).expect("written");
        let state = load(&path).expect("loaded").expect("a state");
        assert_eq!((state.seq, state.admission, state.upstreams[0].reads), (7, Admission::LameDuck, 75));
    }

    #[test]
    fn a_damaged_file_and_one_of_another_format_are_told_apart_from_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.json");
        for bad in
            ["", "{\"format\":1,\"sta", "{\"format\":2,\"state\":{\"seq\":1,\"admission\":\"open\",\"upstreams\":[]}}"]
        {
            fs::write(&path, bad).expect("written");
            let error = load(&path).expect_err(bad);
            assert!(matches!(error, StateFileError::Damaged { .. }), "{error}");
        }
    }

    #[test]
    fn a_save_that_fails_names_the_file_and_leaves_the_old_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state.json");
        save(&path, &state(1)).expect("saved");
        fs::create_dir(path.with_extension("new")).expect("in the way");
        let error = save(&path, &state(2)).expect_err("in the way").to_string();
        assert!(error.contains("state.new"), "{error}");
        assert_eq!(load(&path).expect("loaded"), Some(state(1)));
    }
}
