//! What agent and gate say to each other: one JSON object per line over the gate's Unix socket.
//!
//! Agent to gate: [`ToGate`]. Gate to agent: [`FromGate`]. The gate is not restarted when its agent is upgraded, so both
//! sides must read each other one version apart: fields are only ever added, with a default, and unknown ones are ignored.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use handover_proto::ids::{InstanceId, Version};
use serde::{Deserialize, Serialize};

use super::counts::ClassCounts;

/// A line longer than this is refused: a state with hundreds of upstreams has a tenth of it.
pub const LINE_LIMIT_BYTES: usize = 1 << 20;

/// What the gate does with a new request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Admission {
    /// Serve.
    Open,
    /// Serve, and tell every client to leave (`Connection: close`).
    LameDuck,
    /// Let it wait, bounded in time and number.
    Hold,
    /// Answer 503 and close; what is in flight finishes.
    Shut,
}

/// One instance that the gate may send requests to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The running instance; a restarted process is another instance.
    pub instance: InstanceId,
    /// The version that it runs.
    pub version: Version,
    /// Where it listens.
    pub address: SocketAddr,
    /// Absolute weight for reads; 0 sends none.
    pub reads: u32,
    /// Absolute weight for writes; 0 sends none.
    pub writes: u32,
    /// Whether its readiness holds. The gate leaves out those that are not ready and splits among the rest.
    pub ready: bool,
}

/// The whole wanted state of a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateState {
    /// Grows with every change; an agent that starts goes on from the `applied` of the gate's first report.
    pub seq: u64,
    /// What to do with new requests.
    pub admission: Admission,
    /// All upstreams, each instance once.
    pub upstreams: Vec<Upstream>,
}

/// A line from the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGate {
    /// Be like this from now on.
    State(GateState),
    /// From a newer gate: it hears this one until it ends, tells it states as an agent would, and adds its counts to its own.
    Follow,
    /// From a newer gate: it asks for the listener.
    TakeOver,
    /// From a newer gate that asked: it accepts clients and answers agents.
    Accepting {
        /// Whether it accepts them on the listener that it was given, so that nobody waits on it in vain.
        same_listener: bool,
    },
}

/// A line from the gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGate {
    /// How things are.
    Report(GateReport),
    /// A line was not accepted; nothing changed.
    Refused(Refusal),
    /// To a newer gate: what it takes over. The listener's descriptor goes along with this line.
    Offer(Offer),
    /// To a newer gate: this one accepts no more, and ends when what is in flight has ended.
    Left,
}

/// What a gate hands over to a newer one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Which gate.
    pub start_id: String,
    /// The state in force.
    pub state: GateState,
    /// The state that the state file holds; 0 for none.
    pub saved: u64,
    /// Whether the listener belongs to a socket unit, so that the service manager needs no copy of it.
    #[serde(default)]
    pub activated: bool,
}

/// An older gate that accepts no more and still has clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forerunner {
    /// Which gate.
    pub start_id: String,
    /// Its process.
    pub pid: u32,
    /// The state that it has applied.
    pub applied: u64,
    /// Its requests in flight; they are in the sums, too.
    pub in_flight: u64,
    /// Its client connections; they are in the sum, too.
    pub connections: u64,
}

/// Why a state was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// A newer state is in force.
    #[error("state {seq} is older than state {applied}, which the gate has applied: go on from {applied}")]
    Older {
        /// The refused state.
        seq: u64,
        /// The state in force.
        applied: u64,
    },
    /// The same number was used for another content: two agents, or an agent that lost its state file.
    #[error("state {seq} is applied already with other content: send the new content with a higher number")]
    Conflict {
        /// The number used twice.
        seq: u64,
    },
    /// One instance is listed twice, so its weight is not known.
    #[error("state {seq} lists instance {instance} twice")]
    Duplicate {
        /// The refused state.
        seq: u64,
        /// The instance.
        instance: InstanceId,
    },
    /// The gate is stopping or was replaced: it has no listener to give.
    #[error("the gate is leaving: it has no listener to hand over")]
    Leaving,
    /// The line is no message of this protocol.
    #[error("the gate cannot read the line: {reason}")]
    Unreadable {
        /// What the parser said.
        reason: String,
    },
}

