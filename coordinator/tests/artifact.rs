//! `handover artifact`, as it is typed.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use handover_artifact::{MANIFEST, SIGNATURE};

fn handover(dir: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    command.current_dir(dir).args(line.split(' ')).env("SOURCE_DATE_EPOCH", "1795305600").output().expect("run")
}

fn done(dir: &Path, line: &str) -> String {
    let output = handover(dir, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn refused(dir: &Path, line: &str, code: i32) -> String {
    let output = handover(dir, line);
    let text = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{line}: {text}");
    text
}

fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("dist")).expect("made");
    fs::write(dir.path().join("dist/run"), "#!/bin/sh\n").expect("written");
    fs::write(dir.path().join("notes.md"), "Faster.\n").expect("written");
    dir
}

const PACK: &str = "--service billing artifact pack dist --version 1.5.0 --commit 3f2a1bc --compatible-with >=1.4,<2 \
                    --schema-version 42 --notes notes.md";

#[test]
fn what_is_packed_and_signed_verifies_and_shows_what_was_said() {
    let site = site();
    done(site.path(), "artifact key release.key");
    let mode = fs::metadata(site.path().join("release.key")).expect("made").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "a secret key is for its owner alone");
    assert!(done(site.path(), PACK).contains("billing 1.5.0 packed: 1 files, 10 bytes"));
    let signed = done(site.path(), "artifact sign dist --secret-key release.key");
    let public = fs::read_to_string(site.path().join("release.key.pub")).expect("made");
    assert!(signed.contains(public.lines().nth(1).expect("a key")), "{signed}");
    let shown = done(site.path(), "artifact verify dist --key release.key.pub");
    let parts = [
        "every file is as it should be",
        "signed with key",
        "commit: 3f2a1bc",
        "compatible with: >=1.4,<2",
        "schema version: 42",
        "Faster.",
        "built: 2026-11-22T00:00:00Z",
    ];
    for part in parts {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let json = done(site.path(), "--json artifact verify dist --key release.key.pub");
    assert!(json.contains("\"commit\":\"3f2a1bc\"") && json.contains("\"signed_by\":\""), "{json}");
}

#[test]
fn the_same_tree_gives_the_same_manifest_and_a_new_one_takes_the_signature_away() {
    let site = site();
    done(site.path(), "artifact key release.key");
    done(site.path(), PACK);
    let read = || fs::read(site.path().join("dist").join(MANIFEST)).expect("a manifest");
    let first = read();
    done(site.path(), "artifact sign dist --secret-key release.key");
    assert!(site.path().join("dist").join(SIGNATURE).exists());
    done(site.path(), PACK);
    assert_eq!(read(), first);
    assert!(!site.path().join("dist").join(SIGNATURE).exists());
}

#[test]
fn what_is_not_right_is_refused_by_policy() {
    let site = site();
    done(site.path(), "artifact key release.key");
    done(site.path(), "artifact key other.key");
    refused(site.path(), "artifact sign dist --secret-key release.key", 5);
    done(site.path(), PACK);
    assert!(refused(site.path(), "artifact verify dist --key release.key.pub", 5).contains("is not signed"));
    done(site.path(), "artifact verify dist");
    done(site.path(), "artifact sign dist --secret-key release.key");
    assert!(refused(site.path(), "artifact verify dist --key other.key.pub", 5).contains("are trusted here"));
    let other = refused(site.path(), "artifact verify dist --key release.key.pub --version 1.5.1", 5);
    assert!(other.contains("1.5.0") && other.contains("1.5.1"), "{other}");
    fs::write(site.path().join("dist/run"), "#!/bin/zsh").expect("written");
    assert!(refused(site.path(), "artifact verify dist --key release.key.pub", 5).contains("its SHA-256 is"));
    assert!(refused(site.path(), "artifact sign dist --secret-key release.key", 5).contains("its SHA-256 is"));
}

