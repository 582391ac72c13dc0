//! What a step changes in the core at the moment it is begun. One exhaustive match; an illegal step is an error value.

use handover_proto::ids::InstanceId;

use super::deadline::Boot;
use super::ladder::Doom;
use super::local::{Call, Chore, LiveLease, Local};
use super::record::{Published, Told};
use super::state::{Core, Order, Pending, Stage, Why};
use super::step::LeaseStep;
use super::upkeep::REST;
use super::versions::Trust;

/// A step that does not fit the state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// An instance that the keeper does not have.
    #[error("step {step} for instance {instance}, which is not of this host")]
    Unknown {
        /// The step's name.
        step: &'static str,
        /// For whom.
        instance: InstanceId,
    },
    /// The state has no such arrow.
    #[error("step {step} does not fit the state of instance {instance}")]
    Arrow {
        /// The step's name.
        step: &'static str,
        /// For whom.
        instance: InstanceId,
    },
    /// A second one while the first is under way.
    #[error("step {0} is under way already")]
    Twice(&'static str),
}

impl Core {
    /// Notes that `step` has been begun.
    ///
    /// # Errors
    /// [`Illegal`]; nothing has changed then, and the step must not be carried out.
    pub fn started(&mut self, step: &LeaseStep, now: Boot) -> Result<(), Illegal> {
        match step {
            LeaseStep::Save(_) => once("Save", &mut self.save),
            LeaseStep::Read(_) => {
                once("Read", &mut self.read)?;
                self.read_floor = self.picture.revision();
                if let Some(pending) = self.pending.as_mut().filter(|pending| pending.stage == Stage::Answered) {
                    pending.stage = Stage::Reading;
                }
                Ok(())
            }
            LeaseStep::PutRoster(_) => once("PutRoster", &mut self.roster_put),
            LeaseStep::Survey => once("Survey", &mut self.survey),
            LeaseStep::AskCertificate { .. } => once("AskCertificate", &mut self.ask),
            LeaseStep::Relist => {
                self.picture.listing_begun();
                // Its members may be others.
                self.trust = Trust::default();
                self.survey.hasten(now);
                Ok(())
            }
            LeaseStep::Move { instance, kind, op, .. } => {
                if self.pending.is_some() {
                    return Err(Illegal::Twice("Move"));
                }
                self.local("Move", instance)?;
                let (op, instance) = (op.clone(), instance.clone());
                self.pending = Some(Pending { op, instance, kind: *kind, stage: Stage::Sent });
                Ok(())
            }
            LeaseStep::Revoke { lease } => match self.spent.get_mut(lease) {
                Some(chore) => once("Revoke", chore),
                None => Err(Illegal::Twice("Revoke")),
            },
            LeaseStep::Forget { instance } => {
                self.local("Forget", instance)?;
                self.locals.remove(instance);
                Ok(())
            }
            LeaseStep::End { instance } | LeaseStep::Drop { instance } => self.let_go(step.name(), instance),
            LeaseStep::Wait { .. } => Ok(()),
            LeaseStep::Begin { instance, .. }
            | LeaseStep::Leave { instance }
            | LeaseStep::Order { instance, .. }
            | LeaseStep::Decline { instance, .. }
            | LeaseStep::Adopt { instance, .. }
            | LeaseStep::Tell { instance, .. }
            | LeaseStep::Kill { instance }
            | LeaseStep::Renew { instance, .. }
            | LeaseStep::Grant { instance, .. }
            | LeaseStep::PutCandidate { instance, .. } => {
                let rest = now.plus(self.settings.c_kill);
                let doom = self.locals.get(instance).and_then(|local| self.doom(local, now));
                self.local(step.name(), instance)?.started(step, now, (rest, doom))
            }
        }
    }

    fn local(&mut self, step: &'static str, instance: &InstanceId) -> Result<&mut Local, Illegal> {
        self.locals.get_mut(instance).ok_or_else(|| Illegal::Unknown { step, instance: instance.clone() })
    }

    /// Ends a turn, or a candidacy: a lease that has carried a beat never carries another turn's.
    fn let_go(&mut self, step: &'static str, instance: &InstanceId) -> Result<(), Illegal> {
        let present = self.is_holder(instance);
        let local = self.local(step, instance)?;
        let turn = local.turn.take();
        // After T5 the new turn's beat is bound to the lease that is live now.
        if !present && let Some(live) = local.live.take_if(|live| live.used || turn.is_none()) {
            self.spent.insert(live.id, Chore::default());
        }
        Ok(())
    }

