//! Follows one instance from its start, or its adoption, to its end, by asking its status again and again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::judge::{Said, Step, next};
use super::settings::ExecSettings;
use super::slot::{self, Occupant, Slot};
use crate::driver::{CommandEnd, Exit, ExitStatus, ProcessRecord, Told};
use crate::report::chain;

/// One instance under watch, for the driver and its follower.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) slot: Slot,
    pub(super) stop: mpsc::UnboundedSender<()>,
    now: Mutex<Now>,
}

#[derive(Debug, Clone)]
struct Now {
    record: ProcessRecord,
    awaits: Option<&'static str>,
}

impl Watched {
    pub(super) fn new(
        slot: Slot,
        stop: mpsc::UnboundedSender<()>,
        record: ProcessRecord,
        awaits: Option<&'static str>,
    ) -> Self {
        Self { slot, stop, now: Mutex::new(Now { record, awaits }) }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self) -> ProcessRecord {
        self.now().record.clone()
    }

    /// What is waited for before it is up.
    pub(super) fn awaits(&self) -> Option<String> {
        self.now().awaits.map(str::to_owned)
    }
}

/// What follows one instance.
pub(super) struct Follower {
    pub(super) watched: Arc<Watched>,
    pub(super) settings: ExecSettings,
    pub(super) state_dir: PathBuf,
    pub(super) stops: UnboundedReceiver<()>,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) wake: Arc<Notify>,
}

impl Follower {
    /// Starts it, and follows it to its end.
    pub(super) async fn begin(self) {
        // What runs there already was started past the agent, and is not ours to stop.
        match self.slot().status().await {
            Said::Stopped => {}
            Said::Runs(name) => {
                let why = format!("something runs in slot {} already ({name}); stop it", self.slot().id);
                return self.tell_end(CommandEnd::NotStarted, false, vec![why]).await;
            }
            Said::Unknown(why) => {
                let why = format!("whether something runs in slot {} cannot be told: {why}", self.slot().id);
                return self.tell_end(CommandEnd::NotStarted, false, vec![why]).await;
            }
        }
        if let Err(error) = slot::record(&self.state_dir, &self.slot().id, &self.slot().occupant) {
            let why = format!("its start cannot be recorded: {}", chain(&error));
            return self.tell_end(CommandEnd::NotStarted, false, vec![why]).await;
        }
        match self.slot().start().await {
            Ok(()) => {
                self.await_now(Some("its status command to say that it runs"));
                self.follow().await;
            }
            // Half of it may run.
            Err(why) => self.put_away(CommandEnd::NotStarted, vec![why]).await,
        }
    }

    /// Follows what runs, or what is coming up, to its end.
    pub(super) async fn follow(mut self) {
        let up_by = Instant::now() + self.settings.seen_within;
        let mut unknown = None;
        loop {
            let name = self.name();
            match next(&name, self.slot().status().await) {
                Step::Named(name) => {
                    self.note_name(name).await;
                    self.await_now(None);
                }
                Step::Runs => self.await_now(None),
                Step::Foreign(now) => {
                    let why = format!("{now:?} runs in its place, and it was {name:?}");
                    return self.put_away(CommandEnd::Foreign, vec![why]).await;
                }
                // It may be on its way still: a command can return before what it started is seen.
                Step::Ended if self.watched.awaits().is_some() && Instant::now() < up_by => {}
                Step::Ended => return self.ended().await,
                Step::Unknown(why) if unknown.as_ref() != Some(&why) => {
                    warn!(slot = %self.slot().id, why, "whether the instance runs cannot be told; asking again");
                    unknown = Some(why);
                }
                Step::Unknown(_) => {}
            }
            tokio::select! {
                () = sleep(self.settings.every) => {}
                Some(()) = self.stops.recv() => self.stop().await,
            }
        }
    }

    fn slot(&self) -> &Slot {
        &self.watched.slot
    }

    fn name(&self) -> String {
        self.watched.now().record.command.clone().unwrap_or_default()
    }

    async fn stop(&mut self) {
        // From here on a stopped one has ended, however it began.
        self.await_now(None);
        if let Err(why) = self.slot().stop().await {
            warn!(slot = %self.slot().id, why, "the instance may not have been told to stop");
        }
    }

    async fn note_name(&self, name: String) {
        let occupant = Occupant { name: Some(name.clone()), ..self.slot().occupant.clone() };
        if let Err(error) = slot::record(&self.state_dir, &self.slot().id, &occupant) {
            warn!(slot = %self.slot().id, %error, "what the instance is called cannot be recorded");
        }
        let record = {
            let mut now = self.watched.now();
            now.record.command = Some(name);
            now.record.clone()
        };
        self.tell(Told::Began(record)).await;
    }

    fn await_now(&self, awaits: Option<&'static str>) {
        let before = std::mem::replace(&mut self.watched.now().awaits, awaits);
        if before != awaits {
            self.wake.notify_one();
        }
    }

    async fn ended(self) {
        let proven = self.settings.stopped_is_proof;
        self.tell_end(CommandEnd::Stopped, proven, Vec::new()).await;
    }

    /// Ends whatever runs in the slot, and says so only when the status command does.
    async fn put_away(self, end: CommandEnd, tail: Vec<String>) {
        self.await_now(Some("what runs in its slot to stop"));
        let patience = Instant::now() + self.settings.grace;
        let mut said = false;
        if let Err(why) = self.slot().stop().await {
            warn!(slot = %self.slot().id, why, "cannot stop what runs");
        }
        loop {
            let left = match self.slot().status().await {
                Said::Stopped => break,
                Said::Runs(name) => format!("its status command says that it runs ({name})"),
                Said::Unknown(why) => format!("whether it runs cannot be told: {why}"),
            };
            if Instant::now() >= patience {
                if let Err(why) = self.slot().kill().await {
                    error!(slot = %self.slot().id, why, left, "cannot kill what runs");
                }
                if !std::mem::replace(&mut said, true) {
                    self.tell(Told::Exit(self.exit(end, Some(left), false, tail.clone()))).await;
                }
            }
            sleep(self.settings.every).await;
        }
        let proven = self.settings.stopped_is_proof;
        self.tell_end(end, proven, tail).await;
    }

    fn exit(&self, end: CommandEnd, left: Option<String>, proven: bool, tail: Vec<String>) -> Exit {
        let instance = self.watched.record().instance;
        Exit { instance, status: ExitStatus::Command(end), left, proven, tail }
    }

    async fn tell_end(&self, end: CommandEnd, proven: bool, tail: Vec<String>) {
        forget(&self.state_dir, self.slot());
        self.tell(Told::Exit(self.exit(end, None, proven, tail))).await;
    }

    async fn tell(&self, told: Told) {
        // Only an agent that ends does not listen any more; the next one asks for itself.
        let _nobody_listens = self.told.send(told).await;
    }
}

/// What runs in the slot from now on is not this instance.
pub(super) fn forget(state_dir: &Path, slot: &Slot) {
    let forgotten = slot::recorded(state_dir, &slot.id).and_then(|recorded| match recorded {
        Some(found) if found.instance == slot.occupant.instance => slot::forget(state_dir, &slot.id),
        _ => Ok(()),
    });
    if let Err(error) = forgotten {
        warn!(slot = %slot.id, %error, "the record of an instance that has ended is left behind");
    }
}
