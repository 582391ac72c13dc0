//! One change of a standing order, ready to be written: the order, and everything that it decides, in one transaction.
//!
//! Like a journal record it compares *I am still leader* and *the order is as I read it*, so that a deposed coordinator
//! writes nothing and a repeat is recognised by its own bytes.

use handover_proto::ids::Service;
use handover_proto::lease;
use handover_proto::stored::{StoredError, encode};
use handover_proto::txn::{Cmp, Op, Revision, Txn};
use handover_store::client::{Store, StoreError};

use super::journal::{Appended, insist, stage};
use super::leader::Mandate;
use crate::core::next::Ask;
use crate::core::standing::StandingOrder;
use crate::core::standing::freeze::FreezeAsk;
use crate::core::standing::next::Change;
use crate::world::World;

/// Orders that are over are kept this many: enough to see what was done lately, whatever the store's limits.
const KEPT: usize = 100;

/// Why a change was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Another coordinator leads.
    #[error("order {number} was not written: this coordinator no longer leads")]
    Deposed {
        /// Its number.
        number: u64,
    },
    /// Something that it compares has changed meanwhile: look again.
    #[error(
        "order {number} was not written: the lease, its freeze, the host's assignment or the order changed meanwhile"
    )]
    Moved {
        /// Its number.
        number: u64,
    },
    /// The lease does not allow what is asked of it.
    #[error("order {number} was not written: the lease has moved")]
    Lease {
        /// Its number.
        number: u64,
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

/// A change, ready to be written.
pub(super) struct OrderWrite {
    pub(super) order: StandingOrder,
    key: String,
    bytes: Vec<u8>,
    txn: Txn,
}

impl OrderWrite {
    /// From the world that it was decided in.
    pub(super) fn of(world: &World, mandate: &Mandate, service: &Service, change: Change) -> Result<Self, WriteError> {
        let keys = world.keys.service(service);
        let Change { order, assignments, ask, staging } = change;
        let key = keys.order(order.number);
        let bytes = encode(&order)?;
        let seen = |key: &str| world.entry(key).map_or(0, |entry| entry.mod_revision);
        let mut txn = Txn {
            cmp: vec![mandate.compare(), Cmp::ModRevision(key.clone(), seen(&key))],
            then: vec![Op::put(key.clone(), bytes.clone())],
            or_else: vec![Op::Get(mandate.key.clone()), Op::Get(key.clone())],
        };
        for (agent, assignment) in &assignments {
            let assigned = keys.assigned(agent);
            txn.cmp.push(Cmp::ModRevision(assigned.clone(), seen(&assigned)));
            txn.then.push(Op::put(assigned, encode(assignment)?));
        }
        if !assignments.is_empty() {
            // A rollout has its hosts for itself.
            txn.cmp.push(Cmp::ModRevision(keys.rollout(), 0));
        }
        let mut write = Self { order, key, bytes, txn };
        write.ask(world, mandate, service, ask.as_ref())?;
        stage(&mut write.txn, world, &keys, staging.as_ref())?;
        write.freeze(world, service)?;
        write.forget(world, service)?;
        Ok(write)
    }

    fn ask(
        &mut self,
        world: &World,
        mandate: &Mandate,
        service: &Service,
        ask: Option<&Ask>,
    ) -> Result<(), WriteError> {
        let keys = world.keys.service(service).lease();
        let seen = |key: String| Cmp::ModRevision(key.clone(), world.entry(&key).map_or(0, |entry| entry.mod_revision));
        match ask {
            None => {}
            Some(Ask::Intent(intent)) => {
                let leader = (mandate.key.clone(), mandate.create_revision);
                let asked = lease::ask(&keys, &world.lease(service)?, intent, leader);
                let asked = asked.map_err(|source| WriteError::Lease { number: self.order.number, source })?;
                self.txn.cmp.extend(asked.cmp.into_iter().filter(|cmp| *cmp != mandate.compare()));
                self.txn.cmp.push(seen(keys.intent()));
                self.txn.then.extend(asked.then);
            }
            // If the holder has followed it meanwhile, it cannot be taken back.
            Some(Ask::Withdraw) => {
                self.txn.cmp.extend([seen(keys.intent()), seen(keys.holder())]);
                self.txn.then.push(Op::Delete(keys.intent()));
            }
        }
        Ok(())
    }

    /// What the order does to the freeze, as long as that is as we read it.
    fn freeze(&mut self, world: &World, service: &Service) -> Result<(), WriteError> {
        let Some(ask) = self.order.freezes(world.freeze(service).as_ref()) else { return Ok(()) };
        let key = world.keys.service(service).lease().freeze();
        let seen = world.entry(&key).map_or(0, |entry| entry.mod_revision);
        self.txn.cmp.push(Cmp::ModRevision(key.clone(), seen));
        match ask {
            FreezeAsk::Put(freeze) => self.txn.then.push(Op::put(key, encode(&freeze)?)),
            FreezeAsk::Delete => self.txn.then.push(Op::Delete(key)),
            FreezeAsk::Keep => {}
        }
        Ok(())
    }

    /// A new order pushes the oldest ones out that are over.
    fn forget(&mut self, world: &World, service: &Service) -> Result<(), WriteError> {
        let all = world.orders(service);
        let over = all.iter().filter(|order| order.is_over() && order.number != self.order.number);
        let over: Vec<u64> = over.map(|order| order.number).collect();
        // Few at a time: a transaction has room for 128 operations.
        let surplus = over.len().saturating_sub(KEPT).min(8);
        let keys = world.keys.service(service);
        self.txn.then.extend(over.iter().take(surplus).map(|number| Op::Delete(keys.order(*number))));
        Ok(())
    }

    /// Writes it, once.
    pub(super) async fn commit(&self, store: &Store, mandate: &Mandate) -> Result<Appended, WriteError> {
        let number = self.order.number;
        let reply = insist(store, &self.txn).await?;
        if reply.succeeded {
            return Ok(self.appended(reply.revision));
        }
        let read = |key: &str| reply.reads.iter().flatten().find(|entry| entry.key == *key);
        if let Some(entry) = read(&self.key).filter(|entry| entry.value == self.bytes) {
            // Ours, from an attempt whose answer was lost.
            return Ok(self.appended(entry.mod_revision));
        }
        match read(&mandate.key).map(|entry| entry.create_revision) {
            Some(revision) if revision == mandate.create_revision => Err(WriteError::Moved { number }),
            _ => Err(WriteError::Deposed { number }),
        }
    }

    fn appended(&self, revision: Revision) -> Appended {
        Appended::of(&self.txn, revision)
    }
}
