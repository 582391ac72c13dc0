//! One host with one slot, kept by the `exec` driver, whose commands are a script.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use handover_agent::config::Config;
use handover_agent::core::next::Effect;
use handover_agent::driver::{Driver, Opening, Owner, Told};
use handover_agent::host::Host;
use handover_agent::place::{Place, Running};
use handover_agent::state::StateFile;
use handover_proto::ids::SlotId;
use tokio::sync::{Notify, mpsc};

/// Far above what anything here takes.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// Files in its directory change what it does: `busy` (kill fails), `hold-start` and `hold-kill` (they wait until it is gone).
const ENGINE: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
while [ -e "hold-$1" ]; do touch "held-$1"; sleep 0.02; done
case $1 in
start) setsid sleep 300 >/dev/null 2>&1 </dev/null & echo $! > pid ;;
stop) ;;
kill) [ -e busy ] && { echo "the engine is busy"; exit 1; }; [ -e pid ] && kill -9 "$(cat pid)"; rm -f pid ;;
status) [ -e pid ] || exit 3; cat pid ;;
esac
"#;

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: Host,
    told: mpsc::Receiver<Told>,
}

pub(crate) fn slot() -> SlotId {
    "a".parse().expect("a slot")
}

impl Site {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["builds/1.5.0", "state", "run"] {
            fs::create_dir_all(dir.path().join(name)).expect("made");
        }
        let engine = dir.path().join("engine");
        fs::write(&engine, ENGINE).expect("written");
        fs::set_permissions(&engine, Permissions::from_mode(0o755)).expect("executable");
        let config = Arc::new(config(dir.path()));
        let (owner, wake) = (owner(&config), Arc::new(Notify::new()));
        let opening = Opening {
            owner,
            slots: config.slots.keys().cloned().collect(),
            runtime_dir: config.runtime_dir.clone(),
            finish: config.finish(),
            wake: Arc::clone(&wake),
        };
        let (driver, told) = Driver::open(&config.driver, opening).await.expect("a driver");
        let file = StateFile::open(&config.state_dir).expect("a state file");
        let host = Host::take_over(config, Arc::new(driver), file, "boot".into(), wake).await.expect("a host");
        Self { dir, host, told }
    }

    pub(crate) fn set(&self, name: &str) {
        fs::write(self.dir.path().join(name), "").expect("written");
    }

    pub(crate) fn unset(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).expect("removed");
    }

    pub(crate) fn start() -> Effect {
        Effect::Start { slot: slot(), version: "1.5.0".parse().expect("a version") }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.host.places[&slot()]
    }

    pub(crate) fn running(&self) -> &Running {
        self.place().running.as_ref().expect("it runs")
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.dir.path().join(name).exists()
    }

    /// What its status command calls the process, as the state file knows it.
    pub(crate) fn pid(&self) -> Option<&str> {
        let record = self.host.file.state.instances.get(&slot())?.process.as_ref()?;
        record.command.as_deref().filter(|name| !name.is_empty())
    }

    /// As an agent that ends.
    pub(crate) async fn await_starts(&mut self) {
        let heard = self.host.await_starts(&mut self.told);
        tokio::time::timeout(LONG, heard).await.expect("no start is under way");
    }

    /// Hears the driver, as the agent's loop does, until something holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LONG;
        while !holds(self) {
            assert!(Instant::now() < end, "never came true: {what}");
            let pause = Duration::from_millis(20);
            let trouble = match tokio::time::timeout(pause, self.told.recv()).await {
                Ok(told) => self.host.told(&told.expect("the driver lives")),
                Err(_) => None,
            };
            assert_eq!(trouble, None);
        }
    }
}

/// A test that fails leaves no process behind either.
impl Drop for Site {
    fn drop(&mut self) {
        for name in ["busy", "hold-start", "hold-kill"] {
            fs::remove_file(self.dir.path().join(name)).ok();
        }
        std::process::Command::new(self.dir.path().join("engine")).arg("kill").status().ok();
    }
}

fn owner(config: &Config) -> Owner {
    Owner {
        env: config.env.clone(),
        service: config.service.clone(),
        agent: config.agent.clone(),
        state_dir: config.state_dir.clone(),
    }
}

fn config(dir: &Path) -> Config {
    let text = format!(
        r#"
        agent = "app-01"
        service = "billing"
        listen = "127.0.0.1:7001"
        operations = "127.0.0.1:7002"
        state_dir = "{dir}/state"
        runtime_dir = "{dir}/run"
        [gate]
        mode = "proxy"
        listen = "127.0.0.1:7003"
        [driver]
        kind = "exec"
        builds = "{dir}/builds"
        start = ["{dir}/engine", "start"]
        stop = ["{dir}/engine", "stop"]
        kill = ["{dir}/engine", "kill"]
        status = ["{dir}/engine", "status"]
        every = "20ms"
        [[probe]]
        name = "ready"
        http = {{ path = "/" }}
        affects = "ready"
        [[slot]]
        name = "a"
        port = 7004
        "#,
        dir = dir.display(),
    );
    Config::parse(Path::new("test.toml"), &text).expect("a config")
}