#[test]
fn wrong_use_is_said_with_what_would_do() {
    let site = site();
    let line = "artifact pack dist --version 1.5.0";
    assert!(refused(site.path(), line, 1).contains("--service"));
    done(site.path(), PACK);
    assert!(refused(site.path(), "artifact sign dist --secret-key notes.md", 1).contains("no secret key of minisign"));
    assert!(refused(site.path(), "artifact sign dist --secret-key missing.key", 1).contains("missing.key"));
    assert!(refused(site.path(), "artifact verify dist --key RWabc", 1).contains("no public key of minisign"));
    done(site.path(), "artifact key release.key");
    assert!(refused(site.path(), "artifact key release.key", 1).contains("exists"), "a key is never overwritten");
    let range = "--service billing artifact pack dist --version 1.5.0 --compatible-with new";
    assert!(refused(site.path(), range, 1).contains("is not a range of versions"));
}

/// The real program, which nobody here wrote.
fn minisign(dir: &Path, line: &str) -> (bool, String) {
    let mut command = Command::new("minisign");
    command.current_dir(dir).args(line.split(' ')).stdin(std::process::Stdio::null());
    let output = command.output().expect("this test needs minisign; `tests/run --tools` installs it");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn minisign_itself_believes_what_is_signed_here_and_nothing_else() {
    let site = site();
    done(site.path(), "artifact key release.key");
    done(site.path(), "artifact key other.key");
    done(site.path(), PACK);
    done(site.path(), "artifact sign dist --secret-key release.key");
    let verify = format!("-V -p release.key.pub -m dist/{MANIFEST}");
    let (good, said) = minisign(site.path(), &verify);
    assert!(good && said.contains("Trusted comment: handover artifact billing 1.5.0"), "{said}");
    let (good, said) = minisign(site.path(), &verify.replace("release", "other"));
    assert!(!good && said.contains("key id"), "{said}");

    let signature = fs::read_to_string(site.path().join("dist").join(SIGNATURE)).expect("a signature");
    let forged = signature.replace("billing 1.5.0", "billing 1.6.0");
    fs::write(site.path().join("dist").join(SIGNATURE), &forged).expect("written");
    assert!(forged != signature && !minisign(site.path(), &verify).0, "the trusted comment is signed, too");
    fs::write(site.path().join("dist").join(SIGNATURE), signature).expect("written");
    let mut manifest = fs::read(site.path().join("dist").join(MANIFEST)).expect("a manifest");
    manifest.push(b' ');
    fs::write(site.path().join("dist").join(MANIFEST), manifest).expect("written");
    assert!(!minisign(site.path(), &verify).0, "another manifest");
    // Its program signs with a key that was made here.
    let (good, said) = minisign(site.path(), &format!("-S -s release.key -m dist/{MANIFEST}"));
    assert!(good, "{said}");
}

#[test]
fn what_minisign_itself_signs_with_a_key_of_its_own_is_believed_here() {
    let site = site();
    let (made, said) = minisign(site.path(), "-G -W -p its.pub -s its.key");
    assert!(made, "{said}");
    done(site.path(), "artifact key release.key");
    done(site.path(), PACK);
    // As `minisign -S` signs today, and as it did before 2019 (-l).
    for how in ["-S", "-S -l"] {
        let (good, said) = minisign(site.path(), &format!("{how} -s its.key -m dist/{MANIFEST} -t hello"));
        assert!(good, "{said}");
        let shown = done(site.path(), "artifact verify dist --key its.pub");
        let public = fs::read_to_string(site.path().join("its.pub")).expect("made");
        let id = shown.split("signed with key ").nth(1).expect("an id").split_whitespace().next().expect("an id");
        assert!(public.contains(id.trim_start_matches('0')), "both show the same id: {shown}{public}");
        assert!(refused(site.path(), "artifact verify dist --key release.key.pub", 5).contains("are trusted here"));
    }
    // Its key signs here, and its program believes that.
    done(site.path(), "artifact sign dist --secret-key its.key");
    let (good, said) = minisign(site.path(), &format!("-V -p its.pub -m dist/{MANIFEST}"));
    assert!(good, "{said}");
}
