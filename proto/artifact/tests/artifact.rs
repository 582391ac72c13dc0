//! Artifacts on disk, with real signatures.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "tests may; clippy.toml's exception does not reach what #[test] functions call"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use handover_artifact::secret::{SecretError, SecretKey};
use handover_artifact::tree::Listing;
use handover_artifact::{Expected, Key, MANIFEST, Manifest, Refusal, SIGNATURE, Trust, Verified, verify};

/// Made by `minisign -G` (0.11, Debian), with lower limits than its own so that a test can decrypt it; `minisign -S` takes it.
/// Its password is "handover".
const MINISIGN_SECRET: &str = include_str!("minisign.key");
const MINISIGN_PUBLIC: &str = include_str!("minisign.pub");
/// `minisign -S -m message.txt`, of the line "made by minisign itself".
const MINISIGN_MESSAGE: &str = "made by minisign itself\n";
const MINISIGN_SIGNATURE: &str = include_str!("message.txt.minisig");

struct Site {
    dir: tempfile::TempDir,
    secret: SecretKey,
}

impl Site {
    /// A packed and signed artifact: a program, a file in a directory, a link.
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("lib/x")).expect("made");
        fs::write(dir.path().join("run"), "#!/bin/sh\n").expect("written");
        fs::set_permissions(dir.path().join("run"), Permissions::from_mode(0o755)).expect("executable");
        fs::write(dir.path().join("lib/x/data"), [7; 200_000]).expect("written");
        symlink("x", dir.path().join("lib/current")).expect("linked");
        let site = Self { dir, secret: SecretKey::make().expect("a key").0 };
        site.pack("1.5.0");
        site.sign();
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn pack(&self, version: &str) {
        let files = Listing::of(self.dir.path()).and_then(|listing| listing.entries(self.dir.path())).expect("listed");
        let version = version.parse().expect("a version");
        let manifest =
            Manifest::of("billing".parse().expect("a service"), version, "2026-11-22T00:00:00Z".into(), files);
        fs::write(self.path(MANIFEST), manifest.to_bytes().expect("bytes")).expect("written");
    }

    fn sign(&self) {
        let manifest = fs::read(self.path(MANIFEST)).expect("a manifest");
        fs::write(self.path(SIGNATURE), self.secret.sign(&manifest, "a test")).expect("written");
    }

    fn trust(&self) -> Trust {
        Trust { keys: vec![public(&self.secret)], require_signature: true, require_manifest: true }
    }

    fn verify(&self) -> Result<Verified, Refusal> {
        self.verify_again(None)
    }

    fn verify_again(&self, before: Option<&Verified>) -> Result<Verified, Refusal> {
        verify(self.dir.path(), &expected("1.5.0"), &self.trust(), before).map_err(|refused| refused.why)
    }
}

fn public(secret: &SecretKey) -> Key {
    Key::read(secret.public_text().lines().nth(1).expect("a line")).expect("a key")
}

fn expected(version: &str) -> Expected {
    Expected {
        service: Some("billing".parse().expect("a service")),
        version: Some(version.parse().expect("a version")),
    }
}

#[test]
fn what_was_packed_and_signed_passes_and_says_who_signed_it() {
    let site = Site::new();
    let verified = site.verify().expect("passes");
    assert_eq!(verified.signed_by, Some(site.trust().keys[0].id()));
    let manifest = verified.manifest.expect("a manifest");
    assert_eq!(manifest.files.len(), 3);
    assert_eq!(manifest.size_bytes(), 200_010);
}

