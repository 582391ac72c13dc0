//! The numbers of the modelled world, and what each configuration allows to happen.

/// etcd's TTL, in ticks of etcd's clock.
pub const TTL: u8 = 4;
/// `E_low`: etcd cannot have expired the lease before this age of the base. One tick of rate error in a TTL.
pub const E_LOW: u8 = TTL - 1;
/// `D_hard`: the kill comes at this age; it takes one tick (`c_kill`).
pub const HARD: u8 = E_LOW - 1;
/// `D_soft`: no unit begins from this age on; one takes one tick (`c_unit`).
pub const SOFT: u8 = HARD - 1;
/// Ages saturate here.
pub const AGE_MAX: u8 = E_LOW + 1;
/// Renewals accepted before a lease may receive a turn.
pub const TRIAL: u8 = 2;
/// T·(1 + rho), on the taker's clock: it may run one tick fast in a TTL.
pub const LONG_QUARANTINE: u8 = TTL + 1;
/// A shorter TTL than the one asked for, where etcd grants such.
pub const SHORT_TTL: u8 = TTL - 3;

/// How the world begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// No holder key, no leases.
    Cold,
    /// Host 0 holds and works; the others are candidates.
    Holding,
}

/// What may happen in a configuration, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How it begins.
    pub start: Start,
    /// Hosts, each with an agent and a service.
    pub hosts: u8,
    /// Highest revision of the holder key.
    pub turns: u8,
    /// Intents that the coordinator writes.
    pub intents: u8,
    /// Etcd leases of one host at once.
    pub leases: u8,
    /// Longest time of a renewal that counts, in ticks.
    pub attempt: u8,
    /// Crashes of agents (each may start again).
    pub agents: u8,
    /// Crashes of services, each with or without a child that lives on.
    pub services: u8,
    /// Units that do not end by themselves.
    pub hangs: u8,
    /// Suspended hosts: the clock goes on.
    pub suspends: u8,
    /// Hosts that are paused without any clock showing it.
    pub pauses: u8,
    /// Transactions whose outcome is given up waiting for; they may arrive at any time later.
    pub unknowns: u8,
    /// Leases that etcd revokes early (issue 15247, part 1), or an operator does.
    pub revokes: u8,
    /// Ticks by which clocks slip, either way; one clock at most one in a TTL.
    pub slips: u8,
    /// Of host 0, which holds at first, only slow, and of the others only fast: the direction that hurts.
    pub adverse_slips: bool,
    /// A deposed etcd leader acknowledges renewals (issue 15247, part 2).
    pub stale_acks: bool,
    /// Barriers that read an old state (the defect of stale linearizable reads).
    pub stale_reads: bool,
    /// etcd grants a shorter TTL than was asked for.
    pub short_ttl: bool,
    /// A candidate may change over to another etcd lease while its old one lives.
    pub regrants: bool,
    /// etcd may be restored from its first backup.
    pub restore: bool,
    /// Only a lease that carries the beat ends; those of mere candidates live on.
    pub steady_candidates: bool,
    /// Units begin and end, and never come to their database: what is looked at is time alone.
    pub timed_only: bool,
    /// The holder may give up the lease, to be stopped.
    pub gives_up: bool,
}

impl Bounds {
    /// Two hosts, no faults but delay and loss of everything, and late expiry, which are always there.
    pub const QUIET: Self = Self {
        start: Start::Holding,
        hosts: 2,
        turns: 3,
        intents: 1,
        leases: 2,
        attempt: 1,
        agents: 0,
        services: 0,
        hangs: 0,
        suspends: 0,
        pauses: 0,
        unknowns: 0,
        revokes: 0,
        slips: 0,
        adverse_slips: false,
        stale_acks: false,
        stale_reads: false,
        short_ttl: false,
        regrants: false,
        restore: false,
        steady_candidates: false,
        timed_only: false,
        gives_up: false,
    };

    /// How long a taker waits: leases that are only ever expired need no quarantine that a tick could show.
    pub fn quarantine(&self) -> u8 {
        if self.revokes > 0 { LONG_QUARANTINE } else { 0 }
    }
}
