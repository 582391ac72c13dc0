//! One instance of this host, as plain data: its etcd lease, its turn, its service.

use std::time::Duration;

use handover_proto::ids::OpId;
use handover_proto::numbers::Token;
use handover_proto::txn::LeaseId;

use super::deadline::Boot;
use super::fitness::Declared;
use super::ladder::Doom;
use super::stall::Pulse;
use super::state::{MyTurn, Order};
use super::wanted::{Life, LocalInstance};

/// One instance of this host.
#[derive(Debug, Clone)]
pub(super) struct Local {
    pub(super) wanted: LocalInstance,
    /// Still reported by the main loop.
    pub(super) reported: bool,
    pub(super) live: Option<LiveLease>,
    /// This process has had an etcd lease for it: one that stands in the store is then not to be adopted again.
    pub(super) had_lease: bool,
    pub(super) grant: Chore,
    pub(super) put: Chore,
    pub(super) kill: Chore,
    /// Why its processes are being ended: for good.
    pub(super) doomed: Option<Doom>,
    /// Why the last kill failed.
    pub(super) kill_trouble: Option<String>,
    pub(super) turn: Option<MyTurn>,
    pub(super) service: Service,
    /// Its host was copied while it ran: another instance of the same name may hold the lease.
    pub(super) copied: bool,
    /// The intent that it declined.
    pub(super) declined: Option<OpId>,
    /// Since when its service is known to have stopped; none: it may be at work.
    pub(super) stopped_since: Option<Boot>,
}

/// An etcd lease of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveLease {
    pub(super) id: LeaseId,
    pub(super) ttl: Duration,
    /// Sending of the last accepted renewal; none: none was accepted (by this process).
    pub(super) base: Option<Boot>,
    /// Accepted renewals.
    pub(super) accepted: u32,
    /// It carries, or carried, a turn's beat: never used for another one.
    pub(super) used: bool,
    pub(super) renew: Chore,
    /// The member for the next renewal.
    pub(super) member: usize,
    /// Why the last renewal did not count.
    pub(super) doubt: Option<String>,
}

/// What one instance's service is told and has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) order: Order,
    pub(super) ordered_at: Boot,
    /// Number of the first record with this order.
    pub(super) ordered_seq: u64,
    /// Number of the newest record.
    pub(super) seq: u64,
    pub(super) call: Option<Call>,
    /// Number of the newest record that a call was begun for.
    pub(super) sent: u64,
    /// Number of the newest record that the service did as told.
    pub(super) answered: u64,
    pub(super) not_before: Boot,
    /// It has acknowledged that no unit runs, and has not been told ACTIVE since.
    pub(super) idle: bool,
    /// The token under which it has reported STARTED.
    pub(super) started: Option<Token>,
    /// Its signs of life.
    pub(super) pulse: Pulse,
    /// Why the last call failed.
    pub(super) trouble: Option<String>,
    /// Its longest unit of work, as it reported it last.
    pub(super) c_unit: Option<Duration>,
    /// The token under which it was told ACTIVE last: it may have installed that.
    pub(super) begun: Option<Token>,
    /// The highest token in its database, as it reported it last.
    pub(super) stored_token: Option<Token>,
    /// What else it reported of itself.
    pub(super) declared: Declared,
}

/// A call under way, with what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) seq: u64,
    pub(super) order: Order,
    pub(super) token: Option<Token>,
}

/// Something that is done over and over, never twice at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Chore {
    pub(super) running: bool,
    pub(super) not_before: Boot,
}

impl Chore {
    pub(super) fn is_due(&self, now: Boot) -> bool {
        !self.running && now >= self.not_before
    }

    pub(super) fn begin(&mut self) {
        self.running = true;
    }

    pub(super) fn end(&mut self, not_before: Boot) {
        *self = Self { running: false, not_before };
    }

    /// Due at `moment` at the latest.
    pub(super) fn hasten(&mut self, moment: Boot) {
        self.not_before = self.not_before.min(moment);
    }

    /// When it is due next; none: it is under way.
    pub(super) fn due_at(&self) -> Option<Boot> {
        (!self.running).then_some(self.not_before)
    }
}

impl Local {
    pub(super) fn new(wanted: LocalInstance, turn: Option<MyTurn>, now: Boot) -> Self {
        Self {
            wanted,
            reported: true,
            live: None,
            had_lease: false,
            grant: Chore::default(),
            put: Chore::default(),
            kill: Chore::default(),
            doomed: None,
            kill_trouble: None,
            turn,
            service: Service::new(now),
            copied: false,
            declined: None,
            stopped_since: None,
        }
    }

    /// No unit of work runs and none starts later: the service said so, or no process is left.
    pub(super) fn is_stopped(&self) -> bool {
        self.service.idle || self.wanted.life == Life::Dead { proven: true }
    }

    /// Told to take up its work under a new turn, its service has not answered yet: nobody works. What is only for the
    /// record waits meanwhile, since it would compete with the service for the same disk and make the dark longer.
    pub(super) fn is_taking_up_work(&self) -> bool {
        let token = self.turn.as_ref().map(|turn| turn.token);
        let told = self.service.call.as_ref().is_some_and(|call| call.order == Order::Active && call.token == token);
        told && token.is_some() && self.service.started != token
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.wanted.life, Life::Running | Life::GiveUp)
    }
}

impl Service {
    fn new(now: Boot) -> Self {
        Self {
            order: Order::Unknown,
            ordered_at: now,
            ordered_seq: now.ms(),
            // Above every number that an earlier agent process of this boot can have used: it counts at most one in a
            // millisecond, and time is ahead of that.
            seq: now.ms(),
            call: None,
            sent: now.ms(),
            answered: now.ms(),
            not_before: now,
            idle: false,
            started: None,
            pulse: Pulse::default(),
            trouble: None,
            c_unit: None,
            begun: None,
            stored_token: None,
            declared: Declared::default(),
        }
    }

    /// It has reported STARTED for `token` since it was last told to begin.
    pub(super) fn works(&self, token: Token) -> bool {
        self.order == Order::Active && self.started == Some(token) && self.answered >= self.ordered_seq
    }

    /// A new record: its number.
    pub(super) fn renumber(&mut self, now: Boot) {
        self.seq = (self.seq + 1).max(now.ms());
    }
}

impl LiveLease {
    pub(super) fn new(id: LeaseId, ttl: Duration, used: bool) -> Self {
        Self { id, ttl, base: None, accepted: 0, used, renew: Chore::default(), member: 0, doubt: None }
    }
}
