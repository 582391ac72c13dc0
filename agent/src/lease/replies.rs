//! What the store's answers change in the core.

use std::time::Duration;

use handover_proto::ids::{InstanceId, OpId};
use handover_proto::numbers::Token;
use handover_proto::planted::{Mistake, planted};
use handover_proto::txn::{Op, Txn};
use handover_store::client::{Change, Entry, Grant, Renewal, StoreError, TxnReply};

use super::certificate::Certificate;
use super::deadline::{Boot, Deadlines};
use super::local::{Chore, LiveLease, Local};
use super::renewal::{Expectation, Verdict, accept};
use super::state::{Core, Move, Order, Pending, Stage};
use super::upkeep::REST;
use super::versions::Survey;

/// How often the members are asked for their versions (§1.14).
const SURVEY_EVERY: Duration = Duration::from_secs(3600);
/// After a member did not answer: it may come back as another version.
const SURVEY_RETRY: Duration = Duration::from_secs(30);
/// From one question for a certificate to the next: a service takes about so long to stop.
const ASK_REST: Duration = Duration::from_millis(500);

impl Core {
    pub(super) fn read_answered(&mut self, asked: &Txn, result: Result<TxnReply, StoreError>, now: Boot) {
        let reading = self.pending.take_if(|pending| pending.stage == Stage::Reading);
        match result {
            Ok(reply) => {
                self.store_trouble = None;
                let counts = self.picture.apply_read(asked, &reply, self.read_floor, now);
                self.read.end(if counts { now } else { now.plus(REST) });
            }
            Err(error) => {
                self.store_trouble = Some(error.to_string());
                self.pending =
                    reading.map(|pending| Pending { stage: Stage::Answered, ..pending }).or(self.pending.take());
                self.read.end(now.plus(REST));
            }
        }
    }

    pub(super) fn granted(&mut self, instance: &InstanceId, result: Result<Grant, StoreError>, now: Boot) {
        let min_ttl = self.settings.ttl;
        let Some(local) = self.locals.get_mut(instance) else {
            if let Ok(grant) = result {
                self.spent.insert(grant.id, Chore::default());
            }
            return;
        };
        local.grant.end(now);
        match result {
            Ok(grant) if planted(Mistake::RequestedTtl) => {
                local.live = Some(LiveLease::new(grant.id, min_ttl, false));
                local.had_lease = true;
            }
            // K2.
            Ok(grant) if grant.ttl >= min_ttl => {
                local.live = Some(LiveLease::new(grant.id, grant.ttl, false));
                local.had_lease = true;
            }
            Ok(grant) => {
                self.store_trouble =
                    Some(format!("the store granted a TTL of {:?} instead of {min_ttl:?} (K2)", grant.ttl));
                self.spent.insert(grant.id, Chore::default());
                local.grant.end(now.plus(REST));
            }
            Err(error) => {
                self.store_trouble = Some(error.to_string());
                local.grant.end(now.plus(REST));
            }
        }
    }

    pub(super) fn candidate_put(
        &mut self,
        id: &InstanceId,
        asked: &Txn,
        result: Result<TxnReply, StoreError>,
        now: Boot,
    ) {
        let Some(local) = self.locals.get_mut(id) else { return };
        local.put.end(now);
        match result {
            Ok(reply) if reply.succeeded => {
                let known = self.picture.view().candidates.get(id).map(|seen| seen.create_revision);
                if let Some(change) = written(asked, reply.revision, known) {
                    self.picture.apply_changes(reply.revision, &[change], now);
                }
            }
            Ok(reply) => {
                // Else it would be due again at once, and fail again, for as long as what it read does not count.
                let counts = self.picture.apply_read(asked, &reply, 0, now);
                local.put.end(if counts { now } else { now.plus(REST) });
            }
            Err(StoreError::LeaseGone { .. }) => {
                // One that carries a beat is judged by the beat.
                local.live.take_if(|live| !live.used);
                local.put.end(now.plus(REST));
            }
            Err(error) => {
                self.store_trouble = Some(error.to_string());
                local.put.end(now.plus(REST));
            }
        }
    }

