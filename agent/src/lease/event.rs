//! What answers and news change in the core. One exhaustive match over the events.

use handover_proto::ids::{InstanceId, OpId};
use handover_proto::numbers::Token;
use handover_proto::planted::{Mistake, planted};
use handover_proto::txn::{LeaseId, Txn};
use handover_store::client::{Change, Grant, Listing, Renewal, StoreError, TxnReply};

use super::answer::took_in;
use super::certificate::Certificate;
use super::deadline::{Boot, Deadlines};
use super::fitness::KillTime;
use super::local::Local;
use super::memory::Memory;
use super::record::Ack;
use super::renewal::Expectation;
use super::state::{Core, MyTurn};
use super::suspect::Suspicion;
use super::upkeep::REST;
use super::versions::Survey;
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
    /// The members have said their versions, or not.
    Surveyed(Survey),
    /// A write of the roster was answered.
    RosterPut {
        /// What was asked.
        asked: Txn,
        /// The answer.
        result: Result<TxnReply, StoreError>,
    },
    /// Somebody asks whether the service has stopped under this token.
    CertifyAsked(Token),
    /// The lost holder's agent answered: with a certificate, or why it gives none.
    Certified {
        /// About this token.
        token: Token,
        /// The answer.
        result: Result<Certificate, String>,
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
    /// How long a kill takes on this host.
    KillTried(KillTime),
    /// A kill was tried: it reached every process that was found, or not.
    Killed {
        /// Whose processes.
        instance: InstanceId,
        /// How it went.
        result: Result<(), String>,
    },
    /// This host may have been away.
    Suspected {
        /// What may have happened.
        what: Suspicion,
        /// When it was found: it happened before.
        at: Boot,
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
            Event::Surveyed(survey) => self.surveyed(survey, now),
            Event::RosterPut { asked, result } => self.roster_put(&asked, result, now),
            Event::CertifyAsked(token) => self.asked_to_certify(token),
            Event::Certified { token, result } => self.certified(token, result, now),
            Event::KillTried(kill) => self.kill_tried(kill),
            Event::Killed { instance, result } => self.killed(&instance, result),
            Event::Suspected { what, at } => self.suspect(what, at),
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
        // K5 measures this agent's restart, and not an outage of the store that happened to fall into it.
        if let Some(began) = self.host.began.as_mut().filter(|_| self.store_trouble.is_some()) {
            *began = now;
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
            // A turn of a lower era is never renewed again; the next one needs a lease that has carried none.
            let old_era = self.era() != turn.token.era() && local.is_stopped();
            (used && self.picture.is_known() && (old_era || !self.is_beating(local, turn))).then(|| id.clone())
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
        let died = |was: Life, is: Life| was != is && is == (Life::Dead { proven: true });
        for (id, local) in &mut self.locals {
            local.reported = wanted.instances.contains_key(id);
            if !local.reported && local.is_alive() {
                local.wanted.life = Life::Dead { proven: false };
            }
        }
        for (id, instance) in wanted.instances {
            match self.locals.get_mut(&id) {
                Some(local) => {
                    let since = local.stopped_since.or(Some(now));
                    local.stopped_since =
                        if died(local.wanted.life, instance.life) { since } else { local.stopped_since };
                    local.wanted = instance;
                }
                None => self.reported(id, instance, now),
            }
        }
    }

    fn reported(&mut self, id: InstanceId, instance: LocalInstance, now: Boot) {
        let turn = self.restored.remove(&id).map(|turn| MyTurn {
            revision: turn.revision,
            token: turn.token,
            adopted: now,
            deadlines: planted(Mistake::BaseFromRestart).then(|| Deadlines::of(now, self.settings.ttl, &self.settings)),
            leaving: turn.leaving,
            haunted: turn.leaving,
            inherited: true,
        });
        self.locals.insert(id, Local::new(instance, turn, now));
    }
}
