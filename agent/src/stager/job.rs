//! One staging, on a thread of its own: it writes, syncs and reads whole versions, and the agent's loop must not wait for
//! any of that.

use std::sync::Arc;
use std::time::Duration;

use handover_proto::ids::Version;
use handover_proto::staging::StagingRefusal;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::artifact::progress::Progress;
use crate::artifact::stage::{StageError, Staged, stage_watched};
use crate::config::Config;

/// Pause before a directory in which somebody else stages is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Whatever serves goes first.
const NICE: i32 = 10;

/// One staging at work.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) version: Version,
    pub(super) stop: CancellationToken,
    pub(super) progress: Arc<Progress>,
    end: oneshot::Receiver<End>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// The version is in place; in words.
    Staged(String),
    /// It is not, and why.
    Refused(StagingRefusal, String),
}

impl Job {
    pub(super) fn start(config: Arc<Config>, version: Version, stop: CancellationToken) -> Self {
        let (say, end) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let work = Work { config, version: version.clone(), stop: stop.clone(), progress: progress.clone() };
        let started = std::thread::Builder::new().name("staging".to_owned()).spawn(move || {
            // Nobody is left to hear it when the agent ends.
            let _ = say.send(work.go());
        });
        if let Err(error) = started {
            warn!(%error, "no thread for a staging");
        }
        Self { version, stop, progress, end }
    }

    pub(super) async fn end(&mut self) -> End {
        let cut_short = || "the staging was cut short; the agent's log says why".to_owned();
        (&mut self.end).await.unwrap_or_else(|_| End::Refused(StagingRefusal::Other, cut_short()))
    }
}

struct Work {
    config: Arc<Config>,
    version: Version,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl Work {
    fn go(&self) -> End {
        // Its commands inherit it. Without the right to, it competes like anybody.
        if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
            warn!(%error, "the staging runs at the agent's own priority");
        }
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return End::Refused(StagingRefusal::Other, format!("no runtime for the staging: {error}")),
        };
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => End::Stopped,
                end = self.staged() => end,
            }
        })
    }

    async fn staged(&self) -> End {
        loop {
            match stage_watched(&self.config, &self.version, &self.progress).await {
                Ok(staged) => return End::Staged(in_words(&staged)),
                Err(error @ StageError::Busy { .. }) => self.progress.waits(error.to_string()),
                Err(error) => return End::Refused(kind(&error), crate::report::chain(&error)),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

fn kind(error: &StageError) -> StagingRefusal {
    match error {
        StageError::NoWay { .. } => StagingRefusal::NoFetcher,
        StageError::InPlace(_) => StagingRefusal::InPlace,
        StageError::Refused(_) => StagingRefusal::Artifact,
        StageError::Fetch { .. } => StagingRefusal::Fetch,
        StageError::Space { .. } => StagingRefusal::Space,
        StageError::Disk { .. } => StagingRefusal::Disk,
        StageError::Busy { .. } => StagingRefusal::Other,
    }
}

fn in_words(staged: &Staged) -> String {
    let what = staged.in_words();
    if staged.already { format!("it was here already: {what}") } else { what }
}
