//! What coordinator and operators may write about the lease.
//!
//! | who | function | what it moves |
//! |---|---|---|
//! | coordinator | [`ask`] | nothing: the holder moves by T3 or T4 |
//! | two people | [`break_glass`] (T6) | holder and beat |
//! | two people | [`raise_era`] | the era, after a restore of the store |
//! | two people | [`mend_era`] | the era, if nobody can read it |

use super::txn::{Refused, Stamp, Turn, compare_turn, my_turn, next_turn, read_ops, write_turn};
use super::values::{BreakGlass, EraValue, Free, Holder, HolderState, Intent, LeaseCause, StopProof};
use super::view::LeaseView;
use crate::ids::{InstanceId, OpId};
use crate::keys::LeaseKeys;
use crate::numbers::{Era, MAX_ERA};
use crate::stored::{STORED_VERSION, encode};
use crate::txn::{Cmp, Op, Revision, Txn};

/// The coordinator's only way to move the lease: it asks. `leader` is its leader key with the create revision.
///
/// # Errors
/// [`Refused`] if `from` does not hold.
pub fn ask(keys: &LeaseKeys, view: &LeaseView, intent: &Intent, leader: (String, Revision)) -> Result<Txn, Refused> {
    let turn = my_turn(view, &intent.from)?;
    let cmp = vec![Cmp::CreateRevision(leader.0, leader.1), Cmp::ModRevision(keys.holder(), turn)];
    Ok(Txn { cmp, then: vec![Op::put(keys.intent(), encode(intent)?)], or_else: read_ops(keys) })
}

/// T6: two people move the lease past the protocol, to the candidate `to`, or to nobody. A freeze and an open intent do
/// not stop it: they bind programs.
///
/// Without an assertion the beat must be gone, and the caller must have waited the quarantine (§1.9) since it saw that.
///
/// # Errors
/// [`Refused`]: they are not two, give no reason, or the view shows that it would be wrong.
pub fn break_glass(
    keys: &LeaseKeys,
    view: &LeaseView,
    order: BreakGlass,
    to: Option<&InstanceId>,
    op: OpId,
    stamp: Stamp,
) -> Result<Txn, Refused> {
    two_people(&order.by, &order.second, &order.because)?;
    // Corrupt keys do not stop it: it is the way out of them.
    let last = view.holder.as_ref().map(|seen| seen.value.owner().clone()).ok_or(Refused::NothingToTakeOver)?;
    if view.beat.is_some() && order.asserting.is_none() {
        return Err(Refused::Beating);
    }
    let cause = LeaseCause::BreakGlass(order);
    let mut cmp = compare_turn(keys, view, view.beat_revision());
    if let Some(to) = to {
        let heir = view.candidates.get(to).ok_or_else(|| Refused::NoCandidate(to.clone()))?;
        cmp.push(Cmp::CreateRevision(keys.candidate(to), heir.create_revision));
        cmp.push(Cmp::Lease(keys.candidate(to), heir.lease));
        let (owner, ttl_s) = (&heir.value.owner, heir.value.ttl_s);
        return write_turn(keys, view, &Turn { owner, lease_id: heir.lease, ttl_s, op, stamp }, cause, cmp);
    }
    let holder = Holder {
        v: STORED_VERSION,
        state: HolderState::Free(Free { last, stop_proof: StopProof::Operator }),
        era: view.era.0,
        turn: next_turn(view),
        op,
        cause,
        at_ms: stamp.at_ms,
        stopped_at_ms: stamp.stopped_at_ms,
    };
    let then = vec![Op::put(keys.holder(), encode(&holder)?), Op::Delete(keys.beat())];
    Ok(Txn { cmp, then, or_else: read_ops(keys) })
}

/// Raises the era to `era`: every turn of a lower one ends, and agents believe a restored store again. The era goes into
/// the upper bits of every token, so that tokens grow although revisions went back.
///
/// # Errors
/// [`Refused`]: they are not two, give no reason, or the era is not above the present one, or above all that fit
/// a token.
pub fn raise_era(
    keys: &LeaseKeys,
    view: &LeaseView,
    era: Era,
    (by, second, because): (&str, &str, &str),
) -> Result<Txn, Refused> {
    two_people(by, second, because)?;
    if era <= view.era.0 {
        return Err(Refused::NoHigherEra { present: view.era.0.0, asked: era.0 });
    }
    if era.0 > MAX_ERA {
        return Err(Refused::EraTooHigh(era.0));
    }
    put_era(keys, era, view.era.1, (by, second, because))
}

/// Replaces an era that cannot be read, such as one that fits no token, by one above the last turn's. Nobody can have held
/// under it. `view` is the lease without its era, `written` the revision of the era key as it stands.
///
/// # Errors
/// [`Refused`]: they are not two, give no reason, or the last turn was in the highest era that there is.
pub fn mend_era(
    keys: &LeaseKeys,
    view: &LeaseView,
    written: Revision,
    (by, second, because): (&str, &str, &str),
) -> Result<(Era, Txn), Refused> {
    two_people(by, second, because)?;
    let era = after_last_turn(view);
    if era.0 > MAX_ERA {
        return Err(Refused::EraTooHigh(era.0));
    }
    Ok((era, put_era(keys, era, written, (by, second, because))?))
}

/// One above the era of the last turn that the holder key shows.
pub fn after_last_turn(view: &LeaseView) -> Era {
    Era(view.holder.as_ref().map_or(0, |seen| seen.value.era.0).saturating_add(1))
}

fn put_era(
    keys: &LeaseKeys,
    era: Era,
    written: Revision,
    (by, second, because): (&str, &str, &str),
) -> Result<Txn, Refused> {
    let text = |text: &str| Some(text.trim().to_owned());
    let value = EraValue { v: STORED_VERSION, era, by: text(by), second: text(second), because: text(because) };
    let cmp = vec![Cmp::ModRevision(keys.era(), written)];
    Ok(Txn { cmp, then: vec![Op::put(keys.era(), encode(&value)?)], or_else: read_ops(keys) })
}

fn two_people(by: &str, second: &str, because: &str) -> Result<(), Refused> {
    let (by, second) = (by.trim(), second.trim());
    if by.is_empty() || second.is_empty() || by.to_lowercase() == second.to_lowercase() {
        return Err(Refused::NotTwo("this takes two different people: give both names, with --by and --second"));
    }
    if because.trim().is_empty() {
        return Err(Refused::NotTwo("this takes a reason: give it with --because, for the record"));
    }
    Ok(())
}
