//! The lease's transactions (`SAFETY.md` §1.6): nothing else may write the holder key or the beat.
//!
//! | # | function | who may send it |
//! |---|---|---|
//! | T1 | [`acquire`] | any ready candidate, when the holder key is absent or FREE |
//! | T2 | [`take_over`] | any ready candidate of a listed agent, when the beat is gone **and** its quarantine is over |
//! | T3 | [`hand_over`] | the holder's agent alone, after QUIESCED |
//! | T4 | [`release`] | the holder's agent alone, after QUIESCED or when no process is left |
//! | T5 | [`mint`] | the holder's agent alone, after it lost its etcd lease and its service stopped |
//!
//! T6 (break-glass) is [`break_glass`](super::break_glass); what coordinator and operators may write stands beside it, in
//! `orders`. Each function builds a transaction from one [`LeaseView`] and
//! compares every revision that the view showed, so a transaction built from an old view writes nothing. A repeat of
//! one that succeeded fails its compare. Every one carries an operation id: an unknown outcome is resolved by reading
//! the holder key and comparing `op`.

use super::roster;
use super::values::{Beat, Free, Held, Holder, HolderState, LeaseCause, Owner, StopProof};
use super::view::{Corrupt, LeaseView, Seen};
use crate::ids::{AgentId, InstanceId, OpId};
use crate::keys::LeaseKeys;
use crate::numbers::MAX_ERA;
use crate::planted::{Mistake, planted};
use crate::stored::{STORED_VERSION, StoredError, encode};
use crate::txn::{Cmp, LeaseId, Op, Revision, Txn};

/// Why a transaction is not even built.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Somebody holds, so it is not free.
    #[error("the lease is held by instance {0}")]
    Held(InstanceId),
    /// There is a beat: etcd still believes in the holder.
    #[error("the holder's beat is present; there is nothing to take over")]
    Beating,
    /// The sender does not hold.
    #[error("instance {0} does not hold the lease")]
    NotHolder(InstanceId),
    /// Nobody is lost.
    #[error("the lease was never held; acquire it instead")]
    NothingToTakeOver,
    /// An operator froze automatic take-over.
    #[error("automatic take-over is frozen by an operator (key lease/freeze); delete the key to go on")]
    Frozen,
    /// An open intent names somebody else.
    #[error("the open intent {0} names another instance")]
    IntentForOther(OpId),
    /// The intent is not (or no longer) one that this holder can follow.
    #[error("there is no open intent from instance {0}")]
    NoIntent(InstanceId),
    /// The successor's candidate key is gone.
    #[error("the successor {0} is not a candidate; its agent or its etcd lease is gone")]
    NoCandidate(InstanceId),
    /// The successor has not said that it is prepared.
    #[error("the successor {0} has not prepared for the hand-over")]
    Unprepared(InstanceId),
    /// The roster does not list the sender's agent.
    #[error(
        "agent {0} is not in the roster (key lease/roster), so it may not take over; the holder's agent lists every agent \
         whose candidates it sees. If nobody listed is left, two people can give the lease away: \
         `handover lease release --force --to AGENT`"
    )]
    NotListed(AgentId),
    /// An order of two people that is not one.
    #[error("{0}")]
    NotTwo(&'static str),
    /// An order that would be no change.
    #[error("era {asked} is not above the present era {present}; give a higher one")]
    NoHigherEra {
        /// As it stands.
        present: u16,
        /// As asked.
        asked: u16,
    },
    /// An era that fits no token: nobody could hold under it, and none is above it.
    #[error("era {0} is above {MAX_ERA}, the highest that fits a token; give a lower one")]
    EraTooHigh(u16),
    /// Holder and beat contradict each other.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// Cannot be written.
    #[error(transparent)]
    Unwritable(#[from] StoredError),
}

/// What a new turn is written with.
#[derive(Debug, Clone)]
pub struct Turn<'a> {
    /// Who is to hold.
    pub owner: &'a Owner,
    /// Its etcd lease, renewed at least twice.
    pub lease_id: LeaseId,
    /// As etcd granted it, in seconds.
    pub ttl_s: u64,
    /// Id of this transaction.
    pub op: OpId,
    /// When, for people.
    pub stamp: Stamp,
}

/// When ownership changes: wall clock, Unix milliseconds, for people and never for decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Now.
    pub at_ms: u64,
    /// When the service of whoever held before was known to have stopped; none: nobody knows.
    pub stopped_at_ms: Option<u64>,
}