/// Why the gate answered a request itself. In the answer's header `handover-gate`, so that a load generator can tell the
/// gate's errors from the service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// 503: as many requests as allowed wait already.
    HoldFull,
    /// 503: the request waited as long as allowed and there is still nowhere to send it.
    HoldExpired,
    /// 503: the gate is shut.
    Shut,
    /// 503: as many requests as allowed are in flight.
    InFlightLimit,
    /// 503: this client's address has as many requests in flight, or waiting, as one may have.
    PeerLimit,
    /// 502: no connection to any ready upstream; none received a byte of the request.
    Connect,
    /// 502: the request was sent, and the connection ended without an answer; it may or may not have been executed.
    NoAnswer,
    /// 503: the instance refused the request without looking at it (HTTP/2), and its body could not be sent again.
    Refused,
    /// 504: the request was not over in the time that one may take in all.
    RequestTimeout,
    /// 504: the request was sent, and no answer came in time; it may or may not have been executed.
    AnswerTimeout,
    /// 501: the gate does not pass this on (CONNECT).
    NotSupported,
    /// 400: the request breaks HTTP's rules.
    BadRequest,
    /// 400: the client broke off its request body.
    UploadBroken,
    /// 408: the client stopped sending its request body.
    UploadStalled,
    /// A reason of a newer gate; 500, which this one never answers.
    #[serde(other)]
    Other,
}

/// How one upstream fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamReport {
    /// The instance.
    pub instance: InstanceId,
    /// Its version.
    pub version: Version,
    /// False when the applied state does not list it any more; it is reported until nothing is in flight.
    pub listed: bool,
    /// Requests whose bodies have not both ended.
    pub in_flight: u64,
    /// Age of the oldest of them; 0 without any.
    pub oldest_ms: u64,
    /// Reads so far.
    pub reads: ClassCounts,
    /// Writes so far.
    pub writes: ClassCounts,
    /// Time since a request was last let in; none before the first.
    pub last_request_ms_ago: Option<u64>,
    /// Connections through it that speak another protocol since an `Upgrade`; not among `in_flight`.
    #[serde(default)]
    pub upgraded: u64,
    /// Age of the oldest of them; 0 without any.
    #[serde(default)]
    pub oldest_upgraded_ms: u64,
    /// How many there have been.
    #[serde(default)]
    pub upgraded_total: u64,
    /// How many of them the gate closed because the upstream was drained (`[gate.upgraded]`).
    #[serde(default)]
    pub upgraded_closed: u64,
}

/// How the gate's certificate stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsReport {
    /// When the one in use expires, in seconds since 1970; none if it does not say so readably.
    #[serde(default)]
    pub not_after_unix_s: Option<u64>,
    /// Why what is in the files now is not in use.
    #[serde(default)]
    pub error: Option<String>,
}

/// Everything that the gate knows, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateReport {
    /// Random per gate process. When it changes and `took_over_from` is not the one before, that one died: what it had in
    /// flight is lost, and the counters began again from 0.
    pub gate_start_id: String,
    /// The gate's process.
    #[serde(default)]
    pub pid: u32,
    /// The gate from which this one took its listener and its counters.
    #[serde(default)]
    pub took_over_from: Option<String>,
    /// It accepts no more clients and ends when what is in flight has ended.
    #[serde(default)]
    pub leaving: bool,
    /// Older gates that are leaving. All counts include theirs, and `applied` is the oldest state in force in any of them.
    #[serde(default)]
    pub forerunners: Vec<Forerunner>,
    /// The state in force; 0 before the first.
    pub applied: u64,
    /// The state that the state file holds, which a restarted gate begins with; 0 for none.
    pub saved: u64,
    /// Why `saved` stays behind `applied`, if saving failed.
    #[serde(default)]
    pub save_error: Option<String>,
    /// What new requests meet.
    pub admission: Admission,
    /// All upstreams of the state, and removed ones that still have work in flight.
    pub upstreams: Vec<UpstreamReport>,
    /// Requests in flight through all upstreams.
    pub in_flight: u64,
    /// Requests that wait.
    pub held: u64,
    /// Open client connections.
    pub connections: u64,
    /// With TLS.
    #[serde(default)]
    pub tls: Option<TlsReport>,
    /// Connections closed at once because their address has as many as one may have.
    #[serde(default)]
    pub refused_connections: u64,
    /// Answers that the gate made itself, by reason.
    #[serde(default)]
    pub own_answers: BTreeMap<Reason, u64>,
    /// Gates that have ended and whose counts are in these: a newer gate that followed the same ones must not add them again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub carried_from: Vec<String>,
}
