//! What answers and news change in the core. One exhaustive match over the events.

use std::time::Duration;

use handover_proto::ids::{InstanceId, OpId};
use handover_proto::txn::{LeaseId, Op, Txn};
use handover_store::client::{Change, Entry, Grant, Listing, Renewal, StoreError, TxnReply};

use super::answer::took_in;
use super::deadline::{Boot, Deadlines};
use super::memory::Memory;
use super::record::Ack;
use super::renewal::{Expectation, Verdict, accept};
use super::state::{Core, LiveLease, Local, Move, MyTurn, Order, Pending, Stage};
use super::upkeep::REST;
use super::wanted::{Life, LocalInstance, Wanted};

/// Something that happened outside of the core.
#[derive(Debug, Clone)]
pub enum Event {
    /// The main loop's whole state.
    Wanted(Wanted),
    /// The watch begins anew, with everything.
    Listed(Listing),
    /// The watch shows what one revision changed.
    Changed {
        /// The revision.
        revision: i64,
        /// The changes.
        changes: Vec<Change>,
    },
    /// The watch is cut off; it resumes by itself.
    CutOff(String),
    /// A read was answered.
    Read {
        /// What was asked.
        asked: Txn,
        /// The answer.
        result: Result<TxnReply, StoreError>,
    },
    /// A grant was answered.
    Granted {
        /// For whom.
        instance: InstanceId,
        /// The lease.
        result: Result<Grant, StoreError>,
    },
    /// A write of a candidate key was answered.
    CandidatePut {
        /// Whose.
        instance: InstanceId,
        /// What was asked.
        asked: Txn,
        /// The answer.
        result: Result<TxnReply, StoreError>,
    },
    /// A renewal was answered, or not in time.
    Renewed {
        /// Whose.
        instance: InstanceId,
        /// Read from the clock before anything was sent.
        sent: Boot,
        /// What the answers are judged by.
        expected: Expectation,
        /// The read that was asked for.
        barrier: Txn,
        /// The answers.
        result: Result<Renewal, StoreError>,
    },
    /// A lease transaction was answered.
    Moved {
        /// Its id.
        op: OpId,
        /// What was asked.
        asked: Txn,
        /// The answer.
        result: Result<TxnReply, StoreError>,
    },
    /// The service answered a call.
    Answered {
        /// Whose.
        instance: InstanceId,
        /// The record's number.
        seq: u64,
        /// The acknowledgement, or what went wrong.
        result: Result<Ack, String>,
    },
    /// A revocation was answered; whatever it was, the lease expires by itself.
    Revoked {
        /// Which.
        lease: LeaseId,
    },
    /// The state file was written, or not.
    Saved {
        /// With this content.
        memory: Memory,
        /// How it went.
        result: Result<(), String>,
    },
}

impl Core {
    /// Takes in one event.
    pub fn apply(&mut self, event: Event, now: Boot) {
        match event {
            Event::Wanted(wanted) => self.wanted(wanted, now),
            Event::Listed(listing) => {
                self.store_trouble = None;
                self.picture.apply_listing(&listing, now);
            }
            Event::Changed { revision, changes } => self.picture.apply_changes(revision, &changes, now),
            Event::CutOff(error) => self.store_trouble = Some(error),
            Event::Read { asked, result } => self.read_answered(&asked, result, now),
            Event::Granted { instance, result } => self.granted(&instance, result, now),
            Event::CandidatePut { instance, asked, result } => self.candidate_put(&instance, &asked, result, now),
            Event::Renewed { instance, sent, expected, barrier, result } => {
                self.renewed(&instance, sent, &expected, &barrier, result, now);
            }
            Event::Moved { op, asked, result } => self.moved(&op, &asked, result, now),
            Event::Answered { instance, seq, result } => {
                if let Some(local) = self.locals.get_mut(&instance) {
                    took_in(local, seq, result, now);
                }
            }
            Event::Revoked { lease } => drop(self.spent.remove(&lease)),
            Event::Saved { memory, result } => match result {
                Ok(()) => {
                    self.disk_trouble = None;
                    self.saved = memory;
                    self.save.end(now);
                }
                Err(error) => {
                    self.disk_trouble = Some(error);
                    self.save.end(now.plus(REST));
                }
            },
        }
        self.look(now);
    }

    /// What follows from the picture, however it came to be as it is.
    fn look(&mut self, now: Boot) {
        let view = self.picture.view();
        let present = view.holder.as_ref().map(|seen| &seen.value.op);
        if self.pending.as_ref().is_some_and(|pending| present == Some(&pending.op)) {
            self.pending = None;
        }
        let open = view.open_intent().map(|intent| intent.value.op.clone());
        self.intent_since = match (open, self.intent_since.take()) {
            (Some(op), Some(since)) if since.0 == op => Some(since),
            (Some(op), _) => Some((op, now)),
            (None, _) => None,
        };
        let lost = |(id, local): (&InstanceId, &Local)| {
            let turn = local.turn.as_ref().filter(|turn| self.is_present(id, turn))?;
            let used = local.live.as_ref().is_some_and(|live| live.used);
            (used && self.picture.is_known() && !self.is_beating(local, turn)).then(|| id.clone())
        };
        let lost: Vec<InstanceId> = self.locals.iter().filter_map(lost).collect();
        for id in lost {
            // Not revoked: it may be gone, and the holder key still names it (attachment rule 4).
            if let Some(local) = self.locals.get_mut(&id) {
                local.live = None;
            }
        }
    }

