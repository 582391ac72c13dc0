//! The journal: what was decided, in order, each record chained to the one before by its hash.
//!
//! The rollout's state is the fold of these records and of nothing else (`SAFETY.md` E6). A record is appended in one
//! transaction with the assignments and the lease's intent that it decided, under the leader's check.

use handover_proto::ids::{AgentId, InstanceId, OpId};
use handover_proto::lease::IntentKind;
use handover_proto::numbers::Term;
use handover_proto::stored::{STORED_VERSION, StoredError, encode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Largest stored record (`SAFETY.md` E6): far below etcd's limit of a request, which a record shares with up to a
/// hundred assignments.
pub const MAX_RECORD_BYTES: usize = 16 * 1024;

/// What stands before the first record.
pub const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Something that was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Event {
    /// The rollout begins, at the plan's first step.
    Started {
        /// SHA-256 of the spec's text.
        spec_hash: String,
        /// SHA-256 of the plan.
        plan_hash: String,
        /// Who asked.
        by: String,
        /// Of the request, so that a repeat of it finds this rollout.
        op: OpId,
    },
    /// A step begins: the one before is met.
    Entered {
        /// Its number in the plan, from 0.
        step: u32,
    },
    /// Hosts got the assignment of the present step: at its beginning, or later than the others.
    Assigned {
        /// Which.
        agents: Vec<AgentId>,
    },
    /// The hosts are asked to have the new version in place.
    Staging,
    /// The holder of the lease is asked to hand over.
    Asked {
        /// The intent's id.
        op: OpId,
        /// Forward or back.
        intent: IntentKind,
        /// Who holds.
        from: InstanceId,
        /// Who is to hold.
        to: InstanceId,
    },
    /// The intent key is cleared, because what it asks for is done or no longer wanted.
    Withdrawn {
        /// The intent's id.
        op: OpId,
    },
    /// Nothing moves on until somebody resumes it; it can still go back.
    Paused {
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Because nobody measures how the candidate answers: whoever resumes it vouches for this step.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unmeasured: bool,
    },
    /// It moves on.
    Resumed {
        /// Who.
        by: String,
    },
    /// It goes back, for good: the latch of `SAFETY.md` E10.
    Back {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// A step of the way back begins.
    BackEntered {
        /// Which.
        step: BackStep,
    },
    /// It is over.
    Ended {
        /// How.
        outcome: Outcome,
        /// Why, in a sentence; empty for [`Outcome::Done`].
        reason: String,
    },
}

/// The steps of the way back, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackStep {
    /// All traffic to the current version, on all hosts at once.
    Routes,
    /// The lease back to the current version, if a candidate holds it.
    Lease,
    /// The candidates stop.
    Stop,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new version serves, the old one is retired.
    Done,
    /// The current version serves, the new one is gone.
    RolledBack,
    /// Neither is wholly true; a human is needed.
    Failed,
}

/// An event with its place in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the stored form.
    pub v: u32,
    /// From 1, without gaps.
    pub seq: u64,
    /// Wall clock of the coordinator, Unix milliseconds. Deadlines of steps count from it.
    pub at_ms: u64,
    /// The coordinator's term.
    pub term: Term,
    /// [`Record::hash`] of the record before, [`NO_HASH`] for the first.
    pub prev_hash: String,
    /// What was decided.
    pub event: Event,
}

/// A journal that cannot be continued or trusted.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The record is too large.
    #[error("record {seq} of the journal has {bytes} bytes, more than {MAX_RECORD_BYTES}; give a shorter reason")]
    TooLarge {
        /// Which.
        seq: u64,
        /// Its size.
        bytes: usize,
    },
    /// A record is missing, or was changed after it was written.
    #[error("record {seq} of the journal does not continue the one before ({what}); restore it from a backup")]
    Broken {
        /// Which.
        seq: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// Cannot be written as JSON.
    #[error(transparent)]
    Unwritable(#[from] StoredError),
}

impl Record {
    /// The record that continues `last` (none: the journal is empty).
    ///
    /// # Errors
    /// [`JournalError::TooLarge`].
    pub fn after(last: Option<&Self>, at_ms: u64, term: Term, event: Event) -> Result<Self, JournalError> {
        let prev_hash = last.map_or_else(|| Ok(NO_HASH.to_owned()), Self::hash)?;
        let seq = last.map_or(1, |last| last.seq + 1);
        let record = Self { v: STORED_VERSION, seq, at_ms, term, prev_hash, event };
        let bytes = record.bytes()?.len();
        if bytes > MAX_RECORD_BYTES {
            return Err(JournalError::TooLarge { seq, bytes });
        }
        Ok(record)
    }

    /// As it is stored.
    ///
    /// # Errors
    /// If it cannot be written as JSON; none can.
    pub fn bytes(&self) -> Result<Vec<u8>, StoredError> {
        encode(self)
    }

    /// SHA-256 of the stored bytes, hexadecimal.
    ///
    /// # Errors
    /// As [`Record::bytes`].
    pub fn hash(&self) -> Result<String, StoredError> {
        self.bytes().map(|bytes| sha256_hex(&bytes))
    }
}

/// Checks that the records are a whole journal from its beginning, and none was changed.
///
/// # Errors
/// [`JournalError::Broken`] at the first that does not continue the one before.
pub fn check_chain(records: &[Record]) -> Result<(), JournalError> {
    let mut prev_hash = NO_HASH.to_owned();
    for (record, seq) in records.iter().zip(1..) {
        let broken = |what| Err(JournalError::Broken { seq, what });
        if record.seq != seq {
            return broken("its number");
        }
        if record.prev_hash != prev_hash {
            return broken("its hash of the one before");
        }
        prev_hash = record.hash()?;
    }
    Ok(())
}

/// SHA-256, in lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
