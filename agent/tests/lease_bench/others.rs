//! What others do to the store: the coordinator, agents elsewhere, an operator.

use std::time::Duration;

use handover_agent::lease::event::Event;
use handover_agent::lease::versions::Survey;
use handover_proto::assignment::Cause;
use handover_proto::ids::{InstanceId, OpId};
use handover_proto::lease::{self, Candidate, Intent, IntentKind, Roster, Stamp, Turn};
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::encode;
use handover_proto::txn::{LeaseId, Op, Txn};

use super::store::ModelStore;
use super::{Bench, id, keys, ms, owner};

impl Bench {
    pub(crate) fn put<T: serde::Serialize>(&mut self, key: String, value: &T, lease: LeaseId) {
        let then = vec![Op::put_with_lease(key, encode(value).expect("json"), lease)];
        assert!(self.store.txn(&Txn { then, ..Txn::default() }).expect("a put").succeeded);
        self.settle();
    }

    pub(crate) fn delete(&mut self, key: String) {
        self.store.txn(&Txn { then: vec![Op::Delete(key)], ..Txn::default() }).expect("a delete");
        self.settle();
    }

    /// The coordinator asks instance `from` to hand over to `to`.
    pub(crate) fn ask(&mut self, from: u8, to: u8) -> OpId {
        self.intend(IntentKind::Handoff, from, Some(id(to)), 3_000)
    }

    /// The coordinator asks instance `from` to park the lease.
    pub(crate) fn park(&mut self, from: u8) -> OpId {
        self.park_within(from, ms(3_000))
    }

    /// The same, and its service may take this long for its last unit.
    pub(crate) fn park_within(&mut self, from: u8, limit: Duration) -> OpId {
        self.intend(IntentKind::Park, from, None, u64::try_from(limit.as_millis()).expect("fits"))
    }

    fn intend(&mut self, kind: IntentKind, from: u8, to: Option<InstanceId>, quiesce_timeout_ms: u64) -> OpId {
        let op = self.op();
        let intent = Intent {
            v: 1,
            op: op.clone(),
            kind,
            from: id(from),
            to,
            quiesce_timeout_ms,
            term: Term::new(Era(0), 1).expect("fits"),
            cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
        };
        self.put(keys().intent(), &intent, 0);
        op
    }

    /// Instance `n` elsewhere is a ready candidate; returns its lease.
    pub(crate) fn prepare(&mut self, n: u8, op: Option<&OpId>) -> LeaseId {
        let candidate = Candidate { prepared_for: op.cloned(), ..self.candidate(n) };
        self.offer(&candidate);
        candidate.lease_id
    }

    pub(crate) fn offer(&mut self, candidate: &Candidate) {
        self.put(keys().candidate(&candidate.owner.instance), candidate, candidate.lease_id);
    }

    /// A ready candidate elsewhere, with an etcd lease of its own.
    pub(crate) fn candidate(&mut self, n: u8) -> Candidate {
        Candidate {
            v: 1,
            owner: owner(n),
            lease_id: self.store.grant(ms(10_000), u64::MAX).id,
            ttl_s: 10,
            ready: true,
            serving: true,
            prepared_for: None,
            declined: None,
            active: None,
            active_at_ms: None,
            rank: 0,
            rho_ppm: None,
            agent_version: String::new(),
            stored_token: None,
            rest: serde_json::Map::new(),
        }
    }

    /// Instance `n` elsewhere, which holds, releases the lease.
    #[allow(dead_code, reason = "not every test file has another holder")]
    pub(crate) fn other_releases(&mut self, n: u8) {
        let op = self.op();
        let txn = lease::release(&keys(), &self.view(), &id(n), lease::StopProof::Quiesced, op, Stamp::at(0))
            .expect("it holds");
        assert!(self.store.txn(&txn).expect("a write").succeeded);
        self.settle();
    }

    /// Instance `n` elsewhere acquires the free lease; returns its etcd lease.
    pub(crate) fn other_holds(&mut self, n: u8) -> LeaseId {
        let lease_id = self.store.grant(ms(10_000), u64::MAX).id;
        let (owner, op) = (owner(n), self.op());
        let turn = Turn { owner: &owner, lease_id, ttl_s: 10, op, stamp: Stamp::default() };
        let txn = lease::acquire(&keys(), &self.view(), &turn).expect("a free lease");
        assert!(self.store.txn(&txn).expect("a write").succeeded);
        self.list(&[1, 2, 3, 9]);
        lease_id
    }

    /// The store's members say these versions, and the guard key stands or not.
    pub(crate) fn members(&mut self, versions: &[&str], guarded: bool) {
        let ids = (1..).take(versions.len()).collect();
        let said = (1..).zip(versions).map(|(member, version)| (member, (*version).to_owned())).collect();
        let survey = Survey { versions: said, members: Some(ids), guarded: Some(guarded), embedded: false };
        self.survey = survey.clone();
        self.hear(Event::Surveyed(survey));
    }

    /// The store is as it was when `past` was taken: from now on it answers so.
    pub(crate) fn restore(&mut self, past: ModelStore) {
        self.store = past;
        self.cursor = self.store.log.len();
        self.settle();
    }

    /// The holder's agent lists the agents of these instances.
    pub(crate) fn list(&mut self, all: &[u8]) {
        let agents = all.iter().map(|n| owner(*n).agent).collect();
        self.put(keys().roster(), &Roster { v: 1, agents, rest: serde_json::Map::new() }, 0);
    }
}