impl Stamp {
    /// Now, and nobody knows when the service stopped.
    pub fn at(at_ms: u64) -> Self {
        Self { at_ms, stopped_at_ms: None }
    }
}

/// Reads all but the candidates, in one revision. Also the barrier of a renewal (§1.7).
pub fn read(keys: &LeaseKeys) -> Txn {
    Txn { then: read_ops(keys), ..Txn::default() }
}

pub(super) fn read_ops(keys: &LeaseKeys) -> Vec<Op> {
    let all = [keys.holder(), keys.beat(), keys.era(), keys.intent(), keys.freeze(), keys.roster()];
    all.into_iter().map(Op::Get).collect()
}

/// T1: the lease is free, with proof that the last holder stopped, or was never held.
///
/// # Errors
/// [`Refused`] if the view shows that it would be wrong.
pub fn acquire(keys: &LeaseKeys, view: &LeaseView, turn: &Turn<'_>) -> Result<Txn, Refused> {
    if let Some(held) = view.holder.as_ref().and_then(|seen| seen.value.held()) {
        return Err(Refused::Held(held.owner.instance.clone()));
    }
    let mut txn = take(keys, view, turn, LeaseCause::Acquire)?;
    // No turn without a roster: else a holder that dies in its first moments could never be taken over from.
    let agents = roster::with(view, [&turn.owner.agent]);
    if let Some(agents) = agents {
        txn.cmp.push(roster::as_seen(keys, view));
        txn.then.push(roster::put(keys, view, agents)?);
    }
    Ok(txn)
}

/// T2: the holder was lost. The caller has waited the quarantine (§1.9) since it saw the beat absent.
///
/// # Errors
/// [`Refused`] if the view shows that it would be wrong.
pub fn take_over(keys: &LeaseKeys, view: &LeaseView, turn: &Turn<'_>) -> Result<Txn, Refused> {
    if view.holder.as_ref().and_then(|seen| seen.value.held()).is_none() {
        return Err(Refused::NothingToTakeOver);
    }
    if !view.lists(&turn.owner.agent) {
        return Err(Refused::NotListed(turn.owner.agent.clone()));
    }
    let mut txn = take(keys, view, turn, LeaseCause::TakeOver)?;
    txn.cmp.push(roster::as_seen(keys, view));
    Ok(txn)
}

fn take(keys: &LeaseKeys, view: &LeaseView, turn: &Turn<'_>, cause: LeaseCause) -> Result<Txn, Refused> {
    view.check()?;
    if view.beat.is_some() {
        return Err(Refused::Beating);
    }
    if view.is_frozen_for(&turn.owner.agent) {
        return Err(Refused::Frozen);
    }
    if let Some(intent) = view.kept_for_other(&turn.owner.instance) {
        return Err(Refused::IntentForOther(intent.value.op.clone()));
    }
    let mut cmp = compare_turn(keys, view, 0);
    if !view.frozen {
        cmp.push(Cmp::ModRevision(keys.freeze(), 0));
    }
    cmp.push(Cmp::ModRevision(keys.intent(), view.intent.as_ref().map_or(0, |seen| seen.mod_revision)));
    write_turn(keys, view, turn, cause, cmp)
}

/// T3: the holder hands over to the candidate that the open intent names, in one revision.
///
/// The caller has its service's QUIESCED for the present token. The successor's etcd lease is compared, so that the
/// beat cannot be bound to a lease that the successor has lost.
///
/// # Errors
/// [`Refused`] if the view shows that it would be wrong.
pub fn hand_over(keys: &LeaseKeys, view: &LeaseView, me: &InstanceId, stamp: Stamp) -> Result<Txn, Refused> {
    let turn = my_turn(view, me)?;
    if view.frozen {
        return Err(Refused::Frozen);
    }
    let intent =
        view.open_intent().filter(|intent| intent.value.from == *me).ok_or_else(|| Refused::NoIntent(me.clone()))?;
    let to = intent.value.to.as_ref().ok_or_else(|| Refused::NoIntent(me.clone()))?;
    let heir = view.candidates.get(to).ok_or_else(|| Refused::NoCandidate(to.clone()))?;
    if heir.value.prepared_for.as_ref() != Some(&intent.value.op) {
        return Err(Refused::Unprepared(to.clone()));
    }
    let mut cmp = compare_turn(keys, view, turn);
    if !planted(Mistake::SuccessorNotCompared) {
        cmp.push(Cmp::CreateRevision(keys.candidate(to), heir.create_revision));
        cmp.push(Cmp::Lease(keys.candidate(to), heir.lease));
    }
    cmp.push(Cmp::ModRevision(keys.intent(), intent.mod_revision));
    cmp.push(Cmp::ModRevision(keys.freeze(), 0));
    let cause = LeaseCause::HandOver { asked: intent.value.cause.clone(), term: intent.value.term };
    let turn = Turn {
        owner: &heir.value.owner,
        lease_id: heir.lease,
        ttl_s: heir.value.ttl_s,
        op: intent.value.op.clone(),
        stamp,
    };
    write_turn(keys, view, &turn, cause, cmp)
}

