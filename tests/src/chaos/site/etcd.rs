//! Three etcd members, each on a host of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd_client::{Client, ConnectOptions};
use serde_json::Value;

use super::net::Spot;
use super::{launch, wait_for};
use crate::fleet::Process;

/// Clients and peers.
const CLIENT: u16 = 2379;
const PEER: u16 = 2380;
/// A call of ours to a member that answers at all.
const LIMIT: Duration = Duration::from_secs(2);

/// One member.
#[derive(Debug)]
pub struct Member {
    /// Where it runs.
    pub spot: Spot,
    /// Its process, while it runs.
    pub process: Option<Process>,
    data: PathBuf,
    /// How often one was removed there.
    removed: u32,
}

/// The members.
#[derive(Debug)]
pub struct Cluster {
    /// In the order of their names.
    pub members: Vec<Member>,
    /// The directory of the programs `etcd`, `etcdctl` and, from 3.5 on, `etcdutl`.
    programs: PathBuf,
    dir: PathBuf,
    /// Counts restores: each has data of its own.
    life: u32,
    /// Makes the cluster's id, together with the members' addresses.
    token: String,
}

impl Member {
    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        format!("http://{}:{CLIENT}", self.spot.ip)
    }

    fn peer(&self) -> String {
        format!("http://{}:{PEER}", self.spot.ip)
    }

    /// Its process id.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().with_context(|| format!("{} does not run", self.spot.name))?.pid())
    }
}

impl Cluster {
    /// Starts a new cluster on these hosts.
    ///
    /// # Errors
    /// If a member does not come up.
    pub fn start(programs: &Path, dir: &Path, spots: Vec<Spot>) -> Result<Self> {
        let member =
            |spot: Spot| Member { data: dir.join(format!("{}-0", spot.name)), spot, process: None, removed: 0 };
        let members = spots.into_iter().map(member).collect();
        let (programs, dir, token) = (programs.to_owned(), dir.to_owned(), "life-0".to_owned());
        let mut cluster = Self { members, programs, dir, life: 0, token };
        for index in 0..cluster.members.len() {
            cluster.start_member(index)?;
        }
        cluster.wait_healthy()?;
        Ok(cluster)
    }

