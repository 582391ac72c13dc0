//! The exec driver with real containers: what `docs/exec-driver.md` has for podman, with the paths of a fleet.
//!
//! The service's images are made here, of the program and the libraries that it names: there is no registry.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use handover_tests::docs::{program, sample};
use handover_tests::fleet::{Binaries, Fleet, Options, Spec};
use handover_tests::load::request::Mix;
use handover_tests::load::{Load, LoadSpec};
use serde_json::Value;

mod support;
use support::{receipt, table};

const PAGE: &str = "exec-driver.md";

/// What works as root of a light container, too: without systemd, without overlays, within the limits that it has.
const CONTAINERS: &str = r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"#;

/// An engine with images and containers of its own, in the fleet's directory.
struct Engine {
    dir: tempfile::TempDir,
}

impl Engine {
    fn new() -> Self {
        for name in ["podman", "runc", "conmon", "strip"] {
            program(name).expect("a program");
        }
        let dir = tempfile::Builder::new().prefix("handover-containers-").tempdir().expect("a directory");
        let engine = Self { dir };
        let graph = engine.path("graph");
        let storage =
            format!("[storage]\ndriver = \"vfs\"\ngraphroot = {graph:?}\nrunroot = {:?}\n", engine.path("run"));
        fs::write(engine.path("containers.conf"), CONTAINERS).expect("written");
        fs::write(engine.path("storage.conf"), storage).expect("written");
        let status = engine.path("container-status");
        fs::write(&status, sample(PAGE, "sh", 0).expect("a script")).expect("written");
        fs::set_permissions(&status, fs::Permissions::from_mode(0o755)).expect("executable");
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn podman(&self, words: &[&str]) -> String {
        let mut command = Command::new("podman");
        command.args(words).envs(self.variables()).stdin(Stdio::null());
        let done = command.output().expect("podman");
        assert!(done.status.success(), "podman {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text").trim().to_owned()
    }

    fn variables(&self) -> [(&'static str, PathBuf); 2] {
        let (engine, storage) = (self.path("containers.conf"), self.path("storage.conf"));
        [("CONTAINERS_CONF", engine), ("CONTAINERS_STORAGE_CONF", storage)]
    }

    /// An image `localhost/billing:{version}` of the demo service, and its directory among the builds.
    fn install(&self, fleet: &Fleet, version: &str, behaviour: &str) {
        let root = self.path("rootfs");
        if !root.exists() {
            make_root(&root);
        }
        fs::write(root.join("behaviour.toml"), behaviour).expect("written");
        let words = [
            "/billing",
            "--version-name",
            version,
            "--behaviour",
            "/behaviour.toml",
            "--ledger",
            "/data/ledger.db",
            "--activity",
            "/data/activity.jsonl",
            "--lease-socket",
            "/run/handover/billing/lease.sock",
        ];
        let tar = self.path("image.tar").display().to_string();
        let packed = Command::new("tar").arg("-C").arg(&root).args(["-cf", &tar, "."]).status().expect("tar");
        assert!(packed.success(), "tar");
        let entry = format!("ENTRYPOINT {}", serde_json::to_string(&words).expect("words"));
        self.podman(&["import", "--quiet", "--change", &entry, &tar, &format!("billing:{version}")]);
        fs::create_dir_all(fleet.builds().join(version)).expect("made");
    }

    /// `[driver]` and `[lease]` as the page has them, with the fleet's paths and this engine.
    fn driver(&self) -> String {
        let here = |name: &str| self.path(name).display().to_string();
        let status = here("container-status");
        let variables = self.variables().map(|(name, path)| format!("{name} = {path:?}\n")).concat();
        let fitted = [
            ("\"/builds/billing\"", format!("{:?}", here("fleet/builds/billing"))),
            ("\"/run/handover/billing:", format!("\"{}:", here("fleet/app-01/run"))),
            ("\"/srv/billing:", format!("\"{}:", here("fleet"))),
            ("\"/etc/handover/container-status\"", format!("{status:?}")),
            ("\n[lease]", format!("\n[driver.env]\n{variables}\n[lease]")),
        ];
        fitted.iter().fold(sample(PAGE, "toml", 0).expect("a config"), |text, (from, to)| {
            assert_eq!(text.matches(from).count(), 1, "the page has no {from}, or several");
            text.replace(from, to)
        })
    }

    /// Name, id and start of each container.
    fn containers(&self) -> Vec<String> {
        let all = self.podman(&["ps", "--all", "--quiet", "--no-trunc"]);
        let look = |id| self.podman(&["inspect", "--format", "{{.Name}} {{.Id}} {{.State.StartedAt}}", id]);
        all.lines().map(look).collect()
    }
}

/// A test that fails leaves no container behind either.
impl Drop for Engine {
    fn drop(&mut self) {
        let mut remove = Command::new("podman");
        remove.args(["rm", "--all", "--force", "--time", "0"]).envs(self.variables()).stdin(Stdio::null());
        let removed = remove.output();
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("the engine's and the fleet's files are kept in {}; {removed:?}", self.dir.path().display());
        }
    }
}

/// The demo service and the libraries that it names.
fn make_root(root: &Path) {
    for dir in ["data", "dev", "etc", "proc", "run/handover/billing", "sys", "tmp"] {
        fs::create_dir_all(root.join(dir)).expect("made");
    }
    let billing = Binaries::find().expect("programs").path("billing");
    let stripped = Command::new("strip").arg("-o").arg(root.join("billing")).arg(&billing).status().expect("strip");
    assert!(stripped.success(), "strip");
    let named = Command::new("ldd").arg(&billing).output().expect("ldd").stdout;
    let named = String::from_utf8(named).expect("text");
    let libraries: Vec<_> = named.split_whitespace().filter(|word| word.starts_with('/')).collect();
    assert!(!libraries.is_empty(), "{named}");
    for library in libraries {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().expect("a directory")).expect("made");
        fs::copy(library, to).expect("copied");
    }
}

