//! The keeper's decision: from everything that is known, the one thing to do next.
//!
//! `next` is pure; the shell carries its step out, tells the core that it [`started`](Core::started) and asks again, until
//! there is nothing but to wait. Answers come back as [events](super::event).

use std::time::Duration;

use handover_proto::ids::{InstanceId, OpId};
use handover_proto::lease::Refused;
use handover_proto::numbers::{NumberError, Token};
use handover_proto::planted::{Mistake, planted};
use handover_proto::stored::StoredError;

use super::deadline::{Boot, Deadlines};
use super::local::{LiveLease, Local};
use super::state::{Core, MyTurn, Order, Why};
use super::step::LeaseStep;
use super::waiting::Waiting;

/// Longest that a service may take to install its token before it is asked again.
const START_LIMIT: Duration = Duration::from_secs(5);
/// Longest call where nothing depends on the answer's moment.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Shortest call: a service on the same host answers within it.
const MIN_CALL: Duration = Duration::from_millis(100);

/// What comes from outside of the core.
#[derive(Debug, Clone)]
pub struct Now {
    /// The clock that decides.
    pub boot: Boot,
    /// Wall clock, Unix milliseconds: written for people.
    pub wall_ms: u64,
    /// An operation id that was never used.
    pub op: OpId,
}

