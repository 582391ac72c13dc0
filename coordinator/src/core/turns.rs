//! The history of the scheduler lease: one record for each turn, and what can be read from them side by side.

use handover_proto::lease::{Free, Holder, HolderState, LeaseCause, LeaseView, Owner, Seen, StopProof};
use handover_proto::numbers::{Era, Term, Token};
use handover_proto::stored::STORED_VERSION;
use handover_proto::txn::Revision;
use serde::{Deserialize, Serialize};

use super::standing::StandingOrder;

/// Turns that are kept for each service: at one hand-over an hour, six weeks.
pub const KEPT: u64 = 1000;

/// One turn, or the time between two in which nobody held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnRecord {
    /// Version of the stored form.
    pub v: u32,
    /// The holder key's dense count.
    pub turn: u64,
    /// The holder key's mod revision.
    pub revision: Revision,
    /// The era it was written in.
    pub era: Era,
    /// Who holds; with `proof`: who held last.
    pub owner: Owner,
    /// Present if nobody holds: why it is certain that he stopped.
    pub proof: Option<StopProof>,
    /// Why it began, as the holder key says it.
    pub cause: LeaseCause,
    /// The order that asked for it, in a sentence with its giver.
    pub order: Option<String>,
    /// Wall clock of the agent that wrote it, Unix milliseconds.
    pub at_ms: u64,
    /// When the last holder's service was known to have stopped, by that agent's wall clock.
    pub stopped_ms: Option<u64>,
    /// When the new holder's service worked.
    pub active_ms: Option<u64>,
    /// When the store stopped believing in the holder.
    pub lost_ms: Option<u64>,
    /// The coordinator that recorded it.
    pub term: Term,
}

impl TurnRecord {
    /// The turn that the holder key shows.
    pub fn of(holder: &Seen<Holder>, orders: &[StandingOrder], term: Term) -> Self {
        let value = &holder.value;
        let proof = match &value.state {
            HolderState::Free(Free { stop_proof, .. }) => Some(*stop_proof),
            HolderState::Held(_) => None,
        };
        let order = orders.iter().find(|order| order.has_asked(&value.op)).map(|order| {
            let because = if order.because.is_empty() { String::new() } else { format!(": {}", order.because) };
            format!("order {}, by {}{because}", order.number, order.by)
        });
        Self {
            v: STORED_VERSION,
            turn: value.turn,
            revision: holder.mod_revision,
            era: value.era,
            owner: value.owner().clone(),
            proof,
            cause: value.cause.clone(),
            order,
            at_ms: value.at_ms,
            stopped_ms: value.stopped_at_ms,
            active_ms: None,
            lost_ms: None,
            term,
        }
    }

    /// The same with what the lease shows of it by now; `now_ms` and `gone_ms` are the coordinator's wall clock, the
    /// latter when it saw the beat vanish.
    pub fn seen(&self, lease: &LeaseView, now_ms: u64, gone_ms: Option<u64>) -> Self {
        let mut next = self.clone();
        if self.proof.is_some() || lease.turn_revision() != self.revision {
            return next;
        }
        let token = self.token();
        let mine = lease.candidates.get(&self.owner.instance).map(|seen| &seen.value);
        if self.active_ms.is_none() && mine.is_some_and(|mine| token.is_some() && mine.active == token) {
            next.active_ms = mine.and_then(|mine| mine.active_at_ms).or(Some(now_ms));
        }
        if lease.beat.is_none() && self.lost_ms.is_none() {
            next.lost_ms = gone_ms.or(Some(now_ms));
        }
        next
    }

    /// The turn's token.
    pub fn token(&self) -> Option<Token> {
        Token::new(self.era, self.revision).ok()
    }

    /// Why it began, in words.
    pub fn why(&self) -> String {
        match (&self.order, &self.cause) {
            (Some(order), _) => format!("{} ({order})", self.kind()),
            (None, LeaseCause::HandOver { asked, .. }) => match &asked.rollout {
                Some(rollout) => format!("handed over (rollout {rollout}, step {})", asked.step + 1),
                None => format!("handed over (order {})", asked.step),
            },
            (None, _) => self.kind(),
        }
    }