    fn wanted(&mut self, wanted: Wanted, now: Boot) {
        for (id, local) in &mut self.locals {
            local.reported = wanted.instances.contains_key(id);
            if !local.reported && local.is_alive() {
                local.wanted.life = Life::Dead { proven: false };
            }
        }
        for (id, instance) in wanted.instances {
            match self.locals.get_mut(&id) {
                Some(local) => local.wanted = instance,
                None => self.reported(id, instance, now),
            }
        }
    }

    fn reported(&mut self, id: InstanceId, instance: LocalInstance, now: Boot) {
        let turn = self.restored.remove(&id).map(|turn| MyTurn {
            revision: turn.revision,
            token: turn.token,
            adopted: now,
            deadlines: None,
            leaving: turn.leaving,
            haunted: turn.leaving,
        });
        self.locals.insert(id, Local::new(instance, turn, now));
    }

    fn read_answered(&mut self, asked: &Txn, result: Result<TxnReply, StoreError>, now: Boot) {
        let reading = self.pending.take_if(|pending| pending.stage == Stage::Reading);
        match result {
            Ok(reply) => {
                self.store_trouble = None;
                let counts = self.picture.apply_read(asked, &reply, now);
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

    fn granted(&mut self, instance: &InstanceId, result: Result<Grant, StoreError>, now: Boot) {
        let min_ttl = self.settings.ttl;
        let Some(local) = self.locals.get_mut(instance) else {
            if let Ok(grant) = result {
                self.spent.insert(grant.id, super::state::Chore::default());
            }
            return;
        };
        local.grant.end(now);
        match result {
            // K2.
            Ok(grant) if grant.ttl >= min_ttl => {
                local.live = Some(LiveLease::new(grant.id, grant.ttl, false));
                local.had_lease = true;
            }
            Ok(grant) => {
                self.store_trouble =
                    Some(format!("the store granted a TTL of {:?} instead of {min_ttl:?} (K2)", grant.ttl));
                self.spent.insert(grant.id, super::state::Chore::default());
                local.grant.end(now.plus(REST));
            }
            Err(error) => {
                self.store_trouble = Some(error.to_string());
                local.grant.end(now.plus(REST));
            }
        }
    }

    fn candidate_put(&mut self, id: &InstanceId, asked: &Txn, result: Result<TxnReply, StoreError>, now: Boot) {
        let Some(local) = self.locals.get_mut(id) else { return };
        local.put.end(now);
        match result {
            Ok(reply) if reply.succeeded => {
                let known = self.picture.view().candidates.get(id).map(|seen| seen.create_revision);
                if let Some(change) = written(asked, reply.revision, known) {
                    self.picture.apply_changes(reply.revision, &[change], now);
                }
            }
            Ok(reply) => drop(self.picture.apply_read(asked, &reply, now)),
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

    fn renewed(
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
                self.picture.apply_read(barrier, &renewal.barrier, now);
                Ok(accept(self.picture.keys(), renewal, sent, now, expected))
            }
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = &verdict {
            self.store_trouble = Some(error.clone());
        }
        let settings = &self.settings;
        let Some(local) = self.locals.get_mut(id) else { return };
        let Some(live) = local.live.as_mut().filter(|live| live.id == expected.lease) else { return };
        match verdict {
            Ok(Verdict::Accepted { base, ttl }) => {
                live.base = live.base.max(Some(base));
                live.ttl = ttl;
                live.accepted = live.accepted.saturating_add(1);
                live.doubt = None;
                live.renew.end(if live.accepted < 2 { now } else { sent.plus(settings.interval) });
                let deadlines = Deadlines::of(base, ttl, settings);
                local.extend(deadlines, now);
            }
            Ok(Verdict::OwnershipLost) => live.renew.end(now.plus(settings.interval)),
            Ok(Verdict::LeaseLost) => local.live = None,
            Ok(Verdict::Rejected(doubt)) => live.missed(doubt.to_string(), sent, settings.interval, now),
            Err(error) => live.missed(error, sent, settings.interval, now),
        }
    }

    fn moved(&mut self, op: &OpId, asked: &Txn, result: Result<TxnReply, StoreError>, now: Boot) {
        if let Ok(reply) = &result {
            self.store_trouble = None;
            if !reply.succeeded {
                self.picture.apply_read(asked, reply, now);
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
            Err(StoreError::Unknown { reason, .. }) => {
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
        if self.service.order == Order::Active {
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
