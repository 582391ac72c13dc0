//! Whether a renewal counts (`SAFETY.md` §1.7, rules 4 to 6).
//!
//! An acknowledged keep-alive alone proves nothing: a deposed leader goes on answering (measured for 22 s). The read that
//! follows it through the same member, in the same term, proves that this leader still had its quorum after the renewal.

use std::time::Duration;

use handover_proto::ids::InstanceId;
use handover_proto::keys::LeaseKeys;
use handover_proto::lease::{self, LeaseView, RawEntry};
use handover_proto::numbers::Era;
use handover_proto::planted::{Mistake, planted};
use handover_proto::txn::{LeaseId, Op, Revision, Txn};
use handover_store::client::{Entry, Renewal, TxnReply};

use super::deadline::Boot;

/// What must be true in the store for the renewal to count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The lease carries the beat of this turn.
    Holder {
        /// Of the holder key and the beat: R.
        turn: Revision,
        /// The turn's.
        era: Era,
    },
    /// The lease carries this instance's candidate key.
    Candidate(InstanceId),
}

/// What one renewal is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The etcd lease.
    pub lease: LeaseId,
    /// What it must carry.
    pub standing: Standing,
    /// The cluster that has answered so far.
    pub cluster: Option<u64>,
    /// The newest revision that was known when the request was sent.
    pub revision: Revision,
    /// T as configured: the store may grant more, not less (K2).
    pub min_ttl: Duration,
    /// Limit of both calls together: a.
    pub limit: Duration,
}

/// The outcome of one renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The store cannot expire the lease before the deadline that follows from these.
    Accepted {
        /// The moment before anything was sent.
        base: Boot,
        /// As the store answered.
        ttl: Duration,
    },
    /// It proves nothing; another attempt, at another member.
    Rejected(Doubt),
    /// The holder key has changed: fence at once.
    OwnershipLost,
    /// The key that the lease should carry is gone.
    LeaseLost,
}

/// Why a renewal does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// Too slow.
    #[error("it took {took:?}, longer than the limit of {limit:?}")]
    Late {
        /// Both calls.
        took: Duration,
        /// a.
        limit: Duration,
    },
    /// Not the store that answered before.
    #[error("another cluster answered: the store was replaced")]
    OtherCluster,
    /// The store went back in time.
    #[error("the store shows revision {shown}, older than the known {known}: it was restored from a backup")]
    WentBack {
        /// Now.
        shown: Revision,
        /// Before.
        known: Revision,
    },
    /// Keep-alive and read were answered by different members.
    #[error("two members answered")]
    OtherMember,
    /// The member changed its term between the two answers.
    #[error("the raft term changed between the renewal and the read")]
    OtherTerm,
    /// The store says that the lease is gone, or grants too little.
    #[error("the store answered a TTL of {got:?} instead of {wanted:?}")]
    Ttl {
        /// As answered.
        got: Duration,
        /// As configured.
        wanted: Duration,
    },
    /// The era was raised.
    #[error("the era was raised")]
    OtherEra,
}

/// The read that follows the keep-alive.
pub fn barrier(keys: &LeaseKeys, standing: &Standing) -> Txn {
    let mut txn = lease::read(keys);
    if let Standing::Candidate(instance) = standing {
        txn.then.push(Op::Get(keys.candidate(instance)));
    }
    txn
}

/// The keys that `asked` reads, each with what the reply says of it.
pub(super) fn reads<'a>(asked: &'a [Op], reply: &'a TxnReply) -> impl Iterator<Item = (&'a str, Option<&'a Entry>)> {
    let keys = asked.iter().filter_map(|op| match op {
        Op::Get(key) => Some(key.as_str()),
        Op::Put { .. } | Op::Delete(_) => None,
    });
    keys.zip(reply.reads.iter().map(Option::as_ref))
}

/// Judges the renewal whose request was sent at `sent` and whose last answer came at `now`.
pub fn accept(keys: &LeaseKeys, renewal: &Renewal, sent: Boot, now: Boot, expected: &Expectation) -> Verdict {
    let (first, second) = (renewal.keep_alive, renewal.barrier.origin);
    let known = expected.cluster.unwrap_or(second.cluster_id);
    if first.cluster_id != known || second.cluster_id != known {
        return Verdict::Rejected(Doubt::OtherCluster);
    }
    let shown = renewal.barrier.revision;
    if shown < expected.revision {
        return Verdict::Rejected(Doubt::WentBack { shown, known: expected.revision });
    }
    // These two stand on the linearizable read alone, so they hold whatever is wrong with the keep-alive.
    let view = view_of(keys, expected, &renewal.barrier);
    if let Some(lost) = lost(&view, expected) {
        return lost;
    }
    match doubt(renewal, &view, now.since(sent), expected) {
        Some(doubt) => Verdict::Rejected(doubt),
        None => {
            let base = if planted(Mistake::CountsFromReceipt) { now } else { sent };
            Verdict::Accepted { base, ttl: renewal.ttl }
        }
    }
}

fn doubt(renewal: &Renewal, view: &LeaseView, took: Duration, expected: &Expectation) -> Option<Doubt> {
    let (first, second) = (renewal.keep_alive, renewal.barrier.origin);
    let wanted = expected.min_ttl.max(Duration::from_secs(1));
    if first.member_id != second.member_id {
        Some(Doubt::OtherMember)
    } else if first.raft_term != second.raft_term && !planted(Mistake::NoTermCheck) {
        Some(Doubt::OtherTerm)
    } else if renewal.ttl < wanted && !planted(Mistake::RequestedTtl) {
        Some(Doubt::Ttl { got: renewal.ttl, wanted })
    } else if took > expected.limit {
        Some(Doubt::Late { took, limit: expected.limit })
    } else if matches!(expected.standing, Standing::Holder { era, .. } if era != view.era.0) {
        Some(Doubt::OtherEra)
    } else {
        None
    }
}

fn lost(view: &LeaseView, expected: &Expectation) -> Option<Verdict> {
    match &expected.standing {
        Standing::Holder { turn, .. } => {
            if view.turn_revision() != *turn {
                return Some(Verdict::OwnershipLost);
            }
            let mine =
                view.beat.as_ref().is_some_and(|beat| beat.mod_revision == *turn && beat.lease == expected.lease);
            (!mine).then_some(Verdict::LeaseLost)
        }
        Standing::Candidate(instance) => {
            let mine = view.candidates.get(instance).is_some_and(|seen| seen.lease == expected.lease);
            (!mine).then_some(Verdict::LeaseLost)
        }
    }
}

fn view_of(keys: &LeaseKeys, expected: &Expectation, reply: &TxnReply) -> LeaseView {
    let mut view = LeaseView::default();
    let asked = barrier(keys, &expected.standing);
    for (key, entry) in reads(&asked.then, reply) {
        let raw = entry.map(|entry| RawEntry {
            value: &entry.value,
            mod_revision: entry.mod_revision,
            create_revision: entry.create_revision,
            lease: entry.lease,
        });
        // An unreadable value stays out of the view, and what should be there is then taken as lost: the safe side.
        if let Err(error) = view.put(keys, key, raw) {
            tracing::warn!(error = %error, "unreadable key in a renewal's read");
        }
    }
    view
}

#[cfg(test)]
mod tests;
