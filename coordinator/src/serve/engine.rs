//! The engine: look, decide, record, again. Every decision is the core's; here is only how it is carried out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use handover_proto::ids::{RolloutId, Service};
use handover_proto::numbers::Serial;
use handover_store::client::{Store, StoreError};
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

use super::failpoint::{self, Side};
use super::journal::{Append, AppendError, Appended};
use super::leader::Mandate;
use super::orders::Request;
use super::standing::Memory;
use super::standing_write::WriteError;
use super::told::{sentence, span};
use crate::clock::{boot, wall_ms};
use crate::core::event::{JournalError, Record};
use crate::core::next::{Act, Decision, Now, next};
use crate::core::samples::Samples;
use crate::rollout::{Rollout, RolloutError};
use crate::world::{Waiting, World};

/// After a record was not written because something moved, unless the world changes before.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A lap in which nothing was decided is followed by a rest of so many times what it took, up to the longest. Reports of a
/// large fleet arrive all the time, and must not keep a core busy; but whatever a rollout waits for waits through the rest.
const RESTS: u32 = 4;
const LONGEST_REST: Duration = Duration::from_millis(20);

/// Why the engine cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A record could not be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The store could not be listed at the beginning.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record could not be made.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A rollout cannot be continued.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// A standing order could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The world is gone: the coordinator stops.
    #[error("the coordinator stops")]
    Stopped,
}

/// Decides and records while this coordinator leads.
pub struct Engine {
    pub(super) store: Store,
    pub(super) world: Arc<watch::Sender<World>>,
    pub(super) mandate: Mandate,
    courses: BTreeMap<RolloutId, Course>,
    pub(super) memory: Memory,
}

/// A rollout under way, and what this coordinator remembers of it.
struct Course {
    rollout: Rollout,
    samples: Samples,
    said: String,
}

/// What a lap came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lap {
    /// Something was recorded: look again at once.
    Again,
    /// Nothing to do until something changes, or until this boot time.
    Wait(Option<Duration>),
}

impl Lap {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Again, _) | (_, Self::Again) => Self::Again,
            (Self::Wait(a), Self::Wait(b)) => Self::Wait(a.into_iter().chain(b).min()),
        }
    }
}

impl Engine {
    /// An engine under `mandate`. `world` must be kept up to date by somebody else.
    pub fn new(store: Store, world: Arc<watch::Sender<World>>, mandate: Mandate) -> Self {
        Self { store, world, mandate, courses: BTreeMap::new(), memory: Memory::default() }
    }

    /// Decides at every change and answers requests, until the leadership is lost.
    ///
    /// # Errors
    /// [`EngineError`], in the end always: usually [`AppendError::Deposed`].
    pub async fn run(mut self, mut requests: mpsc::Receiver<Request>) -> Result<std::convert::Infallible, EngineError> {
        // What others wrote before we were elected may not have reached our watch yet.
        let prefix = self.world.borrow().keys.prefix();
        let listing = self.store.list(&prefix).await?;
        self.world.send_modify(|world| world.relist(listing));
        let mut changes = self.world.subscribe();
        loop {
            changes.mark_unchanged();
            let began = tokio::time::Instant::now();
            let until = match self.round().await? {
                Lap::Again => continue,
                Lap::Wait(until) => until,
            };
            let earliest = tokio::time::Instant::now() + LONGEST_REST.min(began.elapsed() * RESTS);
            let timer = async {
                match until {
                    Some(until) => tokio::time::sleep(until.saturating_sub(boot())).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| EngineError::Stopped)?,
                request = requests.recv() => self.answer(request.ok_or(EngineError::Stopped)?).await?,
                () = timer => {}
            }
            tokio::time::sleep_until(earliest).await;
        }
    }

    /// One lap for each rollout that runs, and for each standing order.
    async fn round(&mut self) -> Result<Lap, EngineError> {
        let claims = claims(&self.world.borrow());
        self.courses.retain(|id, _| claims.iter().any(|(_, claimed)| claimed == id));
        self.forget(&claims);
        let mut lap = Lap::Wait(None);
        for (service, id) in claims {
            let one = match self.lap(&service, &id).await {
                Ok(one) => one,
                Err(EngineError::Append(error @ (AppendError::Moved { .. } | AppendError::Lease { .. }))) => {
                    tracing::info!(rollout = %id, %error, "looking again");
                    Lap::Wait(Some(boot() + LOOK_AGAIN))
                }
                Err(EngineError::Append(error @ AppendError::Deposed { .. })) => return Err(error.into()),
                Err(error) => {
                    self.stuck(&service, &id, &error);
                    Lap::Wait(None)
                }
            };
            lap = lap.and(one);
        }
        let (wrote, until) = self.standing_round().await?;
        Ok(lap.and(if wrote { Lap::Again } else { Lap::Wait(until) }))
    }

