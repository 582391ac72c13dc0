//! What an agent and its gate cost while nothing happens: one host that serves, without a request.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::row::{Aim, Row, Unit};
use super::site::{self, Site};
use super::{Found, Sizes};
use crate::fleet::{Fleet, Process, StoreKind, free_ports, processes_of};

/// Aims.
const RESIDENT_MIB: f64 = 10.0;
const CPU_PERCENT: f64 = 0.05;
/// The demo's fleet asks for readiness five times a second, so that its rollouts are quick; agents do it once a second
/// unless their config says otherwise.
const QUICK_PROBE: &str = "interval = \"200ms\"\ntimeout = \"150ms\"";
const USUAL_PROBE: &str = "interval = \"1s\"\ntimeout = \"150ms\"";

/// Does nothing, on a runtime like the agent's, until it is killed.
///
/// # Errors
/// If there is no runtime.
pub fn wait() -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(std::future::pending())
}

pub(super) fn measure(sizes: &Sizes) -> Result<Found> {
    let mut fleet = site::fleet(1, StoreKind::Embedded)?;
    probe_as_usual(&mut fleet)?;
    let site = Site::serving(fleet)?;
    let fleet = &site.fleet;
    let waiter = fleet.binaries().path("bench");
    let waiter = Process::spawn("waiter", &waiter, &["--only-wait".to_owned()], fleet.dir(), &[])?;
    let (peer, peer_pid, _etcd) = store_peer(fleet)?;
    let pid = |process: &Option<Process>| process.as_ref().map(Process::pid).context("a process of the host is gone");
    let host = &fleet.hosts[0];
    let pids = [pid(&host.agent)?, pid(&host.gate)?, waiter.pid(), peer_pid];
    let spent = |pids: &[u32; 4]| pids.iter().map(|pid| cpu(*pid)).collect::<Result<Vec<_>>>();
    let (began, before) = (Instant::now(), spent(&pids)?);
    // What is measured is this rest.
    std::thread::sleep(sizes.idle);
    let (after, lasted) = (spent(&pids)?, began.elapsed());
    let percent = |index: usize| 100.0 * (after[index] - before[index]).as_secs_f64() / lasted.as_secs_f64();
    let [agent, gate, waiter] = [pids[0], pids[1], pids[2]].map(|pid| Memory::of(&format!("/proc/{pid}/status")));
    let (agent, gate, waiter) = (agent?, gate?, waiter?);
    let mut rows = Vec::new();
    for (name, memory) in [("agent", agent), ("gate", gate)] {
        let resident = Row::new(format!("{name}: resident"), memory.resident_mib, Unit::MiB);
        let resident = resident.beside("a tokio process that only waits", waiter.resident_mib);
        let own = Row::new(format!("{name}: resident, its own pages"), memory.own_mib, Unit::MiB);
        let own = own.beside("a tokio process that only waits", waiter.own_mib);
        rows.extend([resident.aim(Aim::AtMost(RESIDENT_MIB)), own]);
    }
    for (index, name) in [(0, "agent"), (1, "gate")] {
        let row = Row::new(format!("{name}: CPU of one core"), percent(index), Unit::Percent);
        rows.push(row.beside(peer, percent(3)).aim(Aim::AtMost(CPU_PERCENT)));
    }
    rows.push(Row::new("a tokio process that only waits: CPU of one core", percent(2), Unit::Percent));
    let heading = format!("agent: one host that serves, left alone for {:.0} s", lasted.as_secs_f64());
    Ok(Found { heading, rows })
}

/// Writes the usual pace into the host's config, and starts its agent with it.
fn probe_as_usual(fleet: &mut Fleet) -> Result<()> {
    let config = &fleet.hosts[0].config;
    let text = std::fs::read_to_string(config)?;
    let changed = text.replace(QUICK_PROBE, USUAL_PROBE);
    anyhow::ensure!(changed != text, "the fleet's config no longer has {QUICK_PROBE:?}");
    std::fs::write(config, changed)?;
    if let Some(agent) = &mut fleet.hosts[0].agent {
        agent.kill()?;
    }
    fleet.start_agent(0)?;
    fleet.wait_for("the agent to be heard again", |fleet| {
        let row = &fleet.cli().status()?["fleet"][0];
        Ok(row["alive"] == true && row["gate"] == true && fleet.hosts[0].status().is_ok())
    })
}

/// An etcd that nobody uses, if there is one; else the fleet's own store, which the agent uses.
fn store_peer(fleet: &Fleet) -> Result<(&'static str, u32, Option<Process>)> {
    if let Some(program) = std::env::var_os("HANDOVER_TEST_ETCD") {
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let ports = free_ports(2)?;
        let (client, peer) = (url(&ports[0]), url(&ports[1]));
        let args = [
            ("--data-dir", fleet.dir().join("idle-etcd").display().to_string()),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer.clone()),
            ("--initial-cluster", format!("default={peer}")),
        ];
        let args: Vec<_> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let etcd = Process::spawn("idle-etcd", Path::new(&program), &args, fleet.dir(), &[])?;
        let address = ("127.0.0.1", ports[0]);
        fleet.wait_for("etcd to answer", |_| Ok(std::net::TcpStream::connect(address).is_ok()))?;
        return Ok(("an etcd that nobody uses", etcd.pid(), Some(etcd)));
    }
    let is_store = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"store")
    };
    let store = processes_of(fleet.dir()).into_iter().find(is_store).context("the embedded store is not there")?;
    Ok(("the embedded store", u32::try_from(store)?, None))
}

/// The CPU time of all threads of a process so far, to the nanosecond; `/proc/PID/stat` counts in hundredths of seconds.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let clock = nix::time::clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?));
    let time = clock.and_then(nix::time::ClockId::now).with_context(|| format!("the CPU time of process {pid}"))?;
    Ok(time.into())
}

/// What a process has in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Memory {
    resident_mib: f64,
    /// Without pages of files, which processes of the same program share.
    own_mib: f64,
}

impl Memory {
    fn of(status: &str) -> Result<Self> {
        Self::read(&std::fs::read_to_string(status).with_context(|| format!("cannot read {status}"))?)
    }

    fn read(status: &str) -> Result<Self> {
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
            kib.map(|kib| kib / 1024.0).with_context(|| format!("no {name} in the process's status"))
        };
        Ok(Self { resident_mib: mib("VmRSS")?, own_mib: mib("RssAnon")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernel_s_lines() {
        let status = "Name:\tx\nVmRSS:\t    9216 kB\nRssAnon:\t    2048 kB\nRssFile:\t    7168 kB\n";
        let expected = Memory { resident_mib: 9.0, own_mib: 2.0 };
        assert_eq!(Memory::read(status).expect("both lines"), expected);
        assert!(Memory::read("VmRSS:\t1 kB\n").expect_err("no RssAnon").to_string().contains("RssAnon"));
    }

    #[test]
    fn a_process_that_works_has_more_cpu_time_afterwards() {
        let before = cpu(std::process::id()).expect("our own");
        let begin = Instant::now();
        while cpu(std::process::id()).expect("our own") <= before {
            assert!(begin.elapsed() < Duration::from_secs(10), "the CPU clock stands still");
        }
    }
}