#[test]
fn each_fault_is_refused_by_its_name() {
    type Fault = fn(&Site);
    let faults: [(&str, Fault, &str); 13] = [
        (
            "no manifest",
            |site| fs::remove_file(site.path(MANIFEST)).expect("removed"),
            "handover-manifest.json is missing",
        ),
        ("no signature", |site| fs::remove_file(site.path(SIGNATURE)).expect("removed"), "is not signed"),
        (
            "signature of nothing",
            |site| fs::write(site.path(SIGNATURE), "x").expect("written"),
            "is not a minisign signature",
        ),
        ("changed manifest", |site| site.pack("1.5.0-evil"), "was changed after it was signed"),
        (
            "another version",
            |site| {
                site.pack("1.5.1");
                site.sign();
            },
            "says version 1.5.1, and its directory says 1.5.0",
        ),
        (
            "changed content",
            |site| fs::write(site.path("lib/x/data"), [8; 200_000]).expect("written"),
            "lib/x/data is not as the manifest says: its SHA-256",
        ),
        ("changed length", |site| fs::write(site.path("lib/x/data"), "short").expect("written"), "it has 5 bytes"),
        (
            "changed mode",
            |site| fs::set_permissions(site.path("run"), Permissions::from_mode(0o644)).expect("set"),
            "run is not as",
        ),
        ("missing file", |site| fs::remove_file(site.path("run")).expect("removed"), "run is missing"),
        (
            "extra file",
            |site| fs::write(site.path("lib/x/evil.so"), "").expect("written"),
            "lib/x/evil.so is in the directory",
        ),
        (
            "moved link",
            |site| {
                fs::remove_file(site.path("lib/current")).expect("removed");
                symlink("/etc", site.path("lib/current")).expect("linked");
            },
            "lib/current is not as",
        ),
        (
            "a pipe",
            |site| {
                std::process::Command::new("mkfifo").arg(site.path("pipe")).status().expect("mkfifo");
            },
            "pipe is a pipe",
        ),
        (
            "no directory",
            |site| fs::remove_dir_all(site.dir.path()).expect("removed"),
            "cannot read handover-manifest.json",
        ),
    ];
    for (name, fault, said) in faults {
        let site = Site::new();
        site.verify().expect("right before the fault");
        fault(&site);
        let error = site.verify().expect_err(name).to_string();
        assert!(error.contains(said), "{name}: {error}");
    }
}

#[test]
fn a_signature_by_somebody_else_names_both_keys() {
    let mut site = Site::new();
    let trusted = site.trust();
    site.secret = SecretKey::make().expect("another key").0;
    site.sign();
    let refused = verify(site.dir.path(), &expected("1.5.0"), &trusted, None).expect_err("not trusted");
    let said = refused.to_string();
    assert!(matches!(refused.why, Refusal::UnknownKey { .. }), "{said}");
    let (theirs, ours) = (public(&site.secret).id(), trusted.keys[0].id());
    assert!(said.contains(&theirs) && said.contains(&ours), "{said}");
    assert!(said.contains(&site.dir.path().display().to_string()), "{said}");
}

#[test]
fn another_services_artifact_is_refused_however_well_it_is_signed() {
    let site = Site::new();
    let wanted = Expected { service: Some("shipping".parse().expect("a service")), version: None };
    let refused = verify(site.dir.path(), &wanted, &site.trust(), None).expect_err("another service");
    assert!(matches!(refused.why, Refusal::OtherService { .. }), "{refused}");
}

#[test]
fn without_demands_a_bare_directory_passes_and_a_manifest_still_counts() {
    let site = Site::new();
    let lenient = |site: &Site| verify(site.dir.path(), &expected("1.5.0"), &Trust::default(), None);
    assert_eq!(lenient(&site).expect("passes").signed_by, None);
    fs::write(site.path("run"), "changed").expect("written");
    assert!(matches!(lenient(&site).expect_err("changed").why, Refusal::Changed { .. }));
    fs::remove_file(site.path(MANIFEST)).expect("removed");
    assert_eq!(lenient(&site).expect("passes").manifest, None);
    // With keys and no demand, a signature may be missing, but not wrong.
    site.pack("1.5.0");
    let asked = Trust { require_signature: false, require_manifest: false, ..site.trust() };
    let wrong = verify(site.dir.path(), &expected("1.5.0"), &asked, None).expect_err("an old signature");
    assert!(matches!(wrong.why, Refusal::Forged { .. }), "{wrong}");
    fs::remove_file(site.path(SIGNATURE)).expect("removed");
    verify(site.dir.path(), &expected("1.5.0"), &asked, None).expect("unsigned passes");
}

