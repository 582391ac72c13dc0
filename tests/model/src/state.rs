//! What one moment of the modelled world consists of. Plain, small and copied: millions of them are compared.
//!
//! All times are ticks *since* something and saturate, so the model has no horizon: a run may last for ever.

mod ask;

/// Most hosts that a configuration may have.
pub const HOSTS: usize = 3;
/// Etcd leases that one host may have at once; numbers are used again once nothing names them.
pub const LEASES: usize = 3;

/// Revision of the holder key. Only writes of that key count: nothing compares revisions of two keys but holder and beat,
/// which are written together.
pub type Rev = u8;
/// Number of an etcd lease of one host, from 1; 0: none.
pub type LeaseNo = u8;

/// One process of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Instance {
    /// Its host.
    pub host: u8,
    /// Which start on that host.
    pub life: u8,
}

/// The lease's transactions (`SAFETY.md` §1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// No transaction.
    #[default]
    None,
    /// T1.
    Acquire,
    /// T2.
    TakeOver,
    /// T3.
    HandOver,
    /// T4.
    Release,
    /// T5.
    Mint,
}

/// What the holder key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Holder {
    /// HELD, else FREE.
    pub held: bool,
    /// Who holds, or held last.
    pub who: Instance,
    /// The etcd lease (of that host) that the turn began with.
    pub lease: LeaseNo,
    /// Mod revision.
    pub rev: Rev,
    /// The era it was written in.
    pub era: u8,
    /// The intent that it fulfils; 0: none.
    pub op: u8,
    /// The transaction that wrote it.
    pub cause: Kind,
}

/// The beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Beat {
    /// Mod revision, in the count of the holder key.
    pub rev: Rev,
    /// Whose.
    pub who: Instance,
    /// The etcd lease (of that host) it is bound to.
    pub lease: LeaseNo,
}

/// A candidate key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// The process it stands for.
    pub life: u8,
    /// The etcd lease it is bound to.
    pub lease: LeaseNo,
    /// Stands for the create revision: the lease it was created with (a key that is put again keeps it).
    pub created: LeaseNo,
    /// The intent it has prepared for; 0: none.
    pub prepared: u8,
}

/// What the coordinator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Intent {
    /// Its id; intents are written one after the other, so it stands for the mod revision too.
    pub op: u8,
    /// Who holds.
    pub from: Instance,
    /// Who is to hold.
    pub to: Instance,
}

/// An etcd lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lease {
    /// Never granted, expired or revoked.
    #[default]
    Dead,
    /// Granted or renewed; may expire once nothing is left.
    Alive {
        /// Ticks.
        left: u8,
        /// As granted.
        ttl: u8,
    },
}

/// etcd, as one linearizable whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Etcd {
    /// The holder key.
    pub holder: Holder,
    /// The beat.
    pub beat: Option<Beat>,
    /// The intent.
    pub intent: Option<Intent>,
    /// The candidate keys.
    pub candidates: [Option<Candidate>; HOSTS],
    /// The leases.
    pub leases: [[Lease; LEASES]; HOSTS],
    /// The era key.
    pub era: u8,
    /// It was restored from a backup: another cluster id.
    pub restored: bool,
    /// Ticks since then, as far as they matter.
    pub calm: u8,
}

/// A lease transaction on its way: what it compares and what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wire {
    /// Which; `None`: the place is empty.
    pub kind: Kind,
    /// Compared with the holder's mod revision.
    pub rev: Rev,
    /// Compared with the beat's mod revision; 0: absent.
    pub beat: Rev,
    /// Compared with the era.
    pub era: u8,
    /// Compared with the intent's mod revision (T1 to T3); 0: absent.
    pub intent: u8,
    /// Who is to hold; for T4 the sender.
    pub who: Instance,
    /// The lease of the new beat.
    pub lease: LeaseNo,
    /// T3: compared with the candidate's create revision.
    pub created: LeaseNo,
    /// The intent that it fulfils.
    pub op: u8,
}

/// A renewal under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Renew {
    /// None.
    #[default]
    Idle,
    /// The keep-alive was answered; the barrier is still to come.
    Acked {
        /// Ticks since it was sent.
        age: u8,
        /// By the legitimate leader, else by a deposed one, whose answer bears an older term.
        real: bool,
    },
}

/// How a turn stands, as far as the agent knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// In order.
    Good,
    /// The beat is gone.
    Lost,
    /// The holder key shows another turn.
    Over,
}

