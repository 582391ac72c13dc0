//! A store that carries out handover-proto's own lease transactions, led by a run of the model.

use std::collections::BTreeMap;

use handover_model::rules::Step;
use handover_model::state::{Etcd, HOSTS, Instance, Kind, Lease, State};
use handover_proto::assignment::Cause;
use handover_proto::ids::{AgentId, Env, OpId};
use handover_proto::keys::{EnvKeys, LeaseKeys};
use handover_proto::lease::{
    self, Candidate, Intent, IntentKind, LeaseView, Owner, RawEntry, Roster, Stamp, StopProof, Turn,
};
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::{Rest, STORED_VERSION, encode};
use handover_proto::txn::{Cmp, LeaseId, Op, Revision, Txn};

/// A key's value with its mod revision, create revision and lease.
type Stored = (Vec<u8>, Revision, Revision, LeaseId);

/// As much of etcd as the transactions need.
#[derive(Debug, Clone, Default)]
struct Store {
    revision: Revision,
    keys: BTreeMap<String, Stored>,
    leases: Vec<LeaseId>,
}

impl Store {
    fn holds(&self, cmp: &Cmp) -> bool {
        match cmp {
            Cmp::ModRevision(key, n) => self.keys.get(key).map_or(0, |key| key.1) == *n,
            Cmp::CreateRevision(key, n) => self.keys.get(key).map_or(0, |key| key.2) == *n,
            Cmp::Lease(key, lease) => self.keys.get(key).is_some_and(|key| key.3 == *lease),
            Cmp::Value(key, value) => self.keys.get(key).is_some_and(|key| key.0 == *value),
        }
    }

    /// All of it, or nothing; a put with a dead lease aborts it (M5).
    fn apply(&mut self, txn: &Txn) -> bool {
        let lives = |op: &Op| !matches!(op, Op::Put { lease, .. } if *lease != 0 && !self.leases.contains(lease));
        if !txn.cmp.iter().all(|cmp| self.holds(cmp)) || !txn.then.iter().all(lives) {
            return false;
        }
        self.revision += 1;
        for op in &txn.then {
            match op {
                Op::Put { key, value, lease } => {
                    let created = self.keys.get(key).map_or(self.revision, |key| key.2);
                    self.keys.insert(key.clone(), (value.clone(), self.revision, created, *lease));
                }
                Op::Delete(key) => drop(self.keys.remove(key)),
                Op::Get(_) => {}
            }
        }
        true
    }

    fn put<T: serde::Serialize>(&mut self, key: String, value: &T, lease: LeaseId) {
        let then = vec![Op::put_with_lease(key, encode(value).expect("json"), lease)];
        assert!(self.apply(&Txn { then, ..Txn::default() }), "a put with a live lease");
    }
}

/// The store, and the transactions under way, as the model's run has led them.
pub(crate) struct Mirror {
    keys: LeaseKeys,
    store: Store,
    leases: BTreeMap<(usize, u8), LeaseId>,
    granted: LeaseId,
    wires: [[Option<Txn>; 2]; HOSTS],
    /// Transactions carried out, by kind.
    pub(crate) done: BTreeMap<&'static str, usize>,
    /// Transactions that a compare or a dead lease has stopped.
    pub(crate) stopped: usize,
}

impl Mirror {
    /// The store as `state`, which nobody has worked on yet.
    pub(crate) fn new(state: &State) -> Self {
        let env: Env = "model".parse().expect("env");
        let keys = EnvKeys::new(&env).service(&"billing".parse().expect("service")).lease();
        let mut mirror = Self {
            keys,
            store: Store::default(),
            leases: BTreeMap::new(),
            granted: 0,
            wires: Default::default(),
            done: BTreeMap::new(),
            stopped: 0,
        };
        // The model lists everybody from the beginning.
        let agents = (0..HOSTS).map(|host| owner(Instance { host: host as u8, life: 0 }).agent).collect();
        mirror.store.put(mirror.keys.roster(), &Roster { v: STORED_VERSION, agents, rest: Rest::new() }, 0);
        mirror.store.put("leader".to_owned(), &1, 0);
        mirror.follow_leases(&Etcd::default(), &state.etcd);
        mirror.follow_candidates(&Etcd::default(), &state.etcd);
        if state.etcd.holder.held {
            let me = owner(state.etcd.holder.who);
            let turn = mirror.turn(&me, 0, state.etcd.holder.lease, OpId::random());
            let txn = lease::acquire(&mirror.keys, &mirror.view(), &turn).expect("nobody holds");
            assert!(mirror.store.apply(&txn));
        }
        mirror.agrees(state);
        mirror
    }