/// No decision is possible.
#[derive(Debug, thiserror::Error)]
pub enum NextError {
    /// A revision or era that does not fit a token.
    #[error("the store's numbers make no token; the lease stays as it is")]
    Token(#[from] NumberError),
    /// A value without a stored form.
    #[error("cannot write the candidate key; the lease stays as it is")]
    Candidate(#[from] StoredError),
}

impl Core {
    /// The next step.
    ///
    /// # Errors
    /// [`NextError`]; asking again without an event gives the same.
    pub fn next(&self, now: &Now) -> Result<LeaseStep, NextError> {
        for (id, local) in self.by_weight() {
            if let Some(step) = self.bookkeeping(id, local, now.boot)? {
                return Ok(step);
            }
        }
        for (id, local) in self.by_weight() {
            if let Some(step) = self.toward_service(id, local, now.boot) {
                return Ok(step);
            }
        }
        if self.picture.wants_listing() {
            return Ok(LeaseStep::Relist);
        }
        if let Some(txn) = self.read_due(now.boot) {
            return Ok(LeaseStep::Read(txn));
        }
        let (step, reason) = self.movement(now);
        if let Some(step) = step {
            return Ok(step);
        }
        for (id, local) in self.by_weight() {
            if let Some(step) = self.standing_work(id, local, now)? {
                return Ok(step);
            }
        }
        if let Some(memory) = self.save_due(now.boot) {
            return Ok(LeaseStep::Save(memory));
        }
        if let Some((agent, token)) = self.certificate_due(now.boot) {
            return Ok(LeaseStep::AskCertificate { agent, token });
        }
        if let Some(txn) = self.roster_due(now.boot) {
            return Ok(LeaseStep::PutRoster(txn));
        }
        if self.survey_due(now.boot) {
            return Ok(LeaseStep::Survey);
        }
        if let Some(lease) = self.revoke_due(now.boot) {
            return Ok(LeaseStep::Revoke { lease });
        }
        Ok(LeaseStep::Wait { until: self.wake_at(now.boot), reason })
    }

    /// Steps that only change what the keeper itself knows.
    fn bookkeeping(&self, id: &InstanceId, local: &Local, now: Boot) -> Result<Option<LeaseStep>, NextError> {
        let instance = || id.clone();
        if let Some(LiveLease { id: lease, ttl, used, .. }) = self.adoptable(local) {
            return Ok(Some(LeaseStep::Adopt { instance: instance(), lease, ttl, used }));
        }
        match &local.turn {
            None => {
                if let Some(turn) = self.new_turn(local, now)? {
                    return Ok(Some(LeaseStep::Begin { instance: instance(), turn }));
                }
            }
            Some(turn) if self.is_over(local, turn) => return Ok(Some(LeaseStep::End { instance: instance() })),
            Some(turn) if !turn.leaving && self.wants_to_leave(local) => {
                return Ok(Some(LeaseStep::Leave { instance: instance() }));
            }
            Some(_) => {}
        }
        if let Some(op) = self.declines(local, now) {
            return Ok(Some(LeaseStep::Decline { instance: instance(), op }));
        }
        let order = self.order_for(local, now);
        if local.is_alive() && order != local.service.order {
            return Ok(Some(LeaseStep::Order { instance: instance(), order }));
        }
        if self.has_idle_lease(local) {
            return Ok(Some(LeaseStep::Drop { instance: instance() }));
        }
        Ok(self.is_gone(local).then(|| LeaseStep::Forget { instance: instance() }))
    }

    fn new_turn(&self, local: &Local, now: Boot) -> Result<Option<MyTurn>, NextError> {
        let me = &local.wanted.owner.instance;
        let Some((seen, held)) = self.picture.held().filter(|(_, held)| self.owns(held, me)) else {
            return Ok(None);
        };
        if !self.picture.is_known() || !local.is_alive() {
            return Ok(None);
        }
        // A copy of this host goes by the same name: only the one whose transaction it was may work under it (F26).
        if local.copied && self.confirmed.as_ref() != Some(&seen.value.op) {
            return Ok(None);
        }
        let base =
            local.live.as_ref().filter(|live| live.id == held.lease_id).and_then(|live| Some((live.base?, live.ttl)));
        let base = base.or_else(|| planted(Mistake::BaseFromRestart).then_some((now, self.settings.ttl)));
        let counted = if planted(Mistake::CreateRevisionToken) { seen.create_revision } else { seen.mod_revision };
        // A service that this process has not seen stopped may have been told ACTIVE by an earlier one, which may also
        // have sent a T3 or T4 since.
        let inherited = !local.service.idle;
        Ok(Some(MyTurn {
            revision: seen.mod_revision,
            token: Token::new(seen.value.era, counted)?,
            adopted: now,
            deadlines: base.map(|(base, ttl)| Deadlines::of(base, ttl, &self.settings)),
            leaving: inherited,
            haunted: inherited,
            inherited,
        }))
    }

    /// Whether the turn is put away: the store has gone on, and nobody works under it. One that died without proof ends
    /// too: the quarantine of whoever takes over is there for it.
    fn is_over(&self, local: &Local, turn: &MyTurn) -> bool {
        let gone = !self.is_present(&local.wanted.owner.instance, turn);
        self.picture.is_known() && gone && (local.is_stopped() || !local.is_alive())
    }

    /// Kill, or call.
    fn toward_service(&self, id: &InstanceId, local: &Local, now: Boot) -> Option<LeaseStep> {
        if !local.is_alive() {
            return None;
        }
        if local.kill.is_due(now) && self.doom(local, now).is_some() {
            return Some(LeaseStep::Kill { instance: id.clone() });
        }
        let service = &local.service;
        let news = service.sent < service.seq;
        let again = service.call.is_none() && service.answered < service.seq && now >= service.not_before;
        let listens = match service.order {
            Order::Unknown => false,
            Order::Stopped => local.wanted.ready,
            Order::Active | Order::Quiesce(_) | Order::Fenced => true,
        };
        if !listens || !(news || again) {
            return None;
        }
        Some(LeaseStep::Tell {
            instance: id.clone(),
            record: self.published(local),
            limit: self.call_limit(local, now),
        })
    }

    fn call_limit(&self, local: &Local, now: Boot) -> Duration {
        let Some(turn) = &local.turn else { return self.settings.attempt };
        let deadlines = self.deadlines(turn);
        let limit = match &local.service.order {
            Order::Active if local.service.works(turn.token) => self.settings.attempt,
            Order::Active => deadlines.soft.since(now).min(START_LIMIT),
            Order::Quiesce(Why::HandOver(_) | Why::Park(_)) => {
                self.quiesce_deadline(local).map_or(CALL_LIMIT, |end| end.since(now))
            }
            // Asked several times before it counts as hanging.
            Order::Quiesce(Why::GiveUp | Why::Haunted) => CALL_LIMIT.min(self.stall(local) / 4),
            Order::Quiesce(_) | Order::Fenced => deadlines.hard.since(now),
            Order::Unknown | Order::Stopped => self.settings.attempt,
        };
        limit.max(MIN_CALL)
    }

    /// The one transaction that may be sent, or the weightiest reason why none may.
    fn movement(&self, now: &Now) -> (Option<LeaseStep>, Option<Waiting>) {
        let mut reason = None;
        for (id, local) in self.by_weight() {
            let refused = match self.move_for(local, now.boot) {
                Ok(None) => continue,
                Ok(Some(_)) if now.boot < self.move_rest => Waiting::Store(self.store_trouble.clone()),
                Ok(Some(kind)) => match self.build(local, kind, now) {
                    Ok((op, txn)) => return (Some(LeaseStep::Move { instance: id.clone(), kind, op, txn }), None),
                    Err(Refused::Frozen) => Waiting::Frozen,
                    Err(refused) => Waiting::Refused(refused.to_string()),
                },
                Err(waiting) => waiting,
            };
            reason = reason.or(Some(refused));
        }
        (None, reason)
    }

    fn standing_work(&self, id: &InstanceId, local: &Local, now: &Now) -> Result<Option<LeaseStep>, NextError> {
        let instance = id.clone();
        if let Some((lease, member, barrier, expected)) = self.renewal_due(local, now.boot) {
            return Ok(Some(LeaseStep::Renew { instance, lease, member, barrier, expected }));
        }
        if self.needs_lease(local) && local.grant.is_due(now.boot) {
            return Ok(Some(LeaseStep::Grant { instance, ttl: self.settings.ttl }));
        }
        let candidate = self.candidate_due(local, now)?;
        Ok(candidate.map(|txn| LeaseStep::PutCandidate { instance, txn }))
    }

    /// The next moment at which something may fall due. Whatever is due already and still not done waits for an event.
    fn wake_at(&self, now: Boot) -> Option<Boot> {
        let mut moments = vec![Some(self.poll_at()), self.read.due_at(), self.save.due_at(), Some(self.move_rest)];
        moments.extend([self.survey.due_at(), self.ask.due_at(), self.roster_put.due_at()]);
        moments.extend(self.taking_moments().map(Some));
        moments.push(self.intent_deadline(super::order::PREPARE_LIMIT));
        moments.extend(self.spent.values().map(|chore| chore.due_at()));
        for local in self.locals.values() {
            moments.extend([local.grant.due_at(), local.put.due_at(), local.kill.due_at()]);
            moments.extend([Some(local.service.not_before), self.quiesce_deadline(local), self.judged_at(local)]);
            moments.push(local.live.as_ref().and_then(|live| live.renew.due_at()));
            let deadlines = local.turn.as_ref().map(|turn| self.deadlines(turn));
            moments.extend([deadlines.map(|d| d.soft), deadlines.map(|d| d.hard)]);
            // As a candidate it is fit until its own soft deadline.
            moments.push(local.live.as_ref().and_then(|live| self.fit_until(live)));
        }
        moments.into_iter().flatten().filter(|moment| *moment > now).min()
    }
}