    fn kind(&self) -> String {
        match (&self.cause, self.proof) {
            (LeaseCause::Acquire, _) => "taken: it was free".to_owned(),
            (LeaseCause::TakeOver, _) => "taken over: the holder was lost".to_owned(),
            (LeaseCause::HandOver { .. }, _) => "handed over".to_owned(),
            (LeaseCause::Renewed, _) => "same holder, new token".to_owned(),
            (LeaseCause::Release, Some(StopProof::Quiesced)) => "released: the service had stopped".to_owned(),
            (LeaseCause::Release, Some(StopProof::Dead)) => "released: no process was left".to_owned(),
            (LeaseCause::Release, _) => "released".to_owned(),
            (LeaseCause::BreakGlass(order), _) => {
                format!("broken glass by {} and {}: {}", order.by, order.second, order.because)
            }
            (LeaseCause::Other, _) => "for a reason that only a newer version knows".to_owned(),
        }
    }

    /// How it ended, from the turn after it.
    pub fn ended_by(&self, next: &Self) -> String {
        let to = &next.owner.agent;
        match (&next.cause, next.proof) {
            _ if next.turn != self.turn.saturating_add(1) => "not known".to_owned(),
            (LeaseCause::HandOver { .. }, _) => format!("handed over to {to}"),
            (LeaseCause::TakeOver, _) => format!("lost; {to} took over"),
            (LeaseCause::Renewed, _) => "renewed with a new token".to_owned(),
            (LeaseCause::Acquire, _) => format!("taken by {to}"),
            (LeaseCause::Release, Some(StopProof::Quiesced)) => "released, stopped".to_owned(),
            (LeaseCause::Release, Some(StopProof::Dead)) => "released, dead".to_owned(),
            (LeaseCause::Release, Some(StopProof::Operator)) => "ended by operators".to_owned(),
            (LeaseCause::Release, None) => "released".to_owned(),
            (LeaseCause::BreakGlass(order), None) => format!("given to {to} by {} and {}", order.by, order.second),
            (LeaseCause::BreakGlass(order), Some(_)) => format!("ended by {} and {}", order.by, order.second),
            (LeaseCause::Other, _) => "changed by a newer version".to_owned(),
        }
    }

    /// From the stop of the last holder to the work of this one, in milliseconds; `before` is the turn before it. Read
    /// from the wall clocks of two hosts, so that it can be a little wrong, and is never below zero.
    pub fn dark_ms(&self, before: Option<&Self>) -> Option<u64> {
        let before = before.filter(|before| before.turn.saturating_add(1) == self.turn && self.proof.is_none());
        let free = before.filter(|before| before.proof.is_some());
        let stopped = self.stopped_ms.or_else(|| free.map(|free| free.stopped_ms.unwrap_or(free.at_ms)));
        // An older agent does not say when: it wrote a hand-over at once when the service had stopped.
        let handed_over = matches!(self.cause, LeaseCause::HandOver { .. }).then_some(self.at_ms);
        let stopped = stopped.or(handed_over).or_else(|| before.and_then(|before| before.lost_ms));
        Some(self.active_ms?.saturating_sub(stopped?))
    }
}

/// Since when nobody works under the lease, and why; none: somebody does, or it was never held. `gone_ms`: when the
/// beat was seen to vanish, `newest` the newest recorded turn.
pub fn dark(lease: &LeaseView, newest: Option<&TurnRecord>, gone_ms: Option<u64>) -> Option<(u64, String)> {
    let holder = &lease.holder.as_ref()?.value;
    let newest = newest.filter(|newest| newest.turn == holder.turn);
    let agent = &holder.owner().agent;
    if holder.held().is_none() {
        let since = newest.and_then(|newest| newest.stopped_ms).unwrap_or(holder.at_ms);
        return Some((since, format!("nobody has taken it since {agent} released it")));
    }
    if lease.beat.is_none() {
        let since = newest.and_then(|newest| newest.lost_ms).or(gone_ms).unwrap_or(holder.at_ms);
        return Some((since, format!("{agent} is lost, and nobody has taken over yet")));
    }
    let active = lease.candidates.get(&holder.owner().instance).and_then(|seen| seen.value.active);
    if active.is_some() && active == lease.token().ok().flatten() {
        return None;
    }
    let since = newest.and_then(|newest| newest.stopped_ms).unwrap_or(holder.at_ms);
    Some((since, format!("{agent} holds it, and its service does not work under it yet")))
}
