//! The agent's loop: observe, decide ([`crate::core::next`]), act, report; then wait for whatever happens next.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::InstanceId;
use handover_proto::numbers::Term;
use handover_proto::wire::Report;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::balancer::Balancers;
use crate::clock;
use crate::config::Config;
use crate::core::accept::{Accepted, Offer, Verdict, judge};
use crate::core::next::{Next, Waiting, next};
use crate::core::observed::{Instance, Observed, Slot};
use crate::driver::Told;
use crate::host::Host;
use crate::lease::KeeperHandle;
use crate::lease::wanted::{KeeperStatus, LeaseState, Wanted};
use crate::notify::ServiceManager;
use crate::place::Place;
use crate::register::FromStore;
use crate::report::{Sources, report};
use crate::routing::Routing;
use crate::service::{Answer, OfferError, Offered};
use crate::stager::Stager;

/// Laps in a row without waiting. A start takes four; more than this is a decision that undoes itself.
const LAPS: usize = 32;
/// A report goes out at least this often, though nothing changed: an observation older than two seconds decides nothing
/// at the coordinator (`SAFETY.md` R1). It comes from the main loop itself, so that it proves that the loop turns.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How long an agent that ends waits for the answer to a start, which takes milliseconds. Its watchdog has three seconds.
const STARTS_HEARD: Duration = Duration::from_secs(2);

/// All that the loop owns.
pub(crate) struct AgentLoop {
    pub(crate) config: Arc<Config>,
    pub(crate) boot_id: String,
    pub(crate) host: Host,
    pub(crate) routing: Routing,
    pub(crate) balancers: Balancers,
    pub(crate) keeper: Option<KeeperHandle>,
    /// Has versions in place ahead of their window, beside the loop.
    pub(crate) stager: Stager,
    pub(crate) wanted: watch::Sender<Wanted>,
    pub(crate) reports: watch::Sender<Report>,
    /// Hears what is awaited.
    pub(crate) manager: ServiceManager,
    /// What the loop itself remembers.
    pub(crate) memory: Memory,
}

/// What the loop remembers from lap to lap, for reports and the log only.
#[derive(Default)]
pub(crate) struct Memory {
    blocker: Option<Blocker>,
    last_sentence: String,
    /// When the last report went out.
    reported: Duration,
    /// An agent that starts says nothing before it has heard its gate, up to here.
    silent_until: Duration,
    /// Somebody else has our name.
    name_taken: Option<Waiting>,
    /// When the assignment in force was taken; zero: before this agent began.
    assigned_at: Duration,
    /// An assignment that could not be recorded.
    untaken: Option<Offer>,
}

impl Memory {
    /// Nothing is remembered yet, and nothing is said before the gate was heard, or this moment.
    pub(crate) fn silent_until(moment: Duration) -> Self {
        Self { silent_until: moment, ..Self::default() }
    }
}

impl AgentLoop {
    /// Turns until SIGTERM or SIGINT.
    pub(crate) async fn go(
        &mut self,
        offers: &mut mpsc::Receiver<Offered>,
        from_store: &mut mpsc::Receiver<FromStore>,
        mut driver: mpsc::Receiver<Told>,
        wake: &Notify,
    ) -> Result<()> {
        let mut gate = self.routing.watch();
        let mut keeper = self.keeper.as_ref().map(|keeper| keeper.status.clone());
        let mut stop = crate::signals::stop()?;
        self.manager.ready("looks at what runs");
        loop {
            let wake_at = self.settle().unwrap_or(Duration::MAX);
            let until = wake_at.min(self.memory.reported + REPORT_EVERY).saturating_sub(clock::boot());
            tokio::select! {
                offered = offers.recv() => self.offered(offered.context("the agent's gRPC surface ended")?),
                said = from_store.recv() => self.store_said(said.context("what follows the store ended")?),
                told = driver.recv() => self.driver_told(&told.context("the driver ended")?),
                link = gate.changed() => link.context("the link to the gate ended")?,
                ended = changed(&mut keeper) => ended.context("the lease keeper ended; its last words are in the log")?,
                why = self.stager.broken() => bail!("what has versions in place ahead of their window ended: {why}"),
                () = wake.notified() => {}
                () = tokio::time::sleep(until) => {}
                () = stop.recv() => break,
            }
        }
        const GOES_ON: &str = "instances, gate and lease go on without the agent";
        info!("stopping; {GOES_ON}");
        self.manager.stopping(GOES_ON);
        if timeout(STARTS_HEARD, self.host.await_starts(&mut driver)).await.is_err() {
            warn!("a start is still under way; the next agent looks what became of it");
        }
        self.stager.stop().await;
        Ok(())
    }

