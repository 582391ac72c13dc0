//! Waits for the end of a process, child or not, without asking again and again.
//!
//! A pidfd becomes readable when its process ends. tokio's `AsyncFd` could wait for that, but as of 1.54 only through an
//! `unsafe` registration, which this workspace forbids; so a thread of its own sleeps in `poll(2)`. There are as many as
//! instances and running exec probes, a handful.

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::thread;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use tokio::sync::oneshot;

/// Deep enough for one call to `poll(2)`.
const STACK_BYTES: usize = 64 * 1024;

/// The end of one process. Dropping it ends the wait.
#[derive(Debug)]
pub(crate) struct Ended {
    done: oneshot::Receiver<io::Result<()>>,
    /// Closes when this is dropped, which wakes the thread.
    _cancel: io::PipeWriter,
}

impl Ended {
    /// Begins to wait.
    pub(crate) fn of(pidfd: OwnedFd) -> io::Result<Self> {
        let (cancelled, cancel) = io::pipe()?;
        let (tell, done) = oneshot::channel();
        thread::Builder::new().name("process-end".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            // Nobody listens any more if the wait was cancelled.
            let _ = tell.send(wait(&pidfd, Some(&cancelled)));
        })?;
        Ok(Self { done, _cancel: cancel })
    }

    /// Returns when the process has ended. Cancel safe.
    pub(crate) async fn wait(&mut self) -> io::Result<()> {
        (&mut self.done).await.map_err(io::Error::other).flatten()
    }
}

/// Blocks until the process has ended or the writer's side of the pipe is closed.
pub(super) fn wait(pidfd: &OwnedFd, cancelled: Option<&PipeReader>) -> io::Result<()> {
    let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
    fds.extend(cancelled.map(|pipe| PollFd::new(pipe, PollFlags::empty())));
    loop {
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
