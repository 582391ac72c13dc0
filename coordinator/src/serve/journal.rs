//! The journal in the store: an append is one transaction on *I am still leader* and *this number is free*, together
//! with everything that the record decides (`DESIGN.md` §8, `SAFETY.md` E1, E3).
//!
//! An append whose answer is lost is sent again as it is. If the first one had been carried out, the number is taken and
//! the transaction's else-branch shows our own bytes; a second execution is impossible.

use std::time::Duration;

use handover_proto::ids::AgentId;
use handover_proto::keys::{RolloutKeys, ServiceKeys};
use handover_proto::lease;
use handover_proto::numbers::Serial;
use handover_proto::stored::{STORED_VERSION, StoredError, encode};
use handover_proto::txn::{Cmp, Op, Revision, Txn};
use handover_store::client::{Entry, Store, StoreError, TxnReply};

use super::leader::Mandate;
use crate::core::event::{Event, Record};
use crate::core::next::{Act, Ask};
use crate::core::plan::Plan;
use crate::core::staging;
use crate::rollout::Claim;
use crate::world::World;

/// etcd's own limit of operations in one transaction.
const MAX_OPS: usize = 128;
/// Pause before an append whose answer was lost is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another coordinator leads, or its record stands where ours should.
    #[error("record {seq} was not written: this coordinator no longer leads")]
    Deposed {
        /// Its number.
        seq: u64,
    },
    /// Something that the record compares has changed meanwhile: look again and decide anew.
    #[error("record {seq} was not written: {what} changed meanwhile")]
    Moved {
        /// Its number.
        seq: u64,
        /// What.
        what: &'static str,
    },
    /// More than one transaction can hold.
    #[error("record {seq} decides {ops} keys at once, and one transaction holds {MAX_OPS}; make the waves smaller")]
    TooLarge {
        /// Its number.
        seq: u64,
        /// Its size.
        ops: usize,
    },
    /// The lease does not allow what the record asks of it.
    #[error("record {seq} was not written: the lease has moved")]
    Lease {
        /// Its number.
        seq: u64,
        /// Why.
        source: lease::Refused,
    },
    /// The store said no.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value cannot be written.
    #[error(transparent)]
    Stored(#[from] StoredError),
}

/// A record with everything that it decides, ready to be written.
#[derive(Debug, Clone)]
pub struct Append {
    /// The record.
    pub record: Record,
    txn: Txn,
    event_key: String,
    /// Whose assignments it writes.
    pub agents: Vec<AgentId>,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Appended {
    /// Every key written, with its revision.
    pub entries: Vec<Entry>,
    /// Every key deleted.
    pub deleted: Vec<String>,
    /// The revision: the serial of every assignment in it.
    pub serial: Serial,
}

impl Append {
    /// A rollout's first record, with claim, spec and plan.
    ///
    /// # Errors
    /// [`AppendError::Stored`].
    pub fn first(
        world: &World,
        mandate: &Mandate,
        plan: &Plan,
        spec: &str,
        record: Record,
    ) -> Result<Self, AppendError> {
        let rollout = world.keys.rollout(&plan.id);
        let claim_key = world.keys.service(&plan.service).rollout();
        let claim = Claim { v: STORED_VERSION, rollout: plan.id.clone() };
        let claim = Op::put(claim_key.clone(), encode(&claim)?);
        let mut append = Self::base(mandate, &rollout, record)?;
        append.txn.cmp.push(Cmp::ModRevision(claim_key.clone(), 0));
        append.txn.or_else.push(Op::Get(claim_key));
        let documents = [claim, Op::put(rollout.spec(), spec), Op::put(rollout.plan(), plan.to_bytes()?)];
        append.txn.then.extend(documents);
        Ok(append)
    }

    /// A later record, with the assignments and the lease's intent that it decides; the last one gives up the claim.
    ///
    /// # Errors
    /// [`AppendError::Lease`] if the world shows that the intent makes no sense, [`AppendError::TooLarge`],
    /// [`AppendError::Moved`] if the claim is gone.
    pub fn next(world: &World, mandate: &Mandate, plan: &Plan, record: Record, act: &Act) -> Result<Self, AppendError> {
        let service = world.keys.service(&plan.service);
        let seq = record.seq;
        let claim_key = service.rollout();
        let claim = world.entry(&claim_key).map(|entry| entry.create_revision);
        let claim = claim.ok_or(AppendError::Moved { seq, what: "the rollout's claim" })?;
        let ended = matches!(record.event, Event::Ended { .. });
        let mut append = Self::base(mandate, &world.keys.rollout(&plan.id), record)?;
        append.txn.cmp.push(Cmp::CreateRevision(claim_key.clone(), claim));
        append.txn.or_else.push(Op::Get(claim_key.clone()));
        for (agent, assignment) in &act.assignments {
            append.txn.then.push(Op::put(service.assigned(agent), encode(assignment)?));
            append.agents.push(agent.clone());
        }
        if ended {
            append.txn.then.push(Op::Delete(claim_key));
        }
        append.ask(world, mandate, &service, plan, act.ask.as_ref())?;
        // Whatever an order asked for before is overruled, and it sees that.
        stage(&mut append.txn, world, &service, act.staging.as_ref())?;
        let ops = append.txn.then.len();
        if ops > MAX_OPS { Err(AppendError::TooLarge { seq, ops }) } else { Ok(append) }
    }