/// A turn, as the agent has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turn {
    /// R.
    pub rev: Rev,
    /// Its era.
    pub era: u8,
    /// Whether it is in order.
    pub standing: Standing,
    /// A T3, T4 or T5 may still arrive.
    pub haunted: bool,
    /// The state file says that a T3 or T4 may have been sent.
    pub leaving: bool,
}

/// The quarantine that a taker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wait {
    /// For which turn.
    pub rev: Rev,
    /// Ticks on the taker's clock since the read that showed the beat absent.
    pub waited: u8,
    /// The holder's agent has certified that its service stopped and never works again in that turn.
    pub certified: bool,
}

/// An agent process; of a dead one, what its state file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Agent {
    /// It runs.
    pub up: bool,
    /// Just started: it may take up the lease that an earlier process left.
    pub fresh: bool,
    /// Its live etcd lease.
    pub lease: LeaseNo,
    /// It carries, or carried, a beat.
    pub used: bool,
    /// Accepted renewals, as far as they matter (2).
    pub accepted: u8,
    /// Ticks since the base of the live lease; saturated: long ago, or there is none.
    pub age: u8,
    /// The renewal under way.
    pub renew: Renew,
    /// Its turn.
    pub turn: Option<Turn>,
    /// The transaction whose outcome it does not know.
    pub pending: Kind,
    /// Its quarantine.
    pub wait: Option<Wait>,
    /// It believes the restored cluster.
    pub restored: bool,
    /// The highest era it has seen.
    pub era: u8,
}

/// How far a unit of work, which is one database transaction, has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Phase {
    /// No unit.
    #[default]
    None,
    /// Begun: it has read what is to be charged next.
    Begun,
    /// It has passed the fence's check and holds the row's lock.
    Checked,
    /// The database has aborted its transaction; the process does not know yet.
    Doomed,
    /// Its process is dead; the COMMIT may still arrive.
    Orphan,
}

/// A unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Unit {
    /// How far.
    pub phase: Phase,
    /// Under which token.
    pub token: u8,
    /// Another unit has committed since this one began: what it has read is out of date.
    pub stale: bool,
    /// It does not end by itself.
    pub hung: bool,
    /// Of a child that outlived the main process: ticks until it ends.
    pub left: u8,
}

/// What a service was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Told {
    /// STOPPED, or nothing yet.
    #[default]
    Stopped,
    /// ACTIVE.
    Active,
    /// QUIESCE or FENCED.
    Quiesce,
}

/// The service on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Service {
    /// Its main process runs.
    pub up: bool,
    /// Which start.
    pub life: u8,
    /// What it was told last.
    pub told: Told,
    /// Under which token.
    pub token: u8,
    /// Ticks since the base of the deadline it was told.
    pub age: u8,
    /// Its install has returned.
    pub installed: bool,
    /// The unit of work of the main process.
    pub unit: Unit,
    /// What an earlier process left behind.
    pub rest: Unit,
}

/// Whether a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Pause {
    /// It does.
    #[default]
    No,
    /// Suspended: BOOTTIME goes on, MONOTONIC does not.
    Suspended,
    /// Paused by the hypervisor: no clock goes on.
    Undetected,
}

/// A host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Host {
    /// Its agent.
    pub agent: Agent,
    /// Its service.
    pub service: Service,
    /// Whether it runs.
    pub pause: Pause,
    /// Ticks until its clock may slip again.
    pub steady: u8,
    /// The agent's transactions under way, newest first.
    pub wires: [Wire; 2],
}

/// The fence row in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Fence {
    /// The highest token installed.
    pub token: u8,
    /// By whom.
    pub by: Instance,
}

/// Faults that have happened, against their bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// Agents crashed.
    pub agents: u8,
    /// Services crashed.
    pub services: u8,
    /// Units hung.
    pub hangs: u8,
    /// Hosts suspended.
    pub suspends: u8,
    /// Hosts paused without notice.
    pub pauses: u8,
    /// Outcomes that were given up waiting for.
    pub unknowns: u8,
    /// Leases revoked early.
    pub revokes: u8,
    /// Ticks by which clocks have slipped.
    pub slips: u8,
}

/// What only the checkers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seen {
    /// Bits of the invariants that some step has broken.
    pub broken: u16,
    /// Turns (by revision) that ended by T3 or T4.
    pub ended: u16,
    /// The highest token of an acquisition.
    pub top: u8,
}

/// One moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct State {
    /// etcd.
    pub etcd: Etcd,
    /// The hosts.
    pub hosts: [Host; HOSTS],
    /// The database's fence row.
    pub fence: Fence,
    /// The faults so far.
    pub faults: Faults,
    /// The checkers' own notes.
    pub seen: Seen,
}
