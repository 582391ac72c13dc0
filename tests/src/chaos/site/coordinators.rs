//! Two coordinators, each on a host of its own, and the operator who gives orders to whichever leads. With them come
//! certificates: beyond loopback our own processes speak TLS alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use handover_proto::ids::Env;
use handover_proto::peer::{PeerName, Role};
use handover_tls::TlsFiles;
use serde_json::Value;

use super::etcd::Cluster;
use super::net::Spot;
use super::{launch, wait_for};
use crate::chaos::stand_in;
use crate::fleet::Process;
use crate::pki::{Pki, Subject};

const PORT: u16 = 2791;
const ENV: &str = "demo";
/// How often a rollout is started until one ends well.
const STARTS: usize = 3;

/// Who signs for the site.
pub struct Authority {
    pki: Pki,
    env: Env,
}

/// One coordinator.
#[derive(Debug)]
pub struct Coordinator {
    /// Where it runs.
    pub spot: Spot,
    /// Its process, while it runs.
    pub process: Option<Process>,
}

/// All of them.
#[derive(Debug)]
pub struct Coordinators {
    /// In the order of their names.
    pub members: Vec<Coordinator>,
    /// How they are asked.
    pub operator: Operator,
    files: TlsFiles,
}

/// Somebody at a terminal.
#[derive(Debug, Clone)]
pub struct Operator {
    program: PathBuf,
    dir: PathBuf,
    addresses: Vec<String>,
    store: String,
    files: TlsFiles,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// Everything that it said.
    pub said: String,
}

impl Authority {
    /// A new one, with its files in `dir`.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        Ok(Self { pki: Pki::new(&dir.join("pki"))?, env: ENV.parse()? })
    }

    fn issue(&self, file: &str, role: Role) -> Result<TlsFiles> {
        self.pki.issue(file, &Subject::named(file).uri(PeerName::new(&self.env, role)))
    }

    /// The line of an agent's config.
    ///
    /// # Errors
    /// If its files cannot be written.
    pub fn of_agent(&self, name: &str) -> Result<String> {
        let TlsFiles { ca, cert, key, .. } = self.issue(name, Role::Agent(name.parse()?))?;
        Ok(format!("tls = {{ ca = {ca:?}, cert = {cert:?}, key = {key:?} }}"))
    }
}

fn variables(files: &TlsFiles) -> [(&'static str, String); 3] {
    let path = |path: &PathBuf| path.display().to_string();
    [
        ("HANDOVER_TLS_CA", path(&files.ca)),
        ("HANDOVER_TLS_CERT", path(&files.cert)),
        ("HANDOVER_TLS_KEY", path(&files.key)),
    ]
}

impl Coordinator {
    fn address(&self) -> String {
        SocketAddr::from((self.spot.ip, PORT)).to_string()
    }
}

impl Coordinators {
    /// Certificates for them and for an operator; nothing runs yet.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn new(dir: &Path, program: PathBuf, authority: &Authority, spots: Vec<Spot>, etcd: &Cluster) -> Result<Self> {
        let members: Vec<_> = spots.into_iter().map(|spot| Coordinator { spot, process: None }).collect();
        let operator = Operator {
            program,
            dir: dir.to_owned(),
            addresses: members.iter().map(Coordinator::address).collect(),
            store: etcd.endpoints().join(","),
            files: authority.issue("alice", Role::Operator("alice".parse()?))?,
        };
        Ok(Self { members, operator, files: authority.issue("coordinator", Role::Coordinator)? })
    }

    /// Starts one.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&mut self, index: usize) -> Result<()> {
        let Operator { program, dir, store, .. } = &self.operator;
        let member = &mut self.members[index];
        let data = dir.join(&member.spot.name).display().to_string();
        let words = ["--env", ENV, "--store", store, "serve", "--listen", &member.address(), "--data", &data];
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        member.process = Some(launch(&member.spot, &member.spot.name, program, words, dir, &variables(&self.files))?);
        Ok(())
    }

    /// Starts all, and waits until one leads.
    ///
    /// # Errors
    /// If none does.
    pub fn start_all(&mut self, etcd: &Cluster) -> Result<()> {
        for index in 0..self.members.len() {
            self.start(index)?;
        }
        wait_for("a coordinator to lead", || Ok(self.leader(etcd).is_ok()))
    }

    /// Which one the leader key names.
    ///
    /// # Errors
    /// If it names none of them, or no member answers.
    pub fn leader(&self, etcd: &Cluster) -> Result<usize> {
        let (env, _) = stand_in::keys()?;
        let member = etcd.leader().context("no etcd member leads")?;
        let named = etcd.ctl(member, &["get", "--print-value-only", &env.leader()])?;
        let named: Value = serde_json::from_str(named.trim()).context("no coordinator leads")?;
        let is = |member: &Coordinator| named["endpoint"].as_str() == Some(&member.address());
        self.members.iter().position(is).with_context(|| format!("a stranger leads: {named}"))
    }
}

