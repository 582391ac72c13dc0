//! Memory of connections that do nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::peers::{Peer, Running, Site, Variant};

/// How much more memory the peer has, in MiB, with so many connections that each made one request and wait.
pub(super) fn memory(site: &Site, peer: Peer, connections: usize) -> Result<f64> {
    allow_files(connections as u64 + 256)?;
    let running = site.proxies.get(&(peer, Variant::Plain)).context("not running")?;
    let before = proportional(running)?;
    let open = (0..connections).map(|_| one(running)).collect::<Result<Vec<_>>>();
    let open = open.with_context(|| format!("opening {connections} connections to {}", peer.name()))?;
    let after = proportional(running)?;
    drop(open);
    Ok((after - before).max(0.0))
}

fn one(running: &Running) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(running.front.listen)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer)?;
    anyhow::ensure!(answer[..read].starts_with(b"HTTP/1.1 200"), "no answer");
    Ok(stream)
}

/// Resident memory of all its processes, shared pages by their share (`Pss` of smaps_rollup).
fn proportional(running: &Running) -> Result<f64> {
    let of = |pid: u32| -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    };
    running.pids().into_iter().map(of).sum()
}

fn allow_files(wanted: u64) -> Result<()> {
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|soft| soft >= wanted) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(now.maximum.map_or(wanted, |hard| hard.min(wanted))), ..now };
    setrlimit(Resource::Nofile, raised).context("raising the limit of open files")
}