    async fn lap(&mut self, service: &Service, id: &RolloutId) -> Result<Lap, EngineError> {
        let now = self.now();
        let (course, decision) = self.decide(service, id, now)?;
        let step = span(&course.rollout, now);
        let said = sentence(&course.rollout.plan, &decision);
        if course.said != said {
            step.in_scope(|| tracing::info!("{said}"));
            course.said = said;
        }
        match decision {
            Decision::Do(act) => {
                self.carry_out(id, *act, now).instrument(step).await?;
                Ok(Lap::Again)
            }
            Decision::Wait { blockers, until } => {
                let records = course.rollout.records.len();
                self.waiting(service, Waiting { records, blockers });
                Ok(Lap::Wait(until))
            }
            Decision::Ended(_) => Ok(Lap::Wait(None)),
        }
    }

    fn decide(&mut self, service: &Service, id: &RolloutId, now: Now) -> Result<(&mut Course, Decision), EngineError> {
        let world = self.world.borrow();
        if !self.courses.contains_key(id) {
            let rollout = Rollout::read(&world, id)?;
            tracing::info!(rollout = %id, records = rollout.records.len(), "continuing a rollout from its journal");
            let course = Course { rollout, samples: Samples::default(), said: String::new() };
            self.courses.insert(id.clone(), course);
        }
        let course = self.courses.get_mut(id).ok_or_else(|| RolloutError::Unknown(id.clone()))?;
        let fleet = world.fleet(service, now.wall_ms).map_err(RolloutError::from)?;
        let Rollout { plan, progress, .. } = &course.rollout;
        course.samples.observe(plan, progress, &fleet, now);
        let decision = next(plan, progress, &fleet, &course.samples, now);
        Ok((course, decision))
    }

    /// Records what was decided, and lets everybody know.
    pub(super) async fn carry_out(&mut self, id: &RolloutId, act: Act, now: Now) -> Result<(), EngineError> {
        let course = self.courses.get(id).ok_or_else(|| RolloutError::Unknown(id.clone()))?;
        let record = Record::after(course.rollout.records.last(), now.wall_ms, now.term, act.event.clone())?;
        let append = Append::next(&self.world.borrow(), &self.mandate, &course.rollout.plan, record, &act)?;
        let appended = append.commit(&self.store, &self.mandate).await?;
        tracing::debug!(seq = append.record.seq, serial = %appended.serial, "recorded");
        let service = course.rollout.plan.service.clone();
        self.publish(&append, appended, &service).await;
        if let Some(mut course) = self.courses.remove(id) {
            course.rollout = course.rollout.then(append.record)?;
            self.courses.insert(id.clone(), course);
        }
        Ok(())
    }

    /// Our own writes are known at once: the links deliver them without waiting for the watch.
    pub(super) async fn publish(&self, append: &Append, appended: Appended, service: &Service) {
        let seq = append.record.seq;
        failpoint::reach(seq, Side::Before);
        let Appended { entries, deleted, serial } = appended;
        self.world.send_modify(|world| world.wrote(entries, &deleted, serial.0));
        if failpoint::is_at(seq, Side::After) {
            let mut world = self.world.subscribe();
            let accepted = world.wait_for(|world| have_accepted(world, append, serial, service));
            // Whether they accepted or the time is over: it ends here.
            let _ = tokio::time::timeout(failpoint::ACCEPTED, accepted).await;
            failpoint::reach(seq, Side::After);
        }
    }

    /// How long the journal is, as far as this coordinator knows.
    pub(super) fn records(&self, id: &RolloutId) -> usize {
        self.courses.get(id).map_or(0, |course| course.rollout.records.len())
    }

    pub(super) fn now(&self) -> Now {
        Now { wall_ms: wall_ms(), boot: boot(), term: self.mandate.term }
    }

    /// The rollout as it stands, its journal read if this coordinator has not seen it yet.
    pub(super) fn course(&mut self, service: &Service, id: &RolloutId) -> Result<&Rollout, EngineError> {
        let now = self.now();
        self.decide(service, id, now).map(|(course, _)| &course.rollout)
    }
}

/// The rollouts that run, with their services. A claim that cannot be read shows in the status.
fn claims(world: &World) -> Vec<(Service, RolloutId)> {
    let claimed = |service: Service| Some((service.clone(), Rollout::claimed(world, &service).ok().flatten()?));
    world.services().into_iter().filter_map(claimed).collect()
}

fn have_accepted(world: &World, append: &Append, serial: Serial, service: &Service) -> bool {
    append.agents.iter().all(|agent| {
        let heard = world.heard.get(&(service.clone(), agent.clone()));
        heard.and_then(|heard| heard.report.as_ref()).is_some_and(|report| report.accepted >= serial.0)
    })
}