    /// Laps until nothing is left to do now. Returns when to look again though nothing happened.
    fn settle(&mut self) -> Option<Duration> {
        // What it holds up is the next agent's adoption, and nothing of this one's work.
        let unrecorded = self.host.record_again();
        let mut trouble = self.host.note_readiness();
        self.offer_again();
        for _ in 0..LAPS {
            let observed = self.observe();
            let assignment = self.host.file.state.accepted.as_ref().and_then(|accepted| accepted.parsed.clone());
            let decided = next(assignment.as_ref(), &observed, self.config.grace(), clock::boot());
            let Some(decided) = decided else {
                self.tell_keeper(None);
                self.publish(&observed, self.unreadable());
                return None;
            };
            self.routing.tell(&decided.routes);
            self.balancers.tell(&decided.wishes);
            self.tell_keeper(Some(&decided));
            if decided.effects.is_empty() || trouble.is_some() {
                self.note_reached(&decided);
                self.publish(&observed, trouble.or(unrecorded).or(decided.waiting.clone()));
                return [decided.wake_at, self.host.trust_ends(clock::boot())].into_iter().flatten().min();
            }
            for effect in &decided.effects {
                trouble = self.host.act(effect).or(trouble);
            }
        }
        let sentence = "the agent's decisions do not come to rest; please report this with the log".to_owned();
        let observed = self.observe();
        self.memory.reported = clock::boot();
        self.publish(&observed, Some(Waiting { kind: BlockerKind::Unknown, sentence }));
        None
    }

    fn observe(&mut self) -> Observed {
        let keeper = self.keeper.as_ref().map(|keeper| keeper.status.borrow().clone());
        let lets_go = |instance: &_| keeper.as_ref().is_none_or(|status| may_stop(status, instance));
        let held = |instance: &InstanceId| keeper.as_ref().is_some_and(|status| holds(status, instance));
        self.host.forget_departed(held);
        let front = self.balancers.seen();
        let gate = self.routing.seen(&front, &mut self.config.slots.keys());
        self.routing.count(self.host.places.values().filter_map(Place::watched).collect());
        let assigned_at = self.memory.assigned_at;
        let slots = self.host.places.iter_mut().map(|(id, place)| {
            let instance = place.running.as_mut().map(|running| {
                let id = running.record.instance.clone();
                let cut_off = running.record.lifecycle.is_none() || gate.sends_nothing_to(&id);
                let ledger = running.ledger(self.routing.ledger(&id), cut_off, assigned_at);
                Instance {
                    version: running.record.version.clone(),
                    process: running.process,
                    lifecycle: running.record.lifecycle,
                    ready: running.ready(),
                    unmet: running.unmet(),
                    left: running.left.clone(),
                    refused: running.refused().map(str::to_owned),
                    ledger,
                    draining_since: running.draining_since,
                    holds_lease: keeper.as_ref().is_some_and(|status| holds(status, &id)),
                    lease_lets_stop: lets_go(&id),
                    id,
                }
            });
            (id.clone(), Slot { instance, crashes: place.crashes.clone() })
        });
        let slots = slots.collect();
        Observed { slots, gate, front }
    }

    fn tell_keeper(&self, decided: Option<&Next>) {
        let none = Next::default();
        let decided = decided.unwrap_or(&none);
        let wanted = self.host.wanted(&decided.lease, &decided.prefer);
        self.wanted.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }

    fn note_reached(&mut self, decided: &Next) {
        let serial = self.host.file.state.accepted.as_ref().map(|accepted| accepted.serial);
        let Some(serial) = serial.filter(|_| decided.reached) else { return };
        if let Err(error) = self.host.file.change(|state| state.reached = serial) {
            warn!(%error, "what was reached could not be recorded");
        }
    }

    /// One sentence per lap that changed something, and the report.
    fn publish(&mut self, observed: &Observed, waiting: Option<Waiting>) {
        // What an outside check would take for a lost host: an agent that has just started, and has not heard its gate.
        if self.accepted_serial() > 0 && observed.gate.applied.is_none() && clock::boot() < self.memory.silent_until {
            return;
        }
        let waiting = self.memory.name_taken.clone().or(waiting);
        let sentence = match &waiting {
            Some(waiting) => format!("waiting for {}: {}", waiting.kind, waiting.sentence),
            None if self.accepted_serial() == 0 => "no assignment yet".to_owned(),
            None => "as assigned".to_owned(),
        };
        if sentence != self.memory.last_sentence {
            info!(serial = self.accepted_serial(), "{sentence}");
            self.manager.status(&sentence);
            self.memory.last_sentence = sentence;
        }
        let since = |kind: BlockerKind| match &self.memory.blocker {
            Some(blocker) if blocker.kind == kind => blocker.since_ms,
            _ => clock::wall_ms(),
        };
        self.memory.blocker = waiting.map(|waiting| Blocker {
            kind: waiting.kind,
            since_ms: since(waiting.kind),
            waiting_for: waiting.sentence,
        });
        let keeper = self.keeper.as_ref().map(|keeper| keeper.status.borrow().clone());
        let gate = self.routing.report();
        let fresh = report(&Sources {
            config: &self.config,
            boot_id: &self.boot_id,
            host: &self.host,
            observed,
            gate: gate.as_ref(),
            signalled: self.routing.signalled(),
            wishes: &self.balancers.wishes(),
            keeper: keeper.as_ref(),
            blocker: self.memory.blocker.as_ref(),
            staging: self.stager.report(),
        });
        let due = clock::boot() >= self.memory.reported + REPORT_EVERY;
        let sent = self.reports.send_if_modified(|before| {
            let mut fresh = Report { sent_ms: before.sent_ms, ..fresh };
            let changed = due || *before != fresh;
            if changed {
                fresh.sent_ms = clock::wall_ms();
            }
            *before = fresh;
            changed
        });
        if sent {
            self.memory.reported = clock::boot();
        }
    }

