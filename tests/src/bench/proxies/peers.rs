//! The proxies side by side, each with one process or one worker, in front of one nginx.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::configs::{self, Front};
use super::load::Scenario;
use super::routes::Routes;
use crate::bench::idle::cpu;
use crate::fleet::{Binaries, Process, free_ports};
use crate::pki::{Pki, Subject};

/// Nothing here takes longer to start.
const LIMIT: Duration = Duration::from_secs(10);
const LARGE_BYTES: usize = 1 << 20;

/// What is in front of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    Direct,
    Gate,
    Haproxy,
    Nginx,
}

/// How clients speak to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Variant {
    Plain,
    Http2,
    Tls,
}

impl Peer {
    pub(super) const ALL: [Self; 4] = [Self::Direct, Self::Gate, Self::Haproxy, Self::Nginx];
    pub(super) const PROXIES: [Self; 3] = [Self::Gate, Self::Haproxy, Self::Nginx];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Gate => "gate",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }
}

impl Variant {
    const ALL: [Self; 3] = [Self::Plain, Self::Http2, Self::Tls];
}

/// A program that ends with this value, with all that it started.
pub(super) struct Started(pub(super) Process);

impl Drop for Started {
    fn drop(&mut self) {
        if self.0.signal(Signal::SIGTERM).is_err() || self.0.wait().is_err() {
            eprintln!("process {} may be left over", self.0.pid());
        }
    }
}

/// One process of a proxy, which serves one variant.
pub(super) struct Running {
    pub(super) front: Front,
    /// Its config file.
    pub(super) config: PathBuf,
    pub(super) process: Started,
    /// Of a gate: its routes, in the agent's place.
    pub(super) routes: Option<Routes>,
}

/// Everything that runs.
pub(super) struct Site {
    pub(super) proxies: BTreeMap<(Peer, Variant), Running>,
    direct: BTreeMap<Variant, SocketAddr>,
    /// Two listeners of the same backend, for switches from one to the other.
    pub(super) backends: [SocketAddr; 2],
    _backend: Started,
    _dir: tempfile::TempDir,
}

impl Site {
    pub(super) fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let ports = free_ports(4 + 3 * 3 * 3)?;
        let mut addresses = ports.into_iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let mut next = || addresses.next().context("ports");
        std::fs::write(dir.path().join("large"), vec![b'x'; LARGE_BYTES])?;
        std::fs::write(dir.path().join("small"), "0123456789012345678901234567890123")?;
        certificate(dir.path())?;
        let backends = [next()?, next()?];
        let direct =
            BTreeMap::from([(Variant::Plain, backends[0]), (Variant::Http2, next()?), (Variant::Tls, next()?)]);
        let backend = configs::backend(dir.path(), backends, direct[&Variant::Http2], direct[&Variant::Tls]);
        let backend = spawn(dir.path(), "backend", Peer::Nginx, &backend)?;
        let mut proxies = BTreeMap::new();
        for variant in Variant::ALL {
            for peer in Peer::PROXIES {
                let front = Front { dir: dir.path().to_owned(), variant, listen: next()?, others: [next()?, next()?] };
                proxies.insert((peer, variant), Running::start(peer, front, backends)?);
            }
        }
        let site = Self { proxies, direct, backends, _backend: backend, _dir: dir };
        site.direct.values().try_for_each(|address| answers(*address))?;
        Ok(site)
    }

    pub(super) fn address(&self, peer: Peer, variant: Variant) -> Result<SocketAddr> {
        let proxy = self.proxies.get(&(peer, variant)).map(|running| running.front.listen);
        proxy.or_else(|| self.direct.get(&variant).copied()).context("nothing runs there")
    }

    pub(super) fn url(&self, peer: Peer, scenario: Scenario) -> Result<String> {
        let scheme = if scenario.variant() == Variant::Tls { "https" } else { "http" };
        Ok(format!("{scheme}://{}{}", self.address(peer, scenario.variant())?, scenario.path()))
    }

    /// CPU time of all processes of a peer so far; none without a proxy.
    pub(super) fn cpu(&self, peer: Peer, variant: Variant) -> Result<Duration> {
        let Some(running) = self.proxies.get(&(peer, variant)) else { return Ok(Duration::ZERO) };
        running.pids().into_iter().map(cpu).sum()
    }
}

impl Running {
    fn start(peer: Peer, front: Front, backends: [SocketAddr; 2]) -> Result<Self> {
        let name = format!("{}-{:?}", peer.name(), front.variant);
        let config = front.dir.join(format!("{name}.conf"));
        let process = spawn(&front.dir, &name, peer, &front.config(peer, backends[0]))?;
        answers(front.listen).with_context(|| format!("{name} does not answer: {}", process.0.output()))?;
        let routes = match peer {
            Peer::Gate => Some(Routes::connect(&front.run_dir().join("gate.sock"), backends)?),
            _ => None,
        };
        Ok(Self { front, config, process, routes })
    }

    /// The process and those that it started.
    pub(super) fn pids(&self) -> Vec<u32> {
        let mut all = vec![self.process.0.pid()];
        let mut at = 0;
        while let Some(pid) = all.get(at).copied() {
            let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            at += 1;
        }
        all
    }
}

fn spawn(dir: &Path, name: &str, peer: Peer, config: &str) -> Result<Started> {
    let file: PathBuf = dir.join(format!("{name}.conf"));
    std::fs::write(&file, config)?;
    let file = file.display().to_string();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let (program, args) = match peer {
        Peer::Gate => (Binaries::find()?.path("handover-agent"), words(&["gate", "--config", &file])),
        Peer::Haproxy => ("/usr/sbin/haproxy".into(), words(&["-W", "-db", "-f", &file])),
        Peer::Nginx => ("/usr/sbin/nginx".into(), words(&["-c", &file])),
        Peer::Direct => bail!("no proxy is no program"),
    };
    let process = Process::spawn(name, &program, &args, dir, &[]);
    process.map(Started).with_context(|| format!("`tests/run --tools` installs {}", program.display()))
}

fn answers(address: SocketAddr) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while TcpStream::connect(address).is_err() {
        anyhow::ensure!(Instant::now() < end, "nobody listens on {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// One for all: key and certificate apart, as nginx and the gate take them, and together, as HAProxy does.
fn certificate(dir: &Path) -> Result<()> {
    let pki = Pki::new(&dir.join("pki"))?;
    let subject = Subject { addresses: vec![Ipv4Addr::LOCALHOST.into()], ..Subject::named("bench") };
    let files = pki.issue("bench", &subject)?;
    let (certificate, key) = (std::fs::read(&files.cert)?, std::fs::read(&files.key)?);
    std::fs::write(dir.join("cert.pem"), &certificate)?;
    std::fs::write(dir.join("key.pem"), &key)?;
    std::fs::write(dir.join("both.pem"), [certificate, key].concat())?;
    Ok(())
}
