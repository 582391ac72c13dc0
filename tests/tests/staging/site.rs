//! Three hosts with builds of their own, and a server that has the signed versions.

use std::path::PathBuf;
use std::process::Command;

use handover_tests::fleet::{Binaries, Fleet, Options, Outcome, Spec};
use serde_json::Value;

use crate::server::FileServer;

/// Files of each version, with its manifest and the signature.
pub(crate) const FILES: usize = 5;

pub(crate) struct Site {
    // Before the fleet, whose agents ask it: fields are dropped in this order.
    pub(crate) server: FileServer,
    pub(crate) fleet: Fleet,
    published: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let published = tempfile::tempdir().expect("a directory");
        handover(&["artifact", "key", &published.path().join("release.key").display().to_string()]);
        let public = std::fs::read_to_string(published.path().join("release.key.pub")).expect("a key");
        let server = FileServer::of(published.path().to_owned());
        let artifact = format!(
            "[artifact]\nkeys = [\"{}\"]\nkeep_free_bytes = 1000000\nfetch = {{ url = \
             \"http://127.0.0.1:{}/{{name}}/{{version}}/{{file}}\", timeout = \"60s\" }}",
            public.lines().nth(1).expect("a line"),
            server.port
        );
        let fleet = Fleet::start(Options { artifact, ..Options::default() }).expect("a fleet");
        Self { server, fleet, published }
    }

    /// The same, with 1.0.0 staged and serving.
    pub(crate) fn serving() -> Self {
        let site = Self::new();
        site.publish("1.0.0");
        let staged = site.stage(&["1.0.0"]);
        assert_eq!(staged.code, 0, "{}{}", staged.out, staged.err);
        let outcome = site.fleet.cli().roll(&Spec::to("1.0.0")).expect("a command");
        assert_eq!(outcome.code, 0, "bring-up: {}{}", outcome.out, outcome.err);
        site
    }

    /// Packs and signs a version, as its makers would.
    pub(crate) fn publish(&self, version: &str) {
        let dir = self.published.path().join(version);
        std::fs::create_dir(&dir).expect("made");
        let program = Binaries::find().expect("the programs").path("billing");
        let script = format!("#!/bin/sh\nexec {} \"$@\"\n", program.display());
        std::fs::write(dir.join("billing"), script).expect("written");
        make_executable(&dir.join("billing"));
        std::fs::write(dir.join("behaviour.toml"), "").expect("written");
        std::fs::write(dir.join("data"), vec![7; 1_000_000]).expect("written");
        let (dir, key) = (dir.display().to_string(), self.published.path().join("release.key").display().to_string());
        handover(&["--service", "billing", "artifact", "pack", &dir, "--version", version]);
        handover(&["artifact", "sign", &dir, "--secret-key", &key]);
    }

    /// `handover stage`, with a limit that only a fault reaches.
    pub(crate) fn stage(&self, args: &[&str]) -> Outcome {
        let args = [&["--timeout", "60s", "stage"], args].concat();
        self.fleet.cli().run(&args).expect("a command")
    }

    /// What lies in a host's builds.
    pub(crate) fn built(&self, index: usize) -> Vec<String> {
        let entries = std::fs::read_dir(&self.fleet.hosts[index].builds).expect("listed");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        // Locks, and the mark by which agents that share a directory know of each other.
        names.retain(|name| !name.ends_with(".lock") && !name.starts_with(".handover-agent-"));
        names.sort();
        names
    }

    /// The last order, as `status` shows it.
    pub(crate) fn order(&self) -> anyhow::Result<Value> {
        let status = self.fleet.cli().status()?;
        Ok(status["orders"].as_array().and_then(|orders| orders.last()).cloned().unwrap_or_default())
    }

    /// One host of the last order.
    pub(crate) fn row(&self, host: &str) -> anyhow::Result<Value> {
        let order = self.order()?;
        let rows = order["hosts"].as_array().cloned().unwrap_or_default();
        Ok(rows.into_iter().find(|row| row["agent"] == host).unwrap_or_default())
    }

    /// Which instances serve, and by which assignments.
    pub(crate) fn serves(&self) -> Vec<(String, String, String, i64)> {
        let status = self.fleet.cli().status().expect("a status");
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let row = |row: &Value| {
            let serial = row["accepted"].as_i64().unwrap_or_default();
            (text(row, "agent"), text(row, "instance"), text(row, "reported"), serial)
        };
        status["fleet"].as_array().expect("rows").iter().map(row).collect()
    }

    /// Changes a host's config, and starts its agent anew.
    pub(crate) fn configure(&mut self, index: usize, from: &str, to: &str) {
        let config = self.fleet.hosts[index].config.clone();
        let text = std::fs::read_to_string(&config).expect("a config");
        assert!(text.contains(from), "{text}");
        std::fs::write(&config, text.replace(from, to)).expect("written");
        self.fleet.hosts[index].agent.as_mut().expect("an agent").kill().expect("killed");
        self.fleet.start_agent(index).expect("started");
        let name = self.fleet.hosts[index].name.clone();
        let heard = |fleet: &Fleet| {
            let status = fleet.cli().status()?;
            let rows = status["fleet"].as_array().cloned().unwrap_or_default();
            Ok(rows.iter().filter(|row| row["agent"] == *name).all(|row| row["alive"] == true && row["gate"] == true))
        };
        self.fleet.wait_for("the agent to be heard again", heard).expect("heard");
    }
}

fn handover(args: &[&str]) {
    let program: PathBuf = Binaries::find().expect("the programs").path("handover");
    let output = Command::new(program).args(args).output().expect("handover runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn make_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("executable");
}