    /// What `local`'s service is told, as of the last step.
    pub(super) fn published(&self, local: &Local) -> Published {
        let order = &local.service.order;
        let told = match order {
            Order::Unknown => Told::Unknown,
            Order::Stopped => Told::Stopped,
            Order::Active => Told::Active,
            Order::Quiesce(_) => Told::Quiesce,
            Order::Fenced => Told::Fenced,
        };
        let op = match order {
            Order::Quiesce(Why::HandOver(op) | Why::Park(op)) => Some(op.clone()),
            Order::Quiesce(_) | Order::Unknown | Order::Stopped | Order::Active | Order::Fenced => None,
        };
        let has_right = matches!(told, Told::Active | Told::Quiesce);
        let turn = local.turn.as_ref();
        Published {
            told,
            token: turn.map(|turn| turn.token),
            seq: local.service.seq,
            op,
            deadlines: turn.and_then(|turn| turn.deadlines).filter(|_| has_right),
            reason: order.reason(),
        }
    }
}

impl Local {
    fn started(&mut self, step: &LeaseStep, now: Boot, kill: (Boot, Option<Doom>)) -> Result<(), Illegal> {
        let name = step.name();
        let illegal = || Illegal::Arrow { step: name, instance: self.wanted.owner.instance.clone() };
        match step {
            LeaseStep::Begin { turn, .. } if self.turn.is_none() => {
                if let Some(live) = self.live.as_mut() {
                    live.used = true;
                }
                self.turn = Some(turn.clone());
            }
            LeaseStep::Leave { .. } => self.turn.as_mut().ok_or_else(illegal)?.leaving = true,
            LeaseStep::Order { order, .. } => return self.ordered(order, now),
            LeaseStep::Decline { op, .. } => self.declined = Some(op.clone()),
            LeaseStep::Adopt { lease, ttl, used, .. } if self.live.is_none() => {
                self.live = Some(LiveLease::new(*lease, *ttl, *used));
                self.had_lease = true;
            }
            LeaseStep::Tell { record, .. } => {
                self.service.sent = record.seq;
                let (order, token) = (self.service.order.clone(), record.token);
                self.service.pulse.asked();
                self.service.call = Some(Call { seq: record.seq, order, token });
            }
            // Repeated as long as it takes: what was sent once may have met a process that was just starting another.
            LeaseStep::Kill { .. } => {
                let (rest, doom) = kill;
                self.kill = Chore { running: false, not_before: rest };
                self.doomed = Some(doom.ok_or_else(illegal)?);
            }
            LeaseStep::Renew { .. } => return once(name, &mut self.live.as_mut().ok_or_else(illegal)?.renew),
            LeaseStep::Grant { .. } => return once(name, &mut self.grant),
            LeaseStep::PutCandidate { .. } => return once(name, &mut self.put),
            LeaseStep::Begin { .. }
            | LeaseStep::Adopt { .. }
            | LeaseStep::End { .. }
            | LeaseStep::Drop { .. }
            | LeaseStep::Forget { .. }
            | LeaseStep::Save(_)
            | LeaseStep::PutRoster(_)
            | LeaseStep::Survey
            | LeaseStep::AskCertificate { .. }
            | LeaseStep::Relist
            | LeaseStep::Read(_)
            | LeaseStep::Move { .. }
            | LeaseStep::Revoke { .. }
            | LeaseStep::Wait { .. } => return Err(illegal()),
        }
        Ok(())
    }

    fn ordered(&mut self, order: &Order, now: Boot) -> Result<(), Illegal> {
        let name = "Order";
        let illegal = || Illegal::Arrow { step: name, instance: self.wanted.owner.instance.clone() };
        match (order, self.turn.as_mut()) {
            (Order::Active, Some(turn)) if !turn.haunted => {
                turn.leaving = false;
                self.service.begun = Some(turn.token);
                self.stopped_since = None;
                // From here on it may work, whether or not the call arrives: it can ask by itself.
                self.service.idle = false;
            }
            (Order::Active, _) | (Order::Stopped, Some(_)) | (Order::Fenced | Order::Quiesce(_), None) => {
                return Err(illegal());
            }
            (Order::Stopped | Order::Unknown, None) | (Order::Unknown | Order::Quiesce(_) | Order::Fenced, Some(_)) => {
            }
        }
        self.service.order = order.clone();
        self.service.ordered_at = now;
        self.service.trouble = None;
        self.service.pulse.restart(now);
        self.service.not_before = now.plus(REST);
        self.service.renumber(now);
        self.service.ordered_seq = self.service.seq;
        Ok(())
    }
}

fn once(step: &'static str, chore: &mut Chore) -> Result<(), Illegal> {
    if chore.running {
        return Err(Illegal::Twice(step));
    }
    chore.begin();
    Ok(())
}