/// One host that serves 1.0.0 from a container.
fn serving(engine: &Engine) -> Fleet {
    let options = Options { hosts: 1, driver: engine.driver(), ..Options::default() };
    let fleet = Fleet::start_in(engine.path("fleet"), options).expect("a fleet");
    engine.install(&fleet, "1.0.0", "");
    assert_eq!(roll(&fleet, "1.0.0").0, 0);
    let held = |fleet: &Fleet| Ok(fleet.cli().status()?["lease"]["state"] == "held");
    fleet.wait_for("the scheduler lease to be held", held).expect("held");
    fleet
}

fn roll(fleet: &Fleet, version: &str) -> (i32, String) {
    let spec = Spec { min_serving: 1, shift: &["100%"], start_deadline: "30s", ..Spec::to(version) };
    let outcome = fleet.cli().roll(&spec).expect("a command");
    (outcome.code, outcome.out + &outcome.err)
}

/// The instance that serves, as the agent reports it.
fn instance(fleet: &Fleet) -> Option<Value> {
    let status = fleet.hosts[0].status().ok()?;
    let slots = status["slots"].as_array().cloned().unwrap_or_default();
    slots.iter().map(|slot| slot["instance"].clone()).find(|instance| instance["writes"] == 100)
}

fn current(fleet: &Fleet) -> String {
    fleet.cli().status().expect("status")["current_version"].as_str().unwrap_or_default().to_owned()
}

/// Kills the agent and starts it again: the container goes on, as the same instance.
fn restart_agent(engine: &Engine, fleet: &mut Fleet, load: &Load) {
    let (instance_before, containers) = (instance(fleet).expect("one serves"), engine.containers());
    fleet.hosts[0].agent.as_mut().expect("an agent").kill().expect("killed");
    fleet.start_agent(0).expect("restarted");
    let same = |fleet: &Fleet| Ok(instance(fleet).is_some_and(|now| now["instance"] == instance_before["instance"]));
    fleet.wait_for("the same instance to serve", same).expect("adopted");
    let answered = load.answered_well();
    fleet.wait_for("more to be answered", |_| Ok(load.answered_well() > answered + 30)).expect("answers");
    assert_eq!(engine.containers(), containers, "the container goes on");
}

#[test]
fn a_service_in_podman_is_upgraded_rolled_back_and_adopted_under_load_without_a_lost_request() {
    let engine = Engine::new();
    let mut fleet = serving(&engine);
    engine.install(&fleet, "1.1.0", "");
    engine.install(&fleet, "1.2.0", "bad-after-requests = 50");
    let mut spec = LoadSpec::new(fleet.gates(), 100.0);
    spec.mix = Mix { write_share: 0.2, slow_share: 0.02, slow: Duration::from_secs(1) };
    spec.timeout = Duration::from_secs(15);
    let load = Load::start(spec).expect("load");
    fleet.wait_for("the load to be answered", |_| Ok(load.answered_well() > 50)).expect("answers");

    assert_eq!(roll(&fleet, "1.1.0").0, 0);
    restart_agent(&engine, &mut fleet, &load);
    let (code, said) = roll(&fleet, "1.2.0");
    assert_eq!((code, current(&fleet).as_str()), (3, "1.1.0"), "{said}");

    let receipt = receipt(&fleet, load);
    assert!(receipt.verdict.passed && receipt.load.total.ours() == 0, "{}", table(&receipt));
    let versions = &receipt.load.total.versions;
    assert!(["1.0.0", "1.1.0", "1.2.0"].iter().all(|version| versions.get(*version) > Some(&0)), "{versions:?}");
    let one = |_: &Fleet| Ok(engine.containers().len() == 1);
    fleet.wait_for("the container of 1.2.0 to be removed", one).expect("removed");
}

#[test]
fn a_container_that_dies_is_started_again_and_one_without_an_image_is_a_failed_start() {
    let engine = Engine::new();
    let fleet = serving(&engine);
    let (before, containers) = (instance(&fleet).expect("one serves"), engine.containers());
    let id = containers[0].split(' ').nth(1).expect("an id").to_owned();
    engine.podman(&["kill", &id]);
    let another = |fleet: &Fleet| Ok(instance(fleet).is_some_and(|now| now["instance"] != before["instance"]));
    fleet.wait_for("another instance to serve", another).expect("restarted");
    assert!(engine.containers().len() == 1 && engine.containers() != containers, "{:?}", engine.containers());

    fs::create_dir_all(fleet.builds().join("1.3.0")).expect("made");
    let (code, said) = roll(&fleet, "1.3.0");
    assert_eq!((code, current(&fleet).as_str()), (3, "1.0.0"), "{said}");
    assert!(said.contains("the start command ended with exit code 125") && said.contains("image not known"), "{said}");
}