    fn base(mandate: &Mandate, rollout: &RolloutKeys, record: Record) -> Result<Self, AppendError> {
        let event_key = rollout.event(record.seq);
        let txn = Txn {
            cmp: vec![mandate.compare(), Cmp::ModRevision(event_key.clone(), 0)],
            then: vec![Op::put(event_key.clone(), record.bytes()?)],
            or_else: vec![Op::Get(mandate.key.clone()), Op::Get(event_key.clone())],
        };
        Ok(Self { record, txn, event_key, agents: Vec::new() })
    }

    fn ask(
        &mut self,
        world: &World,
        mandate: &Mandate,
        service: &ServiceKeys,
        plan: &Plan,
        ask: Option<&Ask>,
    ) -> Result<(), AppendError> {
        let keys = service.lease();
        match ask {
            None => {}
            Some(Ask::Intent(intent)) => {
                let view = world.lease(&plan.service)?;
                let leader = (mandate.key.clone(), mandate.create_revision);
                let asked = lease::ask(&keys, &view, intent, leader);
                let asked = asked.map_err(|source| AppendError::Lease { seq: self.record.seq, source })?;
                self.txn.cmp.extend(asked.cmp.into_iter().filter(|cmp| *cmp != mandate.compare()));
                self.txn.then.extend(asked.then);
            }
            Some(Ask::Withdraw) => {
                let intent = keys.intent();
                let revision = world.entry(&intent).map_or(0, |entry| entry.mod_revision);
                self.txn.cmp.push(Cmp::ModRevision(intent.clone(), revision));
                self.txn.then.push(Op::Delete(intent));
            }
        }
        Ok(())
    }

    /// Writes it, once. An answer that is lost is asked for until it comes: nothing else can be decided meanwhile.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was written then.
    pub async fn commit(&self, store: &Store, mandate: &Mandate) -> Result<Appended, AppendError> {
        let reply = insist(store, &self.txn).await?;
        self.judge(&reply, mandate)
    }

    fn judge(&self, reply: &TxnReply, mandate: &Mandate) -> Result<Appended, AppendError> {
        let seq = self.record.seq;
        if reply.succeeded {
            return Ok(self.appended(reply.revision));
        }
        let read = |key: &str| reply.reads.iter().flatten().find(|entry| entry.key == *key);
        match read(&self.event_key) {
            // Ours, from an attempt whose answer was lost: whoever leads now.
            Some(entry) if entry.value == self.record.bytes()? => return Ok(self.appended(entry.create_revision)),
            Some(_) => return Err(AppendError::Deposed { seq }),
            None => {}
        }
        if read(&mandate.key).map(|entry| entry.create_revision) != Some(mandate.create_revision) {
            return Err(AppendError::Deposed { seq });
        }
        Err(AppendError::Moved { seq, what: "the rollout's claim, the lease or what is staged" })
    }

    fn appended(&self, revision: Revision) -> Appended {
        Appended::of(&self.txn, revision)
    }
}

impl Appended {
    /// What a transaction has written in this revision.
    pub(super) fn of(txn: &Txn, revision: Revision) -> Self {
        let entries = txn.then.iter().filter_map(|op| match op {
            Op::Put { key, value, lease } => Some(Entry {
                key: key.clone(),
                value: value.clone(),
                mod_revision: revision,
                // Right for new keys; for others until the watch tells.
                create_revision: revision,
                lease: *lease,
            }),
            Op::Delete(_) | Op::Get(_) => None,
        });
        let deleted = txn.then.iter().filter_map(|op| match op {
            Op::Delete(key) => Some(key.clone()),
            Op::Put { .. } | Op::Get(_) => None,
        });
        Self { entries: entries.collect(), deleted: deleted.collect(), serial: Serial(revision) }
    }
}

/// What hosts are asked to have in place, as long as that is as we read it.
pub(super) fn stage(
    txn: &mut Txn,
    world: &World,
    service: &ServiceKeys,
    ask: Option<&staging::Ask>,
) -> Result<(), StoredError> {
    let Some(ask) = ask else { return Ok(()) };
    let key = service.staging();
    let seen = world.entry(&key).map_or(0, |entry| entry.mod_revision);
    txn.cmp.push(Cmp::ModRevision(key.clone(), seen));
    txn.then.push(match ask {
        staging::Ask::Request(request) => Op::put(key, encode(request)?),
        staging::Ask::Withdraw => Op::Delete(key),
    });
    Ok(())
}

/// Sends a transaction that recognises its own repeat, until there is an answer.
pub(super) async fn insist(store: &Store, txn: &Txn) -> Result<TxnReply, StoreError> {
    loop {
        match store.txn(txn).await {
            Err(error @ (StoreError::Unknown { .. } | StoreError::Unreachable { .. })) => {
                tracing::warn!(%error, "a record has no answer yet, sending it again");
                tokio::time::sleep(AGAIN).await;
            }
            other => return other,
        }
    }
}