impl Operator {
    /// Runs a command of `handover` to its end.
    ///
    /// # Errors
    /// If it cannot be started, or is ended by a signal.
    pub fn run(&self, words: &[&str]) -> Result<Ended> {
        let Output { status, stdout, stderr } = self.command(words).output().context("cannot run handover")?;
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        let code = status.code().with_context(|| format!("handover {words:?} was ended by a signal"))?;
        Ok(Ended { code, said })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--env", ENV, "--store", &self.store, "--coordinator", &self.addresses.join(",")]);
        command.args(words).env("NO_COLOR", "1").envs(variables(&self.files)).stdin(Stdio::null());
        command
    }

    /// How many agents the coordinators hear, with their gates.
    fn heard(&self) -> Result<usize> {
        let said = self.run(&["--json", "rollout", "status"])?.said;
        let said: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).context(said)?;
        let rows = said["fleet"].as_array().cloned().unwrap_or_default();
        Ok(rows.iter().filter(|row| row["alive"] == true && row["gate"] == true).count())
    }

    /// Brings a version up on so many hosts, once all are heard.
    ///
    /// # Errors
    /// If the rollout does not end well.
    pub fn bring_up(&self, spec: &str, hosts: usize) -> Result<()> {
        wait_for("the coordinators to hear every agent", || Ok(self.heard()? >= hosts))?;
        let file = self.dir.join("bring-up.toml");
        std::fs::write(&file, spec)?;
        let start = || self.run(&["--timeout", "90s", "rollout", "start", &file.display().to_string()]);
        let mut ended = start()?;
        // On a busy machine a coordinator may not answer in time, or a service end while it starts.
        for _ in 1..STARTS {
            if ended.code != 0 {
                ended = start()?;
            }
        }
        if ended.code == 0 { Ok(()) } else { bail!("not brought up (exit code {}): {}", ended.code, ended.said) }
    }

    /// Asks for a hand-over; whether the heir worked in time.
    ///
    /// # Errors
    /// If the command cannot be run.
    pub fn hand_over(&self) -> Result<bool> {
        Ok(self.run(&["--timeout", "6s", "lease", "handoff", "--because", "chaos"])?.code == 0)
    }

    /// The same, and does not wait for what comes of it.
    ///
    /// # Errors
    /// If nobody took the order.
    pub fn order_hand_over(&self) -> Result<()> {
        let ended = self.run(&["--timeout", "3s", "lease", "handoff", "--detach", "--because", "chaos"])?;
        if ended.code == 0 { Ok(()) } else { bail!("no hand-over was ordered: {}", ended.said.trim()) }
    }

    /// Two people raise the era.
    ///
    /// # Errors
    /// If the command fails.
    pub fn raise_era(&self) -> Result<()> {
        let words = ["lease", "era", "--raise", "--by", "ann", "--second", "bob", "--because", "a restore"];
        let ended = self.run(&words)?;
        if ended.code == 0 { Ok(()) } else { bail!("the era was not raised: {}", ended.said.trim()) }
    }
}