    /// Does what `step` did in the model, with handover-proto's transactions, and compares.
    pub(crate) fn follow(&mut self, before: &State, step: Step, after: &State) {
        match step {
            Step::Take(host) | Step::HandOver(host) | Step::Release(host) | Step::Mint(host) => {
                let txn = self.build(before, host, after.hosts[host].wires[0].kind);
                let older = self.wires[host][0].replace(txn);
                if older.is_some() {
                    self.wires[host][1] = older;
                }
            }
            Step::Deliver(host, slot) => self.deliver(before, (host, slot), after),
            Step::Ask(_) => self.ask(after),
            _ => {}
        }
        self.follow_leases(&before.etcd, &after.etcd);
        self.follow_candidates(&before.etcd, &after.etcd);
        self.drop_the_past(after);
        self.agrees(after);
    }

    fn view(&self) -> LeaseView {
        let mut view = LeaseView::default();
        for (key, (value, mod_revision, create_revision, lease)) in &self.store.keys {
            let (mod_revision, create_revision, lease) = (*mod_revision, *create_revision, *lease);
            let raw = RawEntry { value, mod_revision, create_revision, lease };
            view.put(&self.keys, key, Some(raw)).expect("our own values");
        }
        view
    }

    fn turn<'o>(&self, owner: &'o Owner, host: usize, no: u8, op: OpId) -> Turn<'o> {
        let lease_id = self.leases.get(&(host, no)).copied().unwrap_or_default();
        Turn { owner, lease_id, ttl_s: 10, op, stamp: Stamp::at(1) }
    }

    /// The transaction that the model's agent sends, as the real agent would build it (`Core::build`).
    fn build(&self, state: &State, host: usize, kind: Kind) -> Txn {
        let (keys, view, me) = (&self.keys, self.view(), owner(state.instance(host)));
        let named = view.open_intent().filter(|intent| intent.value.to.as_ref() == Some(&me.instance));
        let op = named.map_or_else(OpId::random, |intent| intent.value.op.clone());
        let turn = |op| self.turn(&me, host, state.hosts[host].agent.lease, op);
        let txn = match kind {
            Kind::Acquire => lease::acquire(keys, &view, &turn(op)),
            Kind::TakeOver => lease::take_over(keys, &view, &turn(op)),
            Kind::HandOver => lease::hand_over(keys, &view, &me.instance, Stamp::at(1)),
            Kind::Release => lease::release(keys, &view, &me.instance, StopProof::Dead, OpId::random(), Stamp::at(1)),
            Kind::Mint => lease::mint(keys, &view, &turn(OpId::random())),
            Kind::None => panic!("nothing was sent"),
        };
        txn.unwrap_or_else(|refused| panic!("the model sends {kind:?}, handover-proto refuses it: {refused}"))
    }

    fn deliver(&mut self, before: &State, (host, slot): (usize, usize), after: &State) {
        let txn = self.wires[host][slot].take().expect("under way in the model");
        let (done, in_model) = (self.store.apply(&txn), after.etcd.holder.rev != before.etcd.holder.rev);
        let wire = before.hosts[host].wires[slot];
        assert_eq!(done, in_model, "{wire:?} arrives at {:?}: {txn:?}", before.etcd);
        if !done {
            self.stopped += 1;
            return;
        }
        let name = match wire.kind {
            Kind::Acquire => "T1",
            Kind::TakeOver => "T2",
            Kind::HandOver => "T3",
            Kind::Release => "T4",
            Kind::Mint => "T5",
            Kind::None => "nothing",
        };
        *self.done.entry(name).or_default() += 1;
    }

    fn ask(&mut self, after: &State) {
        let asked = after.etcd.intent.expect("just asked");
        let intent = Intent {
            v: STORED_VERSION,
            op: op_of(asked.op),
            kind: IntentKind::Handoff,
            from: owner(asked.from).instance,
            to: Some(owner(asked.to).instance),
            quiesce_timeout_ms: 30_000,
            term: Term::new(Era(0), 1).expect("term"),
            cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
        };
        let leader = ("leader".to_owned(), self.store.keys["leader"].2);
        let txn = lease::ask(&self.keys, &self.view(), &intent, leader).expect("he holds");
        assert!(self.store.apply(&txn));
    }

    fn follow_leases(&mut self, before: &Etcd, after: &Etcd) {
        for (host, no) in (0..HOSTS).flat_map(|host| (1..=after.leases[host].len() as u8).map(move |no| (host, no))) {
            let (was, is) = (before.lease(host as u8, no) != Lease::Dead, after.lease(host as u8, no) != Lease::Dead);
            if is && !was {
                self.granted += 1;
                self.leases.insert((host, no), self.granted);
                self.store.leases.push(self.granted);
            } else if was && !is {
                let lease = self.leases[&(host, no)];
                self.store.leases.retain(|live| *live != lease);
                self.store.keys.retain(|_, key| key.3 != lease);
            }
        }
    }

    fn follow_candidates(&mut self, before: &Etcd, after: &Etcd) {
        for host in 0..HOSTS {
            let Some(new) = after.candidates[host].filter(|_| after.candidates[host] != before.candidates[host]) else {
                continue;
            };
            let (me, lease) = (Instance { host: host as u8, life: new.life }, self.leases[&(host, new.lease)]);
            let value = candidate(me, lease, (new.prepared != 0).then(|| op_of(new.prepared)));
            self.store.put(self.keys.candidate(&owner(me).instance), &value, lease);
        }
    }

    /// What the model has forgotten, since it can do nothing any more, can really do nothing.
    fn drop_the_past(&mut self, after: &State) {
        for (host, slot) in (0..HOSTS).flat_map(|host| [(host, 0), (host, 1)]) {
            if after.hosts[host].wires[slot].kind == Kind::None
                && let Some(txn) = self.wires[host][slot].take()
            {
                assert!(!self.store.clone().apply(&txn), "the model forgot {txn:?}");
            }
        }
    }

    /// The store shows what the model's etcd does.
    fn agrees(&self, state: &State) {
        let (view, etcd) = (self.view(), &state.etcd);
        view.check().expect("holder and beat agree");
        let held = view.holder.as_ref().and_then(|seen| seen.value.held());
        let lease_of = |who: Instance, no: u8| self.leases.get(&(usize::from(who.host), no)).copied();
        let wanted =
            etcd.holder.held.then(|| (owner(etcd.holder.who).instance, lease_of(etcd.holder.who, etcd.holder.lease)));
        assert_eq!(held.map(|held| (held.owner.instance.clone(), Some(held.lease_id))), wanted, "who holds");
        let beat = view.beat.as_ref().map(|seen| (seen.value.instance.clone(), Some(seen.lease)));
        let wanted = etcd.beat.map(|beat| (owner(beat.who).instance, lease_of(beat.who, beat.lease)));
        assert_eq!(beat, wanted, "the beat");
        let open = view.open_intent().map(|seen| seen.value.op.clone());
        assert_eq!(open, etcd.open_intent().map(|intent| op_of(intent.op)), "the open intent");
        for (host, candidate) in etcd.candidates.iter().enumerate() {
            let Some(candidate) = candidate else { continue };
            let me = owner(Instance { host: host as u8, life: candidate.life });
            let seen = view.candidates.get(&me.instance).expect("a candidate");
            assert_eq!(Some(seen.lease), lease_of(Instance { host: host as u8, life: 0 }, candidate.lease));
        }
    }
}

fn op_of(number: u8) -> OpId {
    format!("{number:016x}").parse().expect("an operation id")
}

fn owner(who: Instance) -> Owner {
    let agent: AgentId = format!("app-{}", who.host).parse().expect("agent");
    Owner {
        instance: format!("{:08x}{:08x}", who.host, who.life).parse().expect("instance"),
        agent,
        host: format!("host-{}", who.host),
        boot_id: "boot".to_owned(),
        version: "1.0.0".parse().expect("version"),
    }
}

fn candidate(me: Instance, lease_id: LeaseId, prepared_for: Option<OpId>) -> Candidate {
    // By way of its stored form, so that fields which the model does not know do not have to be named here.
    let text = format!(
        r#"{{"v":1,"owner":{},"lease_id":{lease_id},"ttl_s":10,"ready":true,"serving":false,"prepared_for":{},"declined":null,"active":null}}"#,
        serde_json::to_string(&owner(me)).expect("json"),
        serde_json::to_string(&prepared_for).expect("json"),
    );
    serde_json::from_str(&text).expect("a candidate")
}