    /// Starts a member on the data that it has.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_member(&mut self, index: usize) -> Result<()> {
        self.launch(index, "new")
    }

    /// Kills a member and removes it from the others' list; its data is gone.
    ///
    /// # Errors
    /// If no other member agrees.
    pub fn remove_member(&mut self, index: usize) -> Result<()> {
        let id = self.id(index)?;
        if let Some(mut process) = self.members[index].process.take() {
            process.kill()?;
        }
        let other = (index + 1) % self.members.len();
        wait_for(&format!("{} to be removed", self.members[index].spot.name), || {
            Ok(self.ctl(other, &["member", "remove", &id]).is_ok()
                || !self.ctl(other, &["member", "list"])?.contains(&id))
        })?;
        self.members[index].removed += 1;
        let member = &mut self.members[index];
        member.data = self.dir.join(format!("{}-{}-{}", member.spot.name, self.life, member.removed));
        Ok(())
    }

    /// Adds a new member at the address of one that was removed.
    ///
    /// # Errors
    /// If the others do not agree: they do once they have been together for five seconds.
    pub fn add_member(&mut self, index: usize) -> Result<()> {
        let (name, peer) = (self.members[index].spot.name.clone(), self.members[index].peer());
        let other = (index + 1) % self.members.len();
        wait_for(&format!("a new {name} to be added"), || {
            let added = self.ctl(other, &["member", "add", &name, &format!("--peer-urls={peer}")]);
            let known = || self.ctl(other, &["member", "list"]).is_ok_and(|list| list.contains(&peer));
            added.map(drop).or_else(|error| if known() { Ok(()) } else { Err(error) }).map(|()| true)
        })?;
        self.launch(index, "existing")
    }

    fn launch(&mut self, index: usize, state: &str) -> Result<()> {
        let initial = self.initial();
        let life = self.token.clone();
        let member = &mut self.members[index];
        let (client, peer, data) = (member.endpoint(), member.peer(), member.data.display().to_string());
        let local = format!("http://127.0.0.1:{CLIENT}");
        let args = [
            ("--name", member.spot.name.as_str()),
            ("--data-dir", &data),
            ("--listen-client-urls", &format!("{client},{local}")),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
            ("--initial-cluster", &initial),
            ("--initial-cluster-token", &life),
            ("--initial-cluster-state", state),
        ];
        let args = args.iter().flat_map(|(name, value)| [(*name).to_owned(), (*value).to_owned()]).collect();
        let program = self.programs.join("etcd");
        member.process = Some(launch(&member.spot, &member.spot.name, &program, args, &self.dir, &[])?);
        Ok(())
    }

    fn initial(&self) -> String {
        let all: Vec<_> = self.members.iter().map(|m| format!("{}={}", m.spot.name, m.peer())).collect();
        all.join(",")
    }

    /// Where clients reach them.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(Member::endpoint).collect()
    }

    /// Waits until every running member answers a linearizable read.
    ///
    /// # Errors
    /// If that takes too long.
    pub fn wait_healthy(&self) -> Result<()> {
        for (index, member) in self.members.iter().enumerate().filter(|(_, member)| member.process.is_some()) {
            wait_for(&format!("{} to answer", member.spot.name), || Ok(self.ctl(index, &["get", "x"]).is_ok()))?;
        }
        Ok(())
    }

    /// Runs `etcdctl` against one member; what it printed.
    ///
    /// # Errors
    /// If it fails; with what it said.
    pub fn ctl(&self, index: usize, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.programs.join("etcdctl"));
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.members[index].endpoint()]);
        command.args(["--dial-timeout", "1s", "--command-timeout", "2s"]).args(args).stdin(Stdio::null());
        said(command)
    }

    /// Index of the member that leads, if one that answers says that there is one.
    pub fn leader(&self) -> Option<usize> {
        (0..self.members.len()).find(|index| {
            let status = self.ctl(*index, &["endpoint", "status", "-w", "json"]).unwrap_or_default();
            let status: Value = serde_json::from_str(&status).unwrap_or_default();
            let status = &status[0]["Status"];
            !status["leader"].is_null() && status["leader"] == status["header"]["member_id"]
        })
    }

    /// A member's id.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn id(&self, index: usize) -> Result<String> {
        let status: Value = serde_json::from_str(&self.ctl(index, &["endpoint", "status", "-w", "json"])?)?;
        let id = status[0]["Status"]["header"]["member_id"].as_u64().context("no member id")?;
        Ok(format!("{id:x}"))
    }

    /// A snapshot of one member, in a file of this name.
    ///
    /// # Errors
    /// If it fails.
    pub fn snapshot(&self, index: usize, name: &str) -> Result<PathBuf> {
        let file = self.dir.join(name);
        self.ctl(index, &["snapshot", "save", &file.display().to_string()])?;
        Ok(file)
    }

    /// Kills all members.
    ///
    /// # Errors
    /// If one had ended already.
    pub fn kill_all(&mut self) -> Result<()> {
        let running = self.members.iter_mut().filter_map(|member| member.process.take());
        running.into_iter().try_for_each(|mut process| process.kill())
    }

    /// Begins a new cluster from a snapshot, after [`Cluster::kill_all`]. If `alike`, with the token of the one before, and so
    /// with its id.
    ///
    /// # Errors
    /// If it cannot be restored or does not come up.
    pub fn restore(&mut self, snapshot: &Path, alike: bool) -> Result<()> {
        self.life += 1;
        if !alike {
            self.token = format!("life-{}", self.life);
        }
        let (initial, life) = (self.initial(), self.token.clone());
        let utl = self.programs.join("etcdutl");
        let program = if utl.is_file() { utl } else { self.programs.join("etcdctl") };
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            member.data = self.dir.join(format!("{}-{}", member.spot.name, self.life));
            let mut command = Command::new(&program);
            command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot).stdin(Stdio::null());
            command
                .args(["--name", &member.spot.name, "--initial-cluster", &initial])
                .arg("--data-dir")
                .arg(&member.data);
            command.args(["--initial-advertise-peer-urls", &member.peer(), "--initial-cluster-token", &life]);
            said(command)?;
        }
        for index in 0..self.members.len() {
            self.start_member(index)?;
        }
        self.wait_healthy()
    }

    /// A client of one member. To be used on one runtime.
    ///
    /// # Errors
    /// If the address is none.
    pub async fn client(endpoint: &str) -> Result<Client> {
        let options = ConnectOptions::new().with_connect_timeout(LIMIT).with_timeout(LIMIT);
        Ok(Client::connect([endpoint], Some(options)).await?)
    }
}

fn said(mut command: Command) -> Result<String> {
    let output = command.output().context("cannot run etcd's own tools")?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
