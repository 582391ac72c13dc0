//! A real etcd cluster of three members on loopback, with TLS if a PKI is given. Dropping it ends them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use handover_store::client::{Access, Store};
use handover_tls::TlsFiles;

use crate::fleet::{Process, free_ports};
use crate::pki::Pki;

/// Three members of this program.
pub struct Cluster {
    dir: tempfile::TempDir,
    members: Vec<Process>,
    clients: Vec<SocketAddr>,
    tls: bool,
}

/// How long three members may take to elect a leader.
const START: Duration = Duration::from_secs(30);

impl Cluster {
    /// Starts three members of `program`; with `pki` every connection, also between them, is mutual TLS.
    ///
    /// # Errors
    /// If they cannot be started, or do not come up.
    pub fn start(program: &Path, pki: Option<&Pki>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("handover-etcd-").tempdir()?;
        let ports = free_ports(6)?;
        let (clients, peers) = ports.split_at(3);
        let scheme = if pki.is_some() { "https" } else { "http" };
        let url = |port: &u16| format!("{scheme}://127.0.0.1:{port}");
        let all: Vec<String> = peers.iter().enumerate().map(|(n, port)| format!("etcd-{n}={}", url(port))).collect();
        let mut cluster = Self { dir, members: Vec::new(), clients: Vec::new(), tls: pki.is_some() };
        for (number, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let name = format!("etcd-{number}");
            let data = cluster.dir.path().join(&name).display().to_string();
            let mut args = vec!["--name".to_owned(), name.clone(), "--data-dir".into(), data];
            args.extend(["--logger", "zap", "--log-level", "warn"].map(str::to_owned));
            args.extend([
                "--listen-client-urls".to_owned(),
                url(client),
                "--advertise-client-urls".into(),
                url(client),
            ]);
            args.extend([
                "--listen-peer-urls".to_owned(),
                url(peer),
                "--initial-advertise-peer-urls".into(),
                url(peer),
            ]);
            args.extend(["--initial-cluster".to_owned(), all.join(",")]);
            if let Some(pki) = pki {
                args.extend(tls(&pki.server(&name)?));
            }
            cluster.members.push(Process::spawn(&name, program, &args, cluster.dir.path(), &[])?);
            cluster.clients.push(SocketAddr::from(([127, 0, 0, 1], *client)));
        }
        let files = pki.map(|pki| pki.server("health")).transpose()?;
        cluster.wait_until_healthy(files.as_ref())?;
        Ok(cluster)
    }

    /// The members' client addresses.
    pub fn endpoints(&self) -> Vec<String> {
        let scheme = if self.tls { "https" } else { "http" };
        self.clients.iter().map(|address| format!("{scheme}://{address}")).collect()
    }

    /// The same, without a scheme.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.clients
    }

    /// The way to them with this certificate.
    pub fn access(&self, files: &TlsFiles) -> Access {
        Access { endpoints: self.endpoints(), tls: Some(files.clone()) }
    }

    /// A store with this certificate.
    ///
    /// # Errors
    /// If the files cannot be used.
    pub fn store(&self, files: &TlsFiles) -> Result<Store> {
        Ok(Store::open(&self.access(files))?)
    }

    /// Runs `etcdctl` with this certificate; returns what it wrote.
    ///
    /// # Errors
    /// If it cannot be run, or fails; with what it wrote.
    pub fn etcdctl(&self, files: &TlsFiles, args: &[&str]) -> Result<String> {
        self.ask(Some(files), args)
    }

    fn ask(&self, files: Option<&TlsFiles>, args: &[&str]) -> Result<String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.endpoints().join(","));
        if let Some(files) = files {
            command.arg("--cacert").arg(&files.ca).arg("--cert").arg(&files.cert).arg("--key").arg(&files.key);
        }
        let done = command.args(args).output().context("cannot run etcdctl")?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        if done.status.success() { Ok(said) } else { bail!("etcdctl {}: {said}", args.join(" ")) }
    }

    /// Where a member writes its log.
    pub fn log(&self, member: usize) -> PathBuf {
        self.members[member].log.clone()
    }

    /// Kills a member.
    ///
    /// # Errors
    /// If it had ended already.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        self.members[member].kill()
    }

    /// A member listens long before there is a leader; healthy is one that has answered a linearizable read.
    fn wait_until_healthy(&mut self, files: Option<&TlsFiles>) -> Result<()> {
        let end = Instant::now() + START;
        while let Err(error) = self.ask(files, &["endpoint", "health"]) {
            if let Some(member) = self.members.iter_mut().find_map(|member| member.has_ended().then_some(member)) {
                bail!("an etcd member ended: {}", member.output());
            }
            if Instant::now() > end {
                return Err(error.context(format!("three etcd members did not come up: {}", self.members[0].output())));
            }
            // The members are other processes; there is nothing to wait on but the clock.
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            // One that a test killed is gone already.
            let _gone = member.kill();
        }
    }
}

fn tls(files: &TlsFiles) -> Vec<String> {
    let file = |path: &Path| path.display().to_string();
    let mut args = Vec::new();
    for of in ["", "peer-"] {
        args.extend([format!("--{of}trusted-ca-file"), file(&files.ca), format!("--{of}cert-file"), file(&files.cert)]);
        args.extend([format!("--{of}key-file"), file(&files.key), format!("--{of}client-cert-auth")]);
    }
    args
}
