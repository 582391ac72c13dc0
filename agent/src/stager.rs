//! Has versions in place ahead of their window, as the staging key asks: follows the key, decides with
//! [`crate::core::staging`], and stages on a thread of its own. The agent's loop only reads how far it is.

mod job;
mod told;

use std::sync::Arc;
use std::time::Duration;

use handover_proto::ids::Version;
use handover_proto::keys::EnvKeys;
use handover_proto::numbers::Serial;
use handover_proto::wire::StagingReport;
use handover_store::client::Store;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::job::{End, Job};
use self::told::Told;
use crate::config::Config;
use crate::core::staging::{self, AtWork, Step};
use crate::register::{Requested, follow_staging};

/// How long an agent that ends waits for its staging to clear away what has come so far; the next one clears it, too.
const TIDYING: Duration = Duration::from_millis(500);

/// The loop's handle on it.
#[derive(Debug)]
pub struct Stager {
    told: Arc<Told>,
    stop: CancellationToken,
    rests: watch::Receiver<bool>,
    /// What follows the key, and what acts on it. Neither ends before the agent does.
    tasks: JoinSet<()>,
}

impl Stager {
    /// Follows the key from now on. `wake` is told whenever a staging has ended.
    pub fn start(config: Arc<Config>, store: Store, wake: Arc<Notify>) -> Self {
        let (told, stop) = (Arc::new(Told::default()), CancellationToken::new());
        let (resting, rests) = watch::channel(true);
        let (said, requests) = watch::channel(Requested::Known(None));
        let keys = EnvKeys::new(&config.env).service(&config.service);
        let mut tasks = JoinSet::new();
        tasks.spawn(follow_staging(store, keys, said));
        let task = Task { config, wake, told: told.clone(), stop: stop.clone(), resting, job: None, answered: None };
        tasks.spawn(task.go(requests));
        Self { told, stop, rests, tasks }
    }

    /// Returns if one of its tasks has ended, which would leave its last word standing for good; why. Cancel safe.
    pub(crate) async fn broken(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "it stopped by itself".to_owned(),
        }
    }

    /// What the agent reports of it; none: nothing is asked of this agent.
    pub fn report(&self) -> Option<StagingReport> {
        self.told.report()
    }

    /// Stops what is at work, and waits a moment for it to clear away what has come.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        // Late or not, the next staging clears away what is left.
        let _ = tokio::time::timeout(TIDYING, self.rests.wait_for(|rests| *rests)).await;
    }
}

struct Task {
    config: Arc<Config>,
    wake: Arc<Notify>,
    told: Arc<Told>,
    stop: CancellationToken,
    /// Whether nothing is at work.
    resting: watch::Sender<bool>,
    job: Option<Job>,
    /// The request whose end is known.
    answered: Option<(Serial, Version)>,
}

impl Task {
    async fn go(mut self, mut requests: watch::Receiver<Requested>) {
        while !self.stop.is_cancelled() || self.job.is_some() {
            let requested = requests.borrow_and_update().clone();
            self.act(&requested);
            self.resting.send_replace(self.job.is_none());
            let end = tokio::select! {
                changed = requests.changed() => match changed {
                    Ok(()) => None,
                    Err(_) => return,
                },
                () = self.stop.cancelled(), if self.job.is_none() => None,
                end = ended(&mut self.job) => Some(end),
            };
            if let Some(end) = end {
                self.ended(end, &requested);
                self.wake.notify_one();
            }
        }
        self.resting.send_replace(true);
    }

    fn act(&mut self, requested: &Requested) {
        let request = match requested {
            Requested::Unread(why) => {
                self.told.unread(why.clone());
                return;
            }
            Requested::Known(request) => request.as_ref(),
        };
        let asked = staging::asked(request, &self.config.agent);
        let at_work =
            self.job.as_ref().map(|job| AtWork { version: job.version.clone(), stopping: job.stop.is_cancelled() });
        let answered = self.answered.as_ref().map(|(serial, version)| (*serial, version));
        match staging::next(asked, at_work.as_ref(), answered) {
            Step::Begin(version) if !self.stop.is_cancelled() => {
                info!(%version, "staging");
                self.job = Some(Job::start(self.config.clone(), version, self.stop.child_token()));
            }
            Step::Stop => {
                if let Some(job) = &self.job {
                    info!(version = %job.version, "the staging stops: it is not asked for any more");
                    job.stop.cancel();
                }
            }
            Step::Begin(_) | Step::Rest => {}
        }
        self.told.asked(asked, self.job.as_ref(), answered);
    }

    fn ended(&mut self, end: End, requested: &Requested) {
        let Some(job) = self.job.take() else { return };
        let version = &job.version;
        match &end {
            End::Stopped => info!(%version, "the staging has stopped"),
            End::Staged(what) => info!(%version, "staged: {what}"),
            End::Refused(kind, why) => warn!(%version, reason = %kind, "not staged: {why}"),
        }
        let Requested::Known(request) = requested else { return };
        let asked =
            staging::asked(request.as_ref(), &self.config.agent).filter(|(_, version)| **version == job.version);
        if let Some((serial, _)) = asked.filter(|_| end != End::Stopped) {
            self.answered = Some((serial, job.version.clone()));
            self.told.ended(serial, &job.version, end);
        }
    }
}

/// Waits for the end of what is at work, if something is.
async fn ended(job: &mut Option<Job>) -> End {
    match job {
        Some(job) => job.end().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_breaks_off_is_noticed() {
        let (resting, rests) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(std::future::pending());
        tasks.spawn(async { panic!("a fault") });
        let mut stager = Stager { told: Arc::default(), stop: CancellationToken::new(), rests, tasks };
        let broken = tokio::time::timeout(Duration::from_secs(30), stager.broken()).await.expect("noticed");
        assert!(broken.contains("panic"), "{broken}");
        drop(resting);
    }
}