/// T4: the holder gives up without a successor; its service is proved to have stopped.
///
/// # Errors
/// [`Refused`] if the view shows that it would be wrong.
pub fn release(
    keys: &LeaseKeys,
    view: &LeaseView,
    me: &InstanceId,
    stop_proof: StopProof,
    op: OpId,
    stamp: Stamp,
) -> Result<Txn, Refused> {
    let turn = my_turn(view, me)?;
    let last = view.holder.as_ref().map(|seen| seen.value.owner().clone());
    let last = last.ok_or_else(|| Refused::NotHolder(me.clone()))?;
    let holder = Holder {
        v: STORED_VERSION,
        state: HolderState::Free(Free { last, stop_proof }),
        era: view.era.0,
        turn: next_turn(view),
        op,
        cause: LeaseCause::Release,
        at_ms: stamp.at_ms,
        stopped_at_ms: stamp.stopped_at_ms,
    };
    // A beat that has expired meanwhile does not forbid it: with the proof in hand, FREE is the truth either way.
    let cmp = compare_turn(keys, view, if view.beat.is_some() { turn } else { 0 });
    let then = vec![Op::put(keys.holder(), encode(&holder)?), Op::Delete(keys.beat())];
    Ok(Txn { cmp, then, or_else: read_ops(keys) })
}

/// T5: the same holder with a new token, after it lost its etcd lease and its service stopped. No quarantine: nobody
/// else could have worked.
///
/// # Errors
/// [`Refused`] if the view shows that it would be wrong.
pub fn mint(keys: &LeaseKeys, view: &LeaseView, turn: &Turn<'_>) -> Result<Txn, Refused> {
    let revision = my_turn(view, &turn.owner.instance)?;
    let cmp = compare_turn(keys, view, if view.beat.is_some() { revision } else { 0 });
    write_turn(keys, view, turn, LeaseCause::Renewed, cmp)
}

/// Revision of `me`'s turn.
pub(super) fn my_turn(view: &LeaseView, me: &InstanceId) -> Result<Revision, Refused> {
    view.check()?;
    let mine: Option<&Seen<Holder>> = view.holder.as_ref().filter(|seen| seen.value.is_held_by(me));
    mine.map(|seen| seen.mod_revision).ok_or_else(|| Refused::NotHolder(me.clone()))
}

/// Every transaction compares holder, beat and era as they were read.
pub(super) fn compare_turn(keys: &LeaseKeys, view: &LeaseView, beat: Revision) -> Vec<Cmp> {
    vec![
        Cmp::ModRevision(keys.holder(), view.turn_revision()),
        Cmp::ModRevision(keys.beat(), beat),
        Cmp::ModRevision(keys.era(), view.era.1),
    ]
}

pub(super) fn next_turn(view: &LeaseView) -> u64 {
    view.holder.as_ref().map_or(1, |seen| seen.value.turn.saturating_add(1))
}

/// Holder and beat in one transaction, so that their mod revisions are one number (§1.4, rule 2).
pub(super) fn write_turn(
    keys: &LeaseKeys,
    view: &LeaseView,
    turn: &Turn<'_>,
    cause: LeaseCause,
    cmp: Vec<Cmp>,
) -> Result<Txn, Refused> {
    let held = Held { owner: turn.owner.clone(), lease_id: turn.lease_id, ttl_s: turn.ttl_s };
    let holder = Holder {
        v: STORED_VERSION,
        state: HolderState::Held(held),
        era: view.era.0,
        turn: next_turn(view),
        op: turn.op.clone(),
        cause,
        at_ms: turn.stamp.at_ms,
        stopped_at_ms: turn.stamp.stopped_at_ms,
    };
    let beat = Beat::of(&turn.owner.instance, &turn.op);
    let then =
        vec![Op::put(keys.holder(), encode(&holder)?), Op::put_with_lease(keys.beat(), encode(&beat)?, turn.lease_id)];
    Ok(Txn { cmp, then, or_else: read_ops(keys) })
}
