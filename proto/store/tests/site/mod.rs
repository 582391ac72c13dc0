//! A store in a process of its own, embedded or etcd, that a test may stop, freeze, kill and start again.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use handover_store::client::Store;
use handover_store::server::{ServerOptions, serve};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Runs each function of the list against the embedded store and against etcd.
#[allow(unused_macros, reason = "each test binary uses its own part")]
macro_rules! contract {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $name() -> anyhow::Result<()> {
                super::$name(crate::site::Site::embedded()?).await
            })*
        }
        mod etcd {
            $(#[tokio::test] async fn $name() -> anyhow::Result<()> {
                match crate::site::Site::etcd()? { Some(site) => super::$name(site).await, None => Ok(()) }
            })*
        }
    };
}

/// Names an etcd binary; without it the contract runs against the embedded store alone.
const ETCD: &str = "HANDOVER_TEST_ETCD";
const DATA: &str = "HANDOVER_TEST_STORE_DATA";
const LISTEN: &str = "HANDOVER_TEST_STORE_LISTEN";
/// The test (in each binary that uses a site) that becomes the store's process.
const STORE_PROCESS: &str = "this_binary_becomes_a_store_when_the_environment_says_so";
/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

enum Kind {
    Embedded,
    EmbeddedWithLimit(u32),
    Etcd(PathBuf),
}

/// One store and its data directory.
pub(crate) struct Site {
    kind: Kind,
    data: TempDir,
    address: SocketAddr,
    peer: SocketAddr,
    process: Option<Child>,
}

impl Site {
    pub(crate) fn embedded() -> Result<Self> {
        Self::start(Kind::Embedded)
    }

    /// One whose files cannot grow beyond `limit_kib`: its disk is full, as it were.
    pub(crate) fn embedded_with_limit(limit_kib: u32) -> Result<Self> {
        Self::start(Kind::EmbeddedWithLimit(limit_kib))
    }

    /// Takes that limit away, from the next run on.
    pub(crate) fn lift_limit(&mut self) {
        self.kind = Kind::Embedded;
    }

    /// `None`, said loudly, where no etcd is named.
    pub(crate) fn etcd() -> Result<Option<Self>> {
        match std::env::var_os(ETCD) {
            Some(binary) => Self::start(Kind::Etcd(binary.into())).map(Some),
            None => {
                eprintln!("SKIPPED: not run against etcd, because {ETCD} does not name an etcd binary");
                Ok(None)
            }
        }
    }

    fn start(kind: Kind) -> Result<Self> {
        let [address, peer] = free_addresses()?;
        let mut site = Self { kind, data: TempDir::new()?, address, peer, process: None };
        site.run()?;
        Ok(site)
    }

    /// Starts the process (again), on the same data and address.
    pub(crate) fn run(&mut self) -> Result<()> {
        assert!(self.process.is_none(), "it runs already");
        let child = match &self.kind {
            Kind::Embedded => embedded(Command::new(std::env::current_exe()?), self.data.path(), self.address)?,
            Kind::EmbeddedWithLimit(kib) => embedded(limited(*kib)?, self.data.path(), self.address)?,
            Kind::Etcd(binary) => etcd(binary, self.data.path(), self.address, self.peer)?,
        };
        self.process = Some(child);
        Ok(())
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::connect(&[self.endpoint()])?)
    }

    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    /// kill -9, and gone when this returns.
    pub(crate) fn kill(&mut self) -> Result<()> {
        let mut child = self.process.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGSTOP, and every thread stands when this returns: the signal alone leaves it time to answer.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let child = self.process.as_ref().context("it does not run")?;
        let status = waitpid(Pid::from_raw(child.id().cast_signed()), Some(WaitPidFlag::WUNTRACED))?;
        anyhow::ensure!(matches!(status, WaitStatus::Stopped(..)), "it is not stopped: {status:?}");
        Ok(())
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.process.as_ref().context("it does not run")?;
        Ok(kill(Pid::from_raw(child.id().cast_signed()), signal)?)
    }

    /// The process ends by itself.
    pub(crate) fn wait(&mut self) -> Result<std::process::ExitStatus> {
        let mut child = self.process.take().context("it does not run")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("it did not end by itself");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if self.process.is_some() {
            // It may be gone already: then there is nothing to end.
            let _ = self.kill();
        }
    }
}

#[path = "../../../../tests/src/fleet/ports.rs"]
mod ports;

/// So many loopback addresses that were free a moment ago.
fn free_addresses<const N: usize>() -> Result<[SocketAddr; N]> {
    let ports = <[u16; N]>::try_from(ports::free_ports(N)?).map_err(|ports| anyhow::anyhow!("{ports:?}"))?;
    Ok(ports.map(|port| ([127, 0, 0, 1], port).into()))
}

/// This binary under a limit on file sizes, which is an error to whoever runs into it and not his death.
fn limited(kib: u32) -> Result<Command> {
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\"", &kib.to_string()]).arg(std::env::current_exe()?);
    Ok(command)
}

fn embedded(mut command: Command, data: &Path, address: SocketAddr) -> Result<Child> {
    let mut child = command
        .args(["--exact", STORE_PROCESS, "--nocapture", "--test-threads=1"])
        .env(DATA, data)
        .env(LISTEN, address.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(child.stdout.take().context("its output")?);
    let mut line = String::new();
    while said.read_line(&mut line)? > 0 {
        if line.contains("STORE READY") {
            std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
            return Ok(child);
        }
        line.clear();
    }
    bail!("the embedded store did not start: {:?}", child.wait()?)
}

/// The body of the test [`STORE_PROCESS`]: nothing at all unless [`Site`] started this process.
pub(crate) async fn become_a_store() -> Result<()> {
    let (Ok(data), Ok(listen)) = (std::env::var(DATA), std::env::var(LISTEN)) else { return Ok(()) };
    let options = ServerOptions { data: data.into(), listen: listen.parse()? };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let shutdown = async {
        terminate.recv().await;
    };
    Ok(serve(options, |address| println!("\nSTORE READY {address}"), shutdown).await?)
}

fn etcd(binary: &Path, data: &Path, address: SocketAddr, peer: SocketAddr) -> Result<Child> {
    let (client, peer) = (format!("http://{address}"), format!("http://{peer}"));
    let mut child = Command::new(binary)
        .args(["--name", "one", "--logger", "zap", "--log-level", "error"])
        .arg("--data-dir")
        .arg(data.join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("one={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", binary.display()))?;
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(address).is_err() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("etcd did not start on {address}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// Waits until `check` gives something; `what` is said if it never does.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