#[test]
fn a_second_look_notices_every_change_also_one_that_keeps_length_and_time() {
    let site = Site::new();
    let first = site.verify().expect("passes");
    let second = site.verify_again(Some(&first)).expect("passes again");
    assert_eq!(first, second);
    let data = site.path("lib/x/data");
    let time = fs::metadata(&data).and_then(|about| about.modified()).expect("a time");
    fs::write(&data, [8; 200_000]).expect("written");
    fs::File::options().write(true).open(&data).and_then(|file| file.set_modified(time)).expect("put back");
    let refused = site.verify_again(Some(&first)).expect_err("changed");
    assert!(matches!(refused, Refusal::Changed { .. }), "{refused}");
}

#[test]
fn a_key_of_minisign_signs_here_as_it_does_there() {
    let wrong = SecretKey::read(MINISIGN_SECRET, Some("another")).expect_err("a wrong password");
    assert_eq!(wrong, SecretError::Checksum);
    assert_eq!(SecretKey::read(MINISIGN_SECRET, None).expect_err("no password"), SecretError::Encrypted);
    let secret = SecretKey::read(MINISIGN_SECRET, Some("handover")).expect("a key");
    assert_eq!(secret.public_text().lines().nth(1), MINISIGN_PUBLIC.lines().nth(1));
    let trust = Trust { keys: vec![public(&secret)], require_signature: true, require_manifest: true };
    let signature = secret.sign(MINISIGN_MESSAGE.as_bytes(), "by handover");
    for signature in [signature.as_str(), MINISIGN_SIGNATURE] {
        let signer = trust.judge(MINISIGN_MESSAGE.as_bytes(), Some(signature.as_bytes())).expect("believed");
        assert_eq!(signer, Some(trust.keys[0].id()));
        assert!(trust.judge(b"another message", Some(signature.as_bytes())).is_err());
        let comment = signature.replace("trusted comment: ", "trusted comment: x");
        assert!(
            trust.judge(MINISIGN_MESSAGE.as_bytes(), Some(comment.as_bytes())).is_err(),
            "the comment is signed too"
        );
    }
}

#[test]
fn a_secret_key_reads_back_and_a_damaged_one_does_not() {
    let (secret, text) = SecretKey::make().expect("a key");
    let again = SecretKey::read(&text, None).expect("read back");
    assert_eq!(again.public_text(), secret.public_text());
    for (bad, expected) in [("", "second line"), ("x\n!\n", "base64"), ("x\nAAAA\n", "length")] {
        let error = SecretKey::read(bad, None).expect_err(bad).to_string();
        assert!(error.contains(expected), "{error}");
    }
    // As `minisign -G -W` writes it: without a checksum.
    let mut bytes = BASE64_STANDARD.decode(text.lines().nth(1).expect("a line")).expect("base64");
    let length = bytes.len();
    bytes[length - 32..].fill(0);
    let bare = |bytes: &[u8]| SecretKey::read(&format!("x\n{}\n", BASE64_STANDARD.encode(bytes)), None);
    assert_eq!(bare(&bytes).expect("read").public_text(), secret.public_text());
    bytes[length - 40] ^= 1;
    assert_eq!(bare(&bytes).expect_err("halves that do not fit"), SecretError::Checksum);
    let at = text.len() - 10;
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    let damaged = format!("{}{other}{}", &text[..at], &text[at + 1..]);
    assert_eq!(SecretKey::read(&damaged, None).expect_err("damaged"), SecretError::Checksum);
    assert!(!format!("{secret:?}").contains("pair"), "a secret is not shown");
}

#[test]
fn a_key_is_read_from_minisigns_own_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("release.pub");
    fs::write(&file, MINISIGN_PUBLIC).expect("written");
    let key = Key::read(&file.display().to_string()).expect("a key");
    assert!(MINISIGN_PUBLIC.contains(&key.id()), "minisign shows the same id: {}", key.id());
    assert!(Key::read("RWshort").is_err());
    assert!(Key::read(Path::new("/no/such.pub").to_str().expect("text")).is_err());
}
