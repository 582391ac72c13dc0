//! A version is staged whole and verified, or not at all.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use handover_agent::artifact::neighbours;
use handover_agent::artifact::progress::Progress;
use handover_agent::artifact::stage::{StageError, stage, stage_watched};
use handover_agent::state::StateFile;
use handover_artifact::{MANIFEST, Manifest, Refusal, SIGNATURE};

use crate::site::{Server, Site, answer, version};

#[tokio::test]
async fn a_version_comes_by_http_whole_verified_and_write_protected() {
    let site = Site::new();
    site.publish("1.5.0");
    let server = Server::of(site.path("published")).await;
    let staged = stage(&site.config(&server.fetch()), &version("1.5.0")).await.expect("staged");
    assert!(!staged.already && staged.verified.signed_by.is_some());
    assert_eq!(site.builds(), ["1.5.0"]);
    let mode = |name: &str| fs::metadata(site.built("1.5.0").join(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!((mode("run"), mode("lib/current"), mode("lib"), mode("")), (0o555, 0o444, 0o555, 0o555));
    assert_eq!(server.asked(), 4, "manifest, signature and two files; the link needs none");
}

#[tokio::test]
async fn a_version_comes_by_a_command() {
    let site = Site::new();
    site.publish("1.5.0");
    let staged = stage(&site.config(&site.copying()), &version("1.5.0")).await.expect("staged");
    assert_eq!(staged.verified.manifest.expect("a manifest").files.len(), 3);
    assert_eq!(site.builds(), ["1.5.0"]);
}

#[tokio::test]
async fn a_fault_on_the_way_ends_no_staging_and_a_true_refusal_does_at_once() {
    let site = Site::new();
    site.publish("1.5.0");
    let (root, faults) = (site.path("published"), AtomicUsize::new(0));
    let server = Server::with(move |path| match faults.fetch_add(1, Ordering::SeqCst) {
        // One answer is an error, and one connection breaks off.
        0 => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec(),
        4 => b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhalf".to_vec(),
        _ => answer(&root, path),
    });
    let server = server.await;
    stage(&site.config(&server.fetch()), &version("1.5.0")).await.expect("staged");
    assert_eq!(server.asked(), 6, "manifest, signature and two files, and two of them again");
    let error = stage(&site.config(&server.fetch()), &version("1.6.0")).await.expect_err("not published");
    assert!(matches!(error, StageError::Fetch { .. }), "{error}");
    assert_eq!(server.asked(), 7, "what is not there is not asked for again");
}

#[tokio::test]
async fn what_is_here_already_is_verified_and_not_fetched_again() {
    let site = Site::new();
    site.publish("1.5.0");
    let server = Server::of(site.path("published")).await;
    let config = site.config(&server.fetch());
    stage(&config, &version("1.5.0")).await.expect("staged");
    let asked = server.asked();
    assert!(stage(&config, &version("1.5.0")).await.expect("here").already);
    assert_eq!(server.asked(), asked);
    let run = site.built("1.5.0").join("run");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("set");
    fs::write(&run, "#!/bin/sh\n# 1.5.1\nexec sleep 60\n").expect("changed");
    let error = stage(&config, &version("1.5.0")).await.expect_err("changed");
    assert!(matches!(error, StageError::InPlace(_)), "{error}");
    assert!(error.to_string().contains("run is not as the manifest says"), "{error}");
}

#[tokio::test]
async fn each_fault_of_what_is_published_leaves_builds_as_it_was() {
    type Fault = fn(&Site, &std::path::Path);
    let faults: [(&str, Fault, &str); 7] = [
        ("unsigned", |_, dir| fs::remove_file(dir.join(SIGNATURE)).expect("removed"), "is not signed"),
        (
            "signed by another",
            |site, dir| {
                let other = Site { dir: tempfile::tempdir().expect("a directory"), secret: Site::new().secret };
                assert_ne!(other.key(), site.key());
                other.pack(dir, "1.5.0", &[]);
            },
            "are trusted here",
        ),
        (
            "changed manifest",
            |_, dir| {
                let text = fs::read_to_string(dir.join(MANIFEST)).expect("read");
                fs::write(dir.join(MANIFEST), text.replace("2026", "2027")).expect("written");
            },
            "was changed after it was signed",
        ),
        (
            "another version",
            |site, dir| site.pack(dir, "1.5.1", &[]),
            "says version 1.5.1, and its directory says 1.5.0",
        ),
        (
            "changed file",
            |_, dir| fs::write(dir.join("lib/some data"), vec![8; 100_000]).expect("written"),
            "its SHA-256 is",
        ),
        ("missing file", |_, dir| fs::remove_file(dir.join("run")).expect("removed"), "cannot stage 1.5.0"),
        (
            "too large for any disk",
            |site, dir| {
                let mut manifest = Manifest::parse(&fs::read(dir.join(MANIFEST)).expect("read")).expect("a manifest");
                let file =
                    handover_artifact::Entry::File { sha256: "0".repeat(64), size_bytes: 1 << 60, executable: false };
                manifest.files.insert("huge".parse().expect("a path"), file);
                site.write(dir, &manifest);
            },
            "are free there",
        ),
    ];
    for (name, fault, said) in faults {
        let site = Site::new();
        let dir = site.publish("1.5.0");
        fault(&site, &dir);
        for by in [site.copying(), Server::of(site.path("published")).await.fetch()] {
            let error = stage(&site.config(&by), &version("1.5.0")).await.expect_err(name);
            let text = handover_agent::report::chain(&error);
            // A command that fails for the signature's file does not say whether there is one.
            assert!(text.contains(said) || (name == "unsigned" && text.contains(SIGNATURE)), "{name} by {by}: {text}");
            assert_eq!(site.builds(), Vec::<String>::new(), "{name} by {by}");
        }
    }
}

#[tokio::test]
async fn nothing_is_fetched_on_the_word_of_a_manifest_that_is_not_believed() {
    let site = Site::new();
    let dir = site.publish("1.5.0");
    fs::remove_file(dir.join(SIGNATURE)).expect("removed");
    let server = Server::of(site.path("published")).await;
    stage(&site.config(&server.fetch()), &version("1.5.0")).await.expect_err("unsigned");
    assert_eq!(server.asked(), 2, "the manifest and its signature alone");
}

#[tokio::test]
async fn an_unsigned_version_comes_where_none_is_required() {
    let site = Site::new();
    let dir = site.publish("1.5.0");
    fs::remove_file(dir.join(SIGNATURE)).expect("removed");
    for (by, name) in [(site.copying(), "1.5.0"), (Server::of(site.path("published")).await.fetch(), "1.5.0")] {
        let config = site.config(&format!("require_signature = false\n{by}"));
        let staged = stage(&config, &version(name)).await.expect("staged");
        assert_eq!(staged.verified.signed_by, None);
        handover_agent_removes(&site, name);
    }
}

fn handover_agent_removes(site: &Site, name: &str) {
    let status = std::process::Command::new("sh")
        .args(["-c", "chmod -R u+w \"$1\" && rm -r \"$1\"", "sh"])
        .arg(site.built(name))
        .status()
        .expect("rm");
    assert!(status.success());
}

#[tokio::test]
async fn what_a_killed_staging_left_is_no_version_and_is_cleared_away() {
    let site = Site::new();
    site.publish("1.5.0");
    let left = site.path("builds/.handover-staging-1.4.9/lib");
    fs::create_dir_all(&left).expect("made");
    fs::write(left.join("half"), "ha").expect("written");
    fs::set_permissions(&left, fs::Permissions::from_mode(0o555)).expect("set");
    stage(&site.config(&site.copying()), &version("1.5.0")).await.expect("staged");
    assert_eq!(site.builds(), ["1.5.0"]);
}

#[tokio::test]
async fn two_stagings_do_not_get_into_each_others_way() {
    let site = Site::new();
    site.publish("1.5.0");
    let lock = fs::File::create(site.path("builds/.handover-stage.lock")).expect("made");
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).expect("locked");
    let config = site.config(&site.copying());
    let error = stage(&config, &version("1.5.0")).await.expect_err("busy");
    assert!(matches!(error, StageError::Busy { .. }), "{error}");
    drop(held);
    stage(&config, &version("1.5.0")).await.expect("staged");
}

#[tokio::test]
async fn without_a_way_to_fetch_only_what_is_here_can_be_verified() {
    let site = Site::new();
    let published = site.publish("1.5.0");
    let error = stage(&site.config(""), &version("1.5.0")).await.expect_err("nowhere");
    assert!(matches!(error, StageError::NoWay { .. }), "{error}");
    fs::rename(published, site.built("1.5.0")).expect("put there");
    assert!(stage(&site.config(""), &version("1.5.0")).await.expect("right").already);
    fs::remove_file(site.built("1.5.0").join(MANIFEST)).expect("removed");
    let error = stage(&site.config(""), &version("1.5.0")).await.expect_err("no manifest");
    assert!(matches!(&error, StageError::InPlace(refused) if matches!(refused.why, Refusal::NoManifest)), "{error}");
}

#[tokio::test]
async fn old_versions_are_pruned_but_none_that_is_linked_ran_last_or_was_put_there_by_hand() {
    let site = Site::new();
    let config = site.config(&format!("keep = 1\n{}", site.copying()));
    fs::create_dir(site.built("0.9.0")).expect("by hand");
    for name in ["1.0.0", "1.1.0", "1.2.0", "1.3.0"] {
        site.publish(name);
    }
    stage(&config, &version("1.0.0")).await.expect("staged");
    symlink("1.0.0", site.path("builds/current@a")).expect("linked");
    stage(&config, &version("1.1.0")).await.expect("staged");
    let mut file = StateFile::open(&site.path("state")).expect("a state file");
    file.change(|state| state.note_start(&version("1.1.0"))).expect("kept");
    stage(&config, &version("1.2.0")).await.expect("staged");
    let mut pruned = stage(&config, &version("1.3.0")).await.expect("staged").pruned;
    assert_eq!(pruned, [], "1.2.0 is the one that is kept");
    site.publish("1.4.0");
    pruned = stage(&config, &version("1.4.0")).await.expect("staged").pruned;
    assert_eq!(pruned, [version("1.2.0")]);
    assert_eq!(site.builds(), ["0.9.0", "1.0.0", "1.1.0", "1.3.0", "1.4.0", "current@a"]);
}

#[tokio::test]
async fn a_full_disk_is_made_room_on_by_what_is_beyond_keep_and_by_nothing_else() {
    // In memory, where nobody else writes meanwhile.
    let site = Site::within(Path::new("/dev/shm"));
    let large = 8 << 20;
    for name in ["1.0.0", "1.1.0"] {
        let dir = site.publish(name);
        fs::write(dir.join("lib/some data"), vec![7; large]).expect("written");
        site.pack(&dir, name, &[]);
        stage(&site.config(&format!("keep = 2\n{}", site.copying())), &version(name)).await.expect("staged");
    }
    site.publish("1.2.0");
    let about = nix::sys::statvfs::statvfs(&site.path("builds")).expect("told");
    let free = about.blocks_available() * about.fragment_size();
    let config = |keep: usize| {
        let keep_free = format!("keep_free_bytes = {}", free + large as u64 / 2);
        site.config(&format!("keep = {keep}\n{keep_free}\n{}", site.copying()))
    };
    let error = stage(&config(2), &version("1.2.0")).await.expect_err("full");
    assert!(matches!(error, StageError::Space { .. }), "{error}");
    assert_eq!(site.builds(), ["1.0.0", "1.1.0"], "both are to be kept");
    let staged = stage(&config(1), &version("1.2.0")).await.expect("room was made");
    assert_eq!(staged.pruned, [version("1.0.0")]);
    assert_eq!(site.builds(), ["1.1.0", "1.2.0"]);
}

#[tokio::test]
async fn versions_of_another_service_in_the_same_directory_are_left_alone() {
    let site = Site::new();
    let theirs = site.publish("7.0.0");
    let text = fs::read_to_string(theirs.join(MANIFEST)).expect("a manifest");
    assert!(text.contains("\"billing\""), "{text}");
    fs::write(theirs.join(MANIFEST), text.replace("\"billing\"", "\"mailer\"")).expect("written");
    fs::rename(theirs, site.built("7.0.0")).expect("put there");
    let config = site.config(&format!("keep = 0\n{}", site.copying()));
    for name in ["1.0.0", "1.1.0"] {
        site.publish(name);
        stage(&config, &version(name)).await.expect("staged");
    }
    assert_eq!(site.builds(), ["1.1.0", "7.0.0"]);
}

#[tokio::test]
async fn a_staging_that_nobody_waits_for_any_more_clears_away_what_has_come() {
    let site = Site::new();
    site.publish("1.5.0");
    let config = site.config("fetch = { exec = [\"sh\", \"-c\", \"sleep 60\", \"{file}\", \"{to}\"] }");
    let progress = Progress::default();
    let wanted = version("1.5.0");
    let staging = stage_watched(&config, &wanted, &progress);
    let aside = async {
        while site.builds().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        site.builds()
    };
    let began = tokio::select! {
        ended = staging => panic!("it ended: {ended:?}"),
        began = aside => began,
    };
    assert!(began[0].starts_with(".handover-staging-1.5.0-"), "{began:?}");
    assert_eq!(site.builds(), Vec::<String>::new());
}

#[tokio::test]
async fn how_much_of_a_file_has_come_is_looked_at_by_the_staging_itself() {
    let site = Site::new();
    site.publish("1.5.0");
    // Everything but the large file comes at once; of that one the half.
    let from = site.path("published");
    let script = format!(
        "case \"{{file}}\" in *data) head -c 50000 \"{from}/{{version}}/{{file}}\" > \"{{to}}\"; sleep 60 ;; \
         *) cp \"{from}/{{version}}/{{file}}\" \"{{to}}\" ;; esac",
        from = from.display()
    );
    let config = site.config(&format!("fetch = {{ exec = [\"sh\", \"-c\", '{script}'] }}"));
    let (progress, wanted) = (Progress::default(), version("1.5.0"));
    let half = async {
        while progress.now().done_bytes < 50_000 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        // Nobody who asks looks at the file system, which may hang.
        let before = progress.now().done_bytes;
        fs::remove_dir_all(site.path("builds")).expect("removed");
        (before, progress.now().done_bytes)
    };
    let (before, after) = tokio::select! {
        ended = stage_watched(&config, &wanted, &progress) => panic!("it ended: {ended:?}"),
        half = tokio::time::timeout(std::time::Duration::from_secs(30), half) => half.expect("seen"),
    };
    assert!((50_000..100_000).contains(&before) && before == after, "{before} {after}");
}

#[tokio::test]
async fn nothing_is_pruned_when_nobody_can_say_what_ran() {
    let site = Site::new();
    let config = site.config(&format!("keep = 0\n{}", site.copying()));
    for name in ["1.0.0", "1.1.0"] {
        site.publish(name);
    }
    stage(&config, &version("1.0.0")).await.expect("staged");
    fs::write(site.path("state/agent.json"), "damaged").expect("written");
    let staged = stage(&config, &version("1.1.0")).await.expect("staged");
    assert!(staged.not_pruned.expect("a reason").contains("agent.json"));
    assert_eq!(site.builds(), ["1.0.0", "1.1.0"]);
}

#[tokio::test]
async fn what_another_agent_of_the_service_needs_is_not_pruned_and_nothing_is_where_it_cannot_be_asked() {
    let site = Site::new();
    let config = site.config(&format!("keep = 0\n{}", site.copying()));
    let names = ["1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0"];
    for name in names {
        site.publish(name);
    }
    let pruned = async |name: &str| {
        let staged = stage(&config, &version(name)).await.expect("staged");
        (staged.pruned, staged.not_pruned.unwrap_or_default())
    };
    pruned("1.0.0").await;
    let theirs = site.path("theirs");
    fs::create_dir(&theirs).expect("made");
    let mut file = StateFile::open(&theirs).expect("a state file");
    file.change(|state| state.note_start(&version("1.0.0"))).expect("kept");
    // Our own mark is of no account to us, and another service's neither.
    let (builds, service) = (site.path("builds"), config.service.clone());
    neighbours::mark(&builds, &service, &config.agent, &config.state_dir).expect("marked");
    let mailer = "mailer".parse().expect("a service");
    neighbours::mark(&builds, &mailer, &"mail-01".parse().expect("a name"), &theirs).expect("marked");
    let other = "app-02".parse().expect("a name");
    neighbours::mark(&builds, &service, &other, &theirs).expect("marked");

    assert_eq!(pruned("1.1.0").await, (vec![], String::new()), "1.0.0 is theirs");
    assert_eq!(pruned("1.2.0").await, (vec![version("1.1.0")], String::new()), "1.1.0 is nobody's");
    fs::remove_file(theirs.join("agent.json")).expect("removed");
    let (none, why) = pruned("1.3.0").await;
    assert!(none.is_empty() && why.contains("app-02 uses it too") && why.contains("agent.json is not there"), "{why}");
    let mark = builds.join(".handover-agent-billing-app-02");
    assert!(why.contains(&format!("remove {}", mark.display())), "{why}");
    fs::remove_file(mark).expect("removed");
    assert_eq!(pruned("1.4.0").await.0, ["1.3.0", "1.2.0", "1.0.0"].map(version), "the newest first");
}
