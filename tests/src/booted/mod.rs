//! Hosts that really boot: each has systemd as its PID 1, a D-Bus, a journal, and an address of its own on a bridge.
//!
//! They are light containers (systemd-nspawn) on an overlay of this machine's own files, with our programs and units
//! installed. Host n is `10.88.0.n`; a test that calls [`Booted::enter`] is `10.88.0.254` on the same bridge. Nothing of it
//! is visible on the machine itself: networks, mounts and processes live in namespaces that end with their first process,
//! and that one ends with our pipe to it, even after `kill -9` of the test. Only empty cgroups and a directory in `/tmp` can
//! be left, which the next start removes.

mod cgroups;
pub mod front;
mod host;
mod leftovers;
mod possible;
pub mod site;

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::LinkNameSpaceType;

use cgroups::Cgroups;

pub use host::{BootedHost, Said};
pub use possible::possible;

/// First process of all namespaces; see there.
const KEEPER: &str = include_str!("keeper.sh");

/// Set by `.ci/run`: a test that cannot boot hosts has failed there.
const REQUIRED: &str = "HANDOVER_TEST_BOOTED";

/// A boot takes about half a second on a quiet machine.
const BOOT: Duration = Duration::from_secs(60);

/// Several sites may run at once in one test program.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Booted hosts on a bridge of their own. Dropping it ends them.
pub struct Booted {
    keeper: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    cgroups: Cgroups,
    shared: tempfile::TempDir,
    hosts: Vec<BootedHost>,
}

impl Booted {
    /// Boots so many hosts; none, said loudly, where that is not possible. With `HANDOVER_TEST_BOOTED=required` that is a
    /// failure.
    ///
    /// # Panics
    /// If hosts can be booted here, and do not come up; or cannot, and are required.
    #[allow(clippy::panic, reason = "for tests, which have nothing else to do then")]
    pub fn or_skip(hosts: u8) -> Option<Self> {
        let start = || Self::start(hosts).unwrap_or_else(|error| panic!("hosts do not boot: {error:#}"));
        Self::can_or_skip().then(start)
    }

    /// Whether hosts can be booted here; said loudly if not.
    ///
    /// # Panics
    /// If they cannot, and are required.
    #[allow(clippy::panic, reason = "for tests, which have nothing else to do then")]
    pub fn can_or_skip() -> bool {
        match possible() {
            Ok(()) => true,
            Err(error) if std::env::var_os(REQUIRED).is_some_and(|value| value == "required") => {
                panic!("hosts cannot be booted here, and {REQUIRED}=required: {error:#}")
            }
            Err(error) => {
                eprintln!("SKIPPED: hosts with systemd cannot be booted here: {error:#}");
                false
            }
        }
    }

    /// Boots so many hosts, with the programs from beside our own executable, and moves the calling thread onto their bridge.
    ///
    /// # Errors
    /// If they do not come up; with what was said.
    pub fn start(hosts: u8) -> Result<Self> {
        leftovers::remove();
        let programs = crate::fleet::Binaries::find()?.dir().to_owned();
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?.join("systemd");
        let shared =
            tempfile::Builder::new().prefix(&leftovers::prefix()).tempdir().context("cannot make a directory")?;
        open_to_all(shared.path())?;
        let cgroups = Cgroups::new(NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut keeper = Command::new("unshare");
        keeper.args([
            "--net",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        keeper.args(["bash", "-c", KEEPER, "keeper.sh", cgroups.name(), &hosts.to_string()]);
        keeper.args([&programs, &units, shared.path()]);
        // Ctrl-C reaches us, and the end of our pipe reaches it: all is ended in order then.
        keeper.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = keeper.spawn().context("cannot run unshare")?;
        let orders = keeper.stdin.take();
        let answers = BufReader::new(keeper.stdout.take().context("the keeper's output")?);
        let mut booted = Self { keeper, orders, answers, cgroups, shared, hosts: Vec::new() };
        booted.expect("ready")?;
        booted.hosts = (1..=hosts).map(|number| BootedHost::new(number, &booted.cgroups)).collect();
        for number in 0..booted.hosts.len() {
            booted.order(number)?;
        }
        for host in &booted.hosts {
            booted.is_up(host)?;
        }
        booted.enter()?;
        Ok(booted)
    }

    /// The hosts, in order.
    pub fn hosts(&self) -> &[BootedHost] {
        &self.hosts
    }

    /// A host, counted from 0: app-01 is the first.
    pub fn host(&self, index: usize) -> &BootedHost {
        &self.hosts[index]
    }

    /// A directory of this machine that every host has as `/srv/site`.
    pub fn shared(&self) -> &Path {
        self.shared.path()
    }

    /// Our own address on the bridge.
    pub fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 88, 0, 254))
    }

    /// Moves the calling thread, and the threads and processes that it starts from now on, onto the hosts' bridge: it
    /// reaches the hosts, and nothing else.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.keeper.id()));
        let network = std::fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let moved = rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network));
        moved.context("cannot enter the hosts' network")
    }

    /// Takes a host's power away: its PID 1 is killed, and with it everything on it, at once. Its disk stays.
    ///
    /// # Errors
    /// If it does not run.
    pub fn cut_power(&self, index: usize) -> Result<()> {
        self.hosts[index].kill()
    }

    /// Boots a host that has no power, and waits until it is up.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn boot(&mut self, index: usize) -> Result<()> {
        self.order(index)?;
        self.is_up(&self.hosts[index])
    }

    fn order(&mut self, index: usize) -> Result<()> {
        let orders = self.orders.as_mut().context("the keeper has ended")?;
        writeln!(orders, "boot {}", index + 1).and_then(|()| orders.flush()).context("the keeper has ended")?;
        self.expect("booting")
    }

    fn expect(&mut self, word: &str) -> Result<()> {
        let mut said = String::new();
        self.answers.read_line(&mut said).context("cannot read what the keeper says")?;
        ensure!(said.trim() == word, "the keeper of the hosts said {:?} instead of {word:?}", said.trim());
        Ok(())
    }

    fn is_up(&self, host: &BootedHost) -> Result<()> {
        let end = Instant::now() + BOOT;
        loop {
            // `degraded`: a unit of this machine's own, which has nothing to do with us, cannot start in a container.
            let said = host.run(&["systemctl", "is-system-running", "--wait"]);
            if said.as_ref().is_ok_and(|said| matches!(said.out.trim(), "running" | "degraded")) {
                return Ok(());
            }
            if Instant::now() > end {
                let log = self.shared().join(format!("boot-{}.log", host.number()));
                let log = std::fs::read_to_string(log).unwrap_or_default();
                bail!("{} is not up after {BOOT:?}: {said:?}\n{log}", host.name());
            }
            // It is another system: there is nothing to wait on but the clock.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // Its input ends, so it ends, and with it its namespaces and all that is in them.
        drop(self.orders.take());
        if let Err(error) = self.keeper.wait() {
            eprintln!("booted hosts: cannot wait for their keeper: {error}");
        }
        self.cgroups.remove();
        if std::thread::panicking() {
            self.shared.disable_cleanup(true);
            eprintln!("the booted hosts' files are in {} until the next start", self.shared().display());
        }
    }
}

/// Services on the hosts run as users of their own.
fn open_to_all(dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).context("cannot open the shared directory")
}
