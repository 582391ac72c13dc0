//! The embedded store beside a coordinator without endpoints (`DESIGN.md` §10).
//!
//! A process and process group of its own, so that whatever kills the coordinator stops no renewal. One that runs
//! already is used; a second one on the same data is refused by the store itself, which locks it.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use handover_store::client::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::world::World;

/// How long a started store may take until it answers; it replays nothing, so that a second is much.
const START: Duration = Duration::from_secs(10);
/// Between two looks at a store that starts.
const LOOK: Duration = Duration::from_millis(20);
/// Between two attempts to bring back a store that went away.
const AGAIN: Duration = Duration::from_secs(1);

/// The embedded store cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Something else answers at its address.
    #[error(
        "what answers at {0} is not Handover's embedded store (version {1}); name it with --store, or choose another --store-listen"
    )]
    Other(SocketAddr, String),
    /// It could not be started.
    #[error("cannot start the embedded store with its data in {data}")]
    Spawn {
        /// Its directory.
        data: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended at once.
    #[error("the embedded store ended at once ({status}): {tail}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// The last line of its log.
        tail: String,
    },
    /// It does not answer.
    #[error("the embedded store was started but does not answer at {address} after {} s; look at {log}", START.as_secs())]
    Silent {
        /// Where it should.
        address: SocketAddr,
        /// Its log.
        log: PathBuf,
    },
    /// The address cannot be dialled at all.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The embedded store's place.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// Where it keeps its data and its log.
    pub data: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
}

impl Embedded {
    /// Uses the one that runs, or starts one, and returns once it answers.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub async fn ensure(&self) -> Result<(), EmbeddedError> {
        let store = Store::connect(&[self.listen.to_string()])?;
        if self.answers(&store).await? {
            tracing::info!(address = %self.listen, "using the embedded store that runs already");
            return Ok(());
        }
        let mut child = self.spawn()?;
        let until = Instant::now() + START;
        while !self.answers(&store).await? {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(EmbeddedError::Ended { status, tail: last_line(&self.log()) });
            }
            if Instant::now() > until {
                return Err(EmbeddedError::Silent { address: self.listen, log: self.log() });
            }
            tokio::time::sleep(LOOK).await;
        }
        tracing::info!(
            address = %self.listen, data = %self.data.display(), pid = child.id(),
            "started the embedded store: a single node without replication"
        );
        reap(child);
        Ok(())
    }

    /// Brings the store back whenever the world is cut off from it, for ever.
    pub async fn keep(self, mut world: watch::Receiver<World>) {
        loop {
            if world.wait_for(|world| world.cut_off.is_some()).await.is_err() {
                return;
            }
            if let Err(error) = self.ensure().await {
                tracing::error!(%error, "the embedded store is away and cannot be brought back, trying again");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn answers(&self, store: &Store) -> Result<bool, EmbeddedError> {
        match store.status().await.into_iter().next() {
            Some((_, Ok(status))) if status.is_embedded() => Ok(true),
            Some((_, Ok(status))) => Err(EmbeddedError::Other(self.listen, status.version)),
            Some((_, Err(_))) | None => Ok(false),
        }
    }

    fn log(&self) -> PathBuf {
        self.data.join("store.log")
    }

    fn spawn(&self) -> Result<Child, EmbeddedError> {
        let spawn = || {
            fs::create_dir_all(&self.data)?;
            // A file, not a pipe: a pipe's reader would die with the coordinator, and the store with the pipe.
            let log = OpenOptions::new().create(true).append(true).open(self.log())?;
            Command::new(std::env::current_exe()?)
                .arg("store")
                .arg("--data")
                .arg(&self.data)
                .args(["--listen", &self.listen.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .process_group(0)
                .spawn()
        };
        spawn().map_err(|source| EmbeddedError::Spawn { data: self.data.clone(), source })
    }
}

/// Waits for the process on a thread of its own, so that it leaves no zombie and its end is told.
fn reap(mut child: Child) {
    std::thread::spawn(move || match child.wait() {
        Ok(status) => tracing::warn!(pid = child.id(), %status, "the embedded store ended"),
        Err(error) => tracing::warn!(pid = child.id(), %error, "the embedded store cannot be waited for"),
    });
}

fn last_line(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().last().unwrap_or("it left no message").to_owned()
}
