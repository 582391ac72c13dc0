//! The core stays pure: a newcomer who puts I/O into it finds out here.

use std::fs;
use std::path::{Path, PathBuf};

const FORBIDDEN: &[&str] = &[
    "tokio",
    "tonic::",
    "etcd",
    "handover_store",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "rand::",
    "::random()",
    "tracing::",
    "async ",
    "println!",
];

#[test]
fn no_core_file_reaches_for_a_runtime_the_network_a_clock_a_file_or_chance() {
    let files = sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core").as_path());
    assert!(files.len() > 15, "the guard looks at the core's files: {files:?}");
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (number, line) in code.enumerate() {
            for word in FORBIDDEN {
                assert!(!line.contains(word), "{}: {word} in code line {}: {line}", file.display(), number + 1);
            }
        }
    }
}

#[test]
fn no_core_file_and_no_test_of_it_is_longer_than_400_lines() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [sources(&root.join("src/core")), sources(&root.join("tests/core_rules"))].concat() {
        let lines = fs::read_to_string(&file).expect("a source file").lines().count();
        assert!(lines <= 400, "{} has {lines} lines", file.display());
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}