    pub(super) fn renewed(
        &mut self,
        id: &InstanceId,
        sent: Boot,
        expected: &Expectation,
        barrier: &Txn,
        result: Result<Renewal, StoreError>,
        now: Boot,
    ) {
        let verdict = match &result {
            Ok(renewal) => {
                self.store_trouble = None;
                self.picture.apply_read(barrier, &renewal.barrier, expected.revision, now);
                Ok(accept(self.picture.keys(), renewal, sent, now, expected))
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = &verdict {
            self.store_trouble = Some(error.clone());
            // Perhaps this member comes back as another version.
            self.survey.hasten(now.plus(SURVEY_RETRY));
        }
        let (settings, suspected) = (&self.settings, self.suspected.map(|(_, at)| at));
        let Some(local) = self.locals.get_mut(id) else { return };
        let Some(live) = local.live.as_mut().filter(|live| live.id == expected.lease) else { return };
        match verdict {
            Ok(Verdict::Accepted { base, ttl }) => {
                let ttl = if planted(Mistake::RequestedTtl) { settings.ttl } else { ttl };
                live.base = live.base.max(Some(base));
                live.ttl = ttl;
                live.accepted = live.accepted.saturating_add(1);
                live.doubt = None;
                let again = live.accepted < 2 || suspected.is_some_and(|at| base < at);
                live.renew.end(if again { now } else { sent.plus(settings.interval) });
                let deadlines = Deadlines::of(base, ttl, settings);
                // The base of a turn of an earlier agent process is not known.
                let inherits = local.turn.as_ref().is_some_and(|turn| turn.deadlines.is_none());
                local.extend(deadlines, now);
                self.note_renewal(inherits, now);
            }
            Ok(Verdict::OwnershipLost) => live.renew.end(now.plus(settings.interval)),
            Ok(Verdict::LeaseLost) => local.live = None,
            Ok(Verdict::Rejected(doubt)) => live.missed(doubt.to_string(), sent, settings.interval, now),
            Err(error) => live.missed(error, sent, settings.interval, now),
        }
    }

    pub(super) fn moved(&mut self, op: &OpId, asked: &Txn, result: Result<TxnReply, StoreError>, now: Boot) {
        if let Ok(reply) = &result {
            self.store_trouble = None;
            if reply.succeeded {
                self.confirmed = Some(op.clone());
            } else {
                self.picture.apply_read(asked, reply, 0, now);
            }
        }
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.op == *op) else { return };
        let (kind, instance) = (pending.kind, pending.instance.clone());
        match result {
            // The token is made of what a read shows, never of this answer (§1.5).
            Ok(reply) if reply.succeeded => pending.stage = Stage::Answered,
            Ok(_) => {
                self.pending = None;
                // The candidates are not among what was read: until the watch shows them, it would fail again.
                if kind == Move::HandOver {
                    self.move_rest = now.plus(REST);
                }
            }
            Err(StoreError::Unknown { reason, .. }) if !planted(Mistake::UnknownIsFailure) => {
                self.store_trouble = Some(reason);
                pending.stage = Stage::Answered;
                self.move_rest = now.plus(REST);
                self.haunt(&instance, kind);
            }
            Err(error) => {
                self.pending = None;
                self.move_rest = now.plus(REST);
                let gone = matches!(error, StoreError::LeaseGone { .. }) && kind != Move::HandOver;
                if let Some(local) = self.locals.get_mut(&instance).filter(|_| gone) {
                    local.live.take_if(|live| !live.used);
                }
                self.store_trouble = Some(error.to_string());
            }
        }
    }

    pub(super) fn roster_put(&mut self, asked: &Txn, result: Result<TxnReply, StoreError>, now: Boot) {
        self.roster_put.end(now.plus(REST));
        match result {
            Ok(reply) if reply.succeeded => {
                let known = self.picture.view().roster.as_ref().map(|seen| seen.create_revision);
                if let Some(change) = written(asked, reply.revision, known) {
                    self.picture.apply_changes(reply.revision, &[change], now);
                }
            }
            Ok(reply) => drop(self.picture.apply_read(asked, &reply, 0, now)),
            Err(error) => self.store_trouble = Some(error.to_string()),
        }
    }

    pub(super) fn surveyed(&mut self, survey: Survey, now: Boot) {
        let whole = self.trust.learn(survey);
        self.survey.end(now.plus(if whole { SURVEY_EVERY } else { SURVEY_RETRY }));
    }

    pub(super) fn certified(&mut self, token: Token, result: Result<Certificate, String>, now: Boot) {
        self.ask.end(now.plus(ASK_REST));
        // One about another token would prove nothing about this one.
        self.certificate = result.ok().filter(|certificate| certificate.token == token).or(self.certificate.take());
    }

    /// A transaction without an answer may be carried out later, whatever a read shows now.
    fn haunt(&mut self, instance: &InstanceId, kind: Move) {
        let turn = self.locals.get_mut(instance).and_then(|local| local.turn.as_mut());
        match (kind, turn) {
            (Move::HandOver | Move::Release(_) | Move::Mint, Some(turn)) => turn.haunted = true,
            // They make this instance the holder, whenever that is: nothing that it does meanwhile can clash with it.
            (Move::Acquire | Move::TakeOver, _) | (_, None) => {}
        }
    }
}

impl Local {
    /// A renewal was accepted: the turn that its lease carries lasts longer, and the service is told so.
    fn extend(&mut self, deadlines: Deadlines, now: Boot) {
        let Some(turn) = self.turn.as_mut().filter(|_| self.live.as_ref().is_some_and(|live| live.used)) else {
            return;
        };
        turn.deadlines = Some(turn.deadlines.map_or(deadlines, |old| old.extended_by(deadlines)));
        // A service that is taking up its work answers the call that it has, however many renewals that takes; the next
        // renewal afterwards brings it the later deadline.
        if self.service.order == Order::Active && !self.is_taking_up_work() {
            self.service.renumber(now);
        }
    }
}

impl LiveLease {
    /// The next attempt goes to the next member, soon: an attempt that used up its time is followed at once.
    fn missed(&mut self, doubt: String, sent: Boot, interval: Duration, now: Boot) {
        self.doubt = Some(doubt);
        self.member = self.member.wrapping_add(1);
        self.renew.end(now.max(sent.plus(interval / 4)));
    }
}

/// The change that a put of ours made.
fn written(asked: &Txn, revision: i64, created: Option<i64>) -> Option<Change> {
    asked.then.iter().find_map(|op| match op {
        Op::Put { key, value, lease } => {
            let (key, value, create_revision) = (key.clone(), value.clone(), created.unwrap_or(revision));
            let entry = Entry { key: key.clone(), value, mod_revision: revision, create_revision, lease: *lease };
            Some(Change { key, value: Some(entry) })
        }
        Op::Delete(_) | Op::Get(_) => None,
    })
}
