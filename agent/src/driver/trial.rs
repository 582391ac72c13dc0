//! How long a kill takes on this host, from the signal to the proof that nothing is left: tried, not assumed (`c_kill`,
//! `SAFETY.md` §1.8).

use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use handover_proto::ids::{IdError, InstanceId};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;

use super::clear::{Cleared, clear};
use super::process::signal_all;
use super::survey::Watch;
use super::watched::{Leader, Watched};
use super::{Owner, ProcessRecord, StartSpec, child, ended, table};

/// Of so many the longest is as near to the 99th percentile as can be had at a start.
const TRIES: usize = 20;
/// A program that has not come up by then will not.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Kills `command` over and over, which must write one line once all its processes run, and returns the longest time from
/// the signal to the proof. Blocks.
///
/// # Errors
/// When it cannot be started or seen, says nothing, or a try ends without a proof.
pub(super) fn kill_time(watch: &Watch, owner: &Owner, boot_id: &str, command: &[String]) -> io::Result<Duration> {
    (0..TRIES).try_fold(Duration::ZERO, |longest, _| Ok(longest.max(once(watch, owner, boot_id, command)?)))
}

fn once(watch: &Watch, owner: &Owner, boot_id: &str, command: &[String]) -> io::Result<Duration> {
    // Its closing ends what is tried, should this agent die before it can.
    let (leash, held) = io::pipe()?;
    let watched = Arc::new(start(owner, boot_id, command, leash)?);
    let instance = &watched.record.instance;
    watch.add(Arc::clone(&watched));
    let began = Instant::now();
    let cleared = signal_all(watch, &watched, Signal::KILL).and_then(|()| {
        let handle = watched.leader.handle()?;
        handle.map_or(Ok(()), |handle| ended::wait(&handle, None))?;
        Ok(clear(watch, &watched))
    });
    watch.remove(instance);
    drop(held);
    match cleared? {
        Cleared::Empty { proven: true } => Ok(began.elapsed()),
        Cleared::Empty { proven: false } => Err(io::Error::other("nothing was left, but that could not be proved")),
        Cleared::Left(what) => Err(io::Error::other(what)),
    }
}

fn start(owner: &Owner, boot_id: &str, command: &[String], leash: PipeReader) -> io::Result<Watched> {
    let (says, hears) = io::pipe()?;
    let spec = spec(command).map_err(io::Error::other)?;
    let mut start = Command::new(command.first().map_or("", String::as_str));
    child::clean_env(&mut start);
    start
        .envs(owner.marks(&spec))
        .args(command.iter().skip(1))
        .process_group(0)
        .stdin(leash)
        .stdout(hears)
        .stderr(Stdio::null());
    let child = child::spawn(&mut start)?;
    // The writer's end in `start` would keep the pipe open.
    drop(start);
    let mut fds = [PollFd::new(&says, PollFlags::IN)];
    let spoke = rustix::event::poll(&mut fds, Some(&PATIENCE)) == Ok(1) && fds[0].revents().contains(PollFlags::IN);
    let row = table::row(child.pid())?;
    let (true, Some(row)) = (spoke, row) else {
        child.end();
        return Err(io::Error::other("the program for the trial did not come up"));
    };
    let record = ProcessRecord {
        instance: spec.instance,
        pid: child.pid(),
        start_time_ticks: row.key.start_time_ticks,
        boot_id: boot_id.to_owned(),
        unbroken: true,
        output: PathBuf::new(),
        output_from_bytes: 0,
        unit: None,
        command: None,
    };
    Ok(Watched::new(record, Leader::Own(child)))
}

/// What an instance would be started with; slot and version are no real ones.
fn spec(command: &[String]) -> Result<StartSpec, IdError> {
    Ok(StartSpec {
        slot: "trial".parse()?,
        instance: InstanceId::random(),
        version: "0".parse()?,
        command: command.to_vec(),
        env: Vec::new(),
        directory: PathBuf::new(),
        output: PathBuf::new(),
    })
}
