//! The peer for planned hand-overs: `etcdctl lock`, released to the next waiter, on the same members.
//!
//! The locked command says when it began and when it ends ([`stamp`]); between the end of one and the begin of the next
//! nobody holds the lock. That includes the start of the next one's process, as it does for whoever uses the command.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::site::Site;
use crate::clock::BootNs;
use crate::fleet::Process;

/// Nothing here takes longer.
const LIMIT: Duration = Duration::from_secs(20);
/// The lock's name; each waiter has a key below it.
const LOCK: &str = "bench-lock";

/// Says when it began, waits for a byte, and says when it ends: what the lock is held for.
///
/// # Errors
/// If nobody listens there.
pub fn stamp(listener: SocketAddr) -> Result<()> {
    let began = BootNs::now();
    let mut stream = TcpStream::connect(listener).context("reaching the bench")?;
    stream.write_all(&began.0.to_be_bytes())?;
    stream.read_exact(&mut [0])?;
    stream.write_all(&BootNs::now().0.to_be_bytes())?;
    Ok(())
}

/// A command that holds the lock.
struct Holder {
    _process: Process,
    stream: TcpStream,
    began: BootNs,
}

/// Passes the lock on so many times: how long nobody held it, each time. None without an `etcdctl`.
pub(super) fn passes(site: &Site, count: usize) -> Result<Option<Vec<Duration>>> {
    let Some(etcdctl) = find("etcdctl") else { return Ok(None) };
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let start = |number: usize| {
        let bench = site.fleet.binaries().path("bench").display().to_string();
        let args = [
            "--endpoints".to_owned(),
            site.fleet.stores().join(","),
            "lock".to_owned(),
            LOCK.to_owned(),
            "--".to_owned(),
            bench,
            "--only-stamp".to_owned(),
            listener.local_addr()?.to_string(),
        ];
        Process::spawn(&format!("lock-{number}"), &etcdctl, &args, site.fleet.dir(), &[("ETCDCTL_API", "3".to_owned())])
    };
    let mut holder = next(&listener, start(0)?)?;
    let mut dark = Vec::new();
    for number in 1..=count {
        let waiter = start(number)?;
        let waits = || site.runtime.block_on(site.store.list(LOCK)).map(|listing| listing.entries.len() == 2);
        site.fleet.wait_for("the next one to wait for the lock", |_| Ok(waits()?))?;
        let ended = holder.release()?;
        holder = next(&listener, waiter)?;
        if holder.began.0 < ended.0 {
            bail!("etcdctl lock ran two commands at once");
        }
        dark.push(holder.began.since(ended));
    }
    holder.release()?;
    Ok(Some(dark))
}

fn next(listener: &TcpListener, mut process: Process) -> Result<Holder> {
    listener.set_nonblocking(true)?;
    let end = Instant::now() + LIMIT;
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) if process.has_ended() || Instant::now() >= end => {
                bail!("etcdctl lock did not run its command: {}", process.output());
            }
            // The command's own stamps are what is measured.
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let began = read(&mut stream)?;
    Ok(Holder { _process: process, stream, began })
}

fn read(stream: &mut TcpStream) -> Result<BootNs> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).context("the locked command says nothing")?;
    Ok(BootNs(u64::from_be_bytes(bytes)))
}

impl Holder {
    fn release(mut self) -> Result<BootNs> {
        self.stream.write_all(&[0])?;
        read(&mut self.stream)
    }
}

/// A program in `PATH`.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}
