//! Every process that the agent starts is entered in the register: a rule about the source, so the source is read.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_process_is_started_past_the_register() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut starting = 0;
    // `check`, `lease exec`, the conformance kit and the gate, which starts its successor, are processes without a driver.
    let of_the_agent = |file: &&PathBuf| {
        let apart = ["driver/child.rs", "wrap/child.rs", "gate/reload.rs", "check/look.rs"]
            .iter()
            .any(|name| file.ends_with(name));
        !apart && !file.components().any(|part| part.as_os_str() == "conformance")
    };
    for file in files.iter().filter(of_the_agent) {
        let text = fs::read_to_string(file).expect("a source");
        let text = text.split("#[cfg(test)]").next().expect("its beginning");
        assert!(!text.contains("tokio::process"), "{} starts processes past driver::child::spawn", file.display());
        if text.contains("process::Command") || text.contains("process::{") && text.contains("Command") {
            starting += 1;
            for call in [".spawn()", ".output()", ".status()", ".exec()"] {
                assert!(!text.contains(call), "{}: {call} goes past driver::child::spawn", file.display());
            }
        }
    }
    assert!(starting >= 2, "the search finds the driver and the exec probe");
}
