//! What the keeper can do next.

use std::time::Duration;

use handover_proto::ids::{AgentId, InstanceId, OpId};
use handover_proto::numbers::Token;
use handover_proto::txn::{LeaseId, Txn};

use super::deadline::Boot;
use super::memory::Memory;
use super::record::Published;
use super::renewal::Expectation;
use super::state::{Move, MyTurn, Order};
use super::waiting::Waiting;

/// The next thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum LeaseStep {
    /// Take up the turn that the store shows.
    Begin {
        /// Whose.
        instance: InstanceId,
        /// Which.
        turn: MyTurn,
    },
    /// Put away a turn that is over: the store shows another, and the service has stopped.
    End {
        /// Whose.
        instance: InstanceId,
    },
    /// Note that the turn may end by T3 or T4.
    Leave {
        /// Whose.
        instance: InstanceId,
    },
    /// Change what the service is told.
    Order {
        /// Whose.
        instance: InstanceId,
        /// To what.
        order: Order,
    },
    /// Go on in spite of an intent.
    Decline {
        /// Who.
        instance: InstanceId,
        /// The intent.
        op: OpId,
    },
    /// Go on with an etcd lease that an earlier agent process granted.
    Adopt {
        /// Whose.
        instance: InstanceId,
        /// Which.
        lease: LeaseId,
        /// Its TTL.
        ttl: Duration,
        /// It carries the beat.
        used: bool,
    },
    /// Let go of an etcd lease that has no purpose any more.
    Drop {
        /// Whose.
        instance: InstanceId,
    },
    /// Forget an instance that is gone.
    Forget {
        /// Which.
        instance: InstanceId,
    },
    /// Call the service; a call to it that is under way is given up.
    Tell {
        /// Whose.
        instance: InstanceId,
        /// What.
        record: Published,
        /// How long it may take.
        limit: Duration,
    },
    /// End the instance's processes: D_hard has come and its service has not acknowledged.
    Kill {
        /// Which.
        instance: InstanceId,
    },
    /// Write the state file.
    Save(Memory),
    /// Read the lease's keys, linearizably.
    Read(Txn),
    /// Send one of the lease's transactions.
    Move {
        /// For whom.
        instance: InstanceId,
        /// Which.
        kind: Move,
        /// Under which id.
        op: OpId,
        /// As plain data.
        txn: Txn,
    },
    /// Renew an etcd lease.
    Renew {
        /// Whose.
        instance: InstanceId,
        /// Which.
        lease: LeaseId,
        /// Through which member.
        member: usize,
        /// The read that follows.
        barrier: Txn,
        /// What the answers are judged by.
        expected: Expectation,
    },
    /// Grant an etcd lease.
    Grant {
        /// For whom.
        instance: InstanceId,
        /// T.
        ttl: Duration,
    },
    /// Write the candidate key.
    PutCandidate {
        /// Whose.
        instance: InstanceId,
        /// The write.
        txn: Txn,
    },
    /// Write the roster.
    PutRoster(Txn),
    /// Begin the watch anew: the store is believed anew.
    Relist,
    /// Ask every member for its version.
    Survey,
    /// Ask the lost holder's agent for a certificate that its service has stopped.
    AskCertificate {
        /// Whom.
        agent: AgentId,
        /// About which token.
        token: Token,
    },
    /// Revoke an etcd lease that carries nothing.
    Revoke {
        /// Which.
        lease: LeaseId,
    },
    /// Nothing to do before an event, or this moment.
    Wait {
        /// The next moment at which something falls due.
        until: Option<Boot>,
        /// What is waited for; none: all is as it should be.
        reason: Option<Waiting>,
    },
}

impl LeaseStep {
    /// Its name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "Begin",
            Self::End { .. } => "End",
            Self::Leave { .. } => "Leave",
            Self::Order { .. } => "Order",
            Self::Decline { .. } => "Decline",
            Self::Adopt { .. } => "Adopt",
            Self::Drop { .. } => "Drop",
            Self::Forget { .. } => "Forget",
            Self::Tell { .. } => "Tell",
            Self::Kill { .. } => "Kill",
            Self::Save(_) => "Save",
            Self::Read(_) => "Read",
            Self::Move { .. } => "Move",
            Self::Renew { .. } => "Renew",
            Self::Grant { .. } => "Grant",
            Self::PutCandidate { .. } => "PutCandidate",
            Self::PutRoster(_) => "PutRoster",
            Self::Relist => "Relist",
            Self::Survey => "Survey",
            Self::AskCertificate { .. } => "AskCertificate",
            Self::Revoke { .. } => "Revoke",
            Self::Wait { .. } => "Wait",
        }
    }
}