    /// The accepted assignment is one that this agent cannot read.
    fn unreadable(&self) -> Option<Waiting> {
        let reason = self.host.file.unreadable.as_ref()?;
        let serial = self.accepted_serial();
        let sentence = format!("assignment {serial} needs a newer agent ({reason}); what serves goes on serving");
        Some(Waiting { kind: BlockerKind::Refused, sentence })
    }

    /// An assignment that the disk refused is tried again with each lap.
    fn offer_again(&mut self) {
        if let Some(offer) = self.memory.untaken.take() {
            self.store_said(FromStore::Assigned(offer));
        }
    }

    fn accepted_serial(&self) -> i64 {
        self.host.file.state.accepted.as_ref().map_or(0, |accepted| accepted.serial.0)
    }

    fn offered(&mut self, offered: Offered) {
        let answer = self.judge(&offered.offer, offered.verified);
        if let Err(error) = &answer {
            warn!(%error, "an assignment was not taken");
        }
        // The caller may have given up; the assignment counts all the same.
        drop(offered.answer.send(answer));
    }

    /// Records what is new before anything acts on it.
    fn judge(&mut self, offer: &Offer, verified: Option<Term>) -> Result<Answer, OfferError> {
        match judge(self.host.file.state.accepted.as_ref(), offer, verified)? {
            Verdict::Same => Ok(Answer::Accepted(offer.serial)),
            Verdict::VerifyTerm(_) => Ok(Answer::VerifyTerm),
            Verdict::New(assignment) => {
                self.host.forget_crashes(&assignment);
                let accepted = Accepted {
                    term: offer.term,
                    serial: offer.serial,
                    text: offer.text.clone(),
                    parsed: Some(*assignment),
                };
                let saved = self.host.file.change(|state| state.accepted = Some(accepted));
                saved.map_err(|error| OfferError::Disk(crate::report::chain(&error)))?;
                self.host.file.unreadable = None;
                self.memory.assigned_at = clock::boot();
                Ok(Answer::Accepted(offer.serial))
            }
        }
    }

    fn store_said(&mut self, said: FromStore) {
        match said {
            FromStore::Registered => self.memory.name_taken = None,
            // The name was taken while we were away: whatever serves goes on serving, but orders are not for us.
            FromStore::Refused(error) => {
                let sentence = crate::report::chain(&error);
                self.memory.name_taken = Some(Waiting { kind: BlockerKind::Refused, sentence });
            }
            FromStore::Away(reason) => debug!(%reason, "the store is away"),
            FromStore::Assigned(_) if self.memory.name_taken.is_some() => {}
            FromStore::Assigned(offer) => {
                let term = offer.term;
                match self.judge(&offer, Some(term)) {
                    Ok(_) => {}
                    Err(error @ OfferError::Disk(_)) => {
                        debug!(%error, "to be tried again");
                        self.memory.untaken = Some(offer);
                    }
                    Err(error) => warn!(%error, "the assignment in the store was not taken"),
                }
            }
        }
    }

    fn driver_told(&mut self, told: &Told) {
        if let Some(trouble) = self.host.told(told) {
            warn!(reason = trouble.sentence, "what became of an instance could not be recorded");
        }
    }
}

fn holds(status: &KeeperStatus, instance: &InstanceId) -> bool {
    use LeaseState::{Candidate, Fenced, Holder, None, Quiescing, Starting, Stopped};
    status.instances.get(instance).is_some_and(|lease| match lease.state {
        Starting | Holder | Quiescing | Stopped => true,
        None | Candidate | Fenced => false,
    })
}

fn may_stop(status: &KeeperStatus, instance: &InstanceId) -> bool {
    status.instances.get(instance).is_some_and(|lease| lease.may_stop)
}

async fn changed(keeper: &mut Option<watch::Receiver<KeeperStatus>>) -> Result<(), watch::error::RecvError> {
    match keeper {
        Some(status) => status.changed().await,
        None => std::future::pending().await,
    }
}
