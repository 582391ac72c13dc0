//! What goes wrong in a run, drawn from its seed before it begins.

use std::time::Duration;

use handover_agent::lease::settings::LeaseSettings;

use handover::core::order::Order;

use super::chance::Chance;
use super::etcd::Habits;
use super::service::Wrong;
use super::world::{MS, SECOND};

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// Whoever holds then, or the first host.
    Holder,
    /// This host.
    Host(usize),
}

/// Something that goes wrong, or is asked for. Spans in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The agent dies and is back so much later.
    AgentCrash(u64),
    /// The agent is stopped and goes on so much later; its service is not.
    AgentPause(u64),
    /// A process of the service dies, perhaps with children that live on.
    ProcessDies { leaks: bool },
    /// The holder's service goes wrong.
    Service(Wrong),
    /// The host is suspended; its clocks show it.
    Suspend(u64),
    /// The host is paused, and no clock shows it.
    BlindPause(u64),
    /// The host is cut off from every member.
    Cut(u64),
    /// The store's leader has a disk that stalls, and this host can reach that member only.
    StallPinned(u64),
    /// The store's leader has a disk that stalls.
    Stall(u64),
    /// The store's leader is gone.
    LeaderDies(u64),
    /// Nobody can reach the store.
    StoreAway(u64),
    /// A lease is revoked: by a defect, or an operator.
    Revoked,
    /// An operator deletes a candidate key.
    CandidateDeleted,
    /// An operator freezes automatic take-over.
    Freeze(u64),
    /// The freeze is lifted.
    Unfreeze,
    /// The store is full.
    Full(u64),
    /// The wall clock is set.
    WallStep(i64),
    /// The state file cannot be written.
    DiskFails(u64),
    /// The host is gone until the end.
    HostLost,
    /// The instance is not ready for so long.
    Unready(u64),
    /// The instance is to be replaced.
    Replace,
    /// A second instance is started beside it.
    Second,
    /// A hand-over is asked for.
    Ask,
    /// The other agents do not hear this one.
    Alone(u64),
    /// A copy of the store is made.
    BackUp,
    /// The store goes back to its copy.
    Restore,
    /// A hand-over is asked for, its transaction is late, and meanwhile the heir is not ready any more.
    Snag,
    /// A hand-over is asked for, and the heir's key is deleted and written anew while the holder's watch is behind.
    Swap,
    /// The host's watch is behind.
    SlowWatch(u64),
    /// A rollout begins.
    Rollout,
    /// The operator orders something of it.
    Order(Order),
    /// The coordinator that leads is stopped, and goes on with what it knew.
    CoordinatorAway(u64),
    /// What is sent gets lost more often.
    Loss(u64),
}

/// The whole plan.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// So many of a thousand messages are lost, each way.
    pub(crate) loss: u64,
    /// So many of a thousand requests arrive seconds late.
    pub(crate) stray: u64,
    /// Longest way from one to the other.
    pub(crate) slowest_ms: u64,
    pub(crate) grants_less: bool,
    pub(crate) habits: Habits,
    pub(crate) faults: Vec<(u64, (At, Fault))>,
    pub(crate) heal_at: u64,
    pub(crate) end_at: u64,
    /// The run goes on until everything is quiet, and what is left is looked for.
    pub(crate) to_the_end: bool,
    /// Coordinators take a rollout forward or back.
    pub(crate) rollout: bool,
    patient: bool,
    /// One fault alone.
    pub(crate) single: bool,
}

/// When the first fault can come: somebody holds by then.
const FIRST: u64 = 2500 * MS;

impl Weather {
    pub(crate) fn of(seed: u64, chance: &mut Chance) -> Self {
        let single = seed % 8 == 7;
        let storm = if single { 1000 } else { chance.within(5_000, 16_000) } * MS;
        let patient = chance.percent(15);
        let mut weather = Self {
            loss: if single || chance.percent(40) { 0 } else { chance.within(5, 120) },
            stray: if single || chance.percent(30) { 0 } else { chance.within(10, 80) },
            slowest_ms: if single { 3 } else { *chance.one_of(&[3, 10, 60, 400]) },
            grants_less: !single && chance.percent(3),
            habits: habits(chance),
            faults: Vec::new(),
            heal_at: FIRST + storm,
            end_at: 0,
            to_the_end: seed % 16 == 3,
            rollout: !single && seed % 4 == 1,
            patient,
            single,
        };
        if single {
            weather.faults.push((FIRST, single_fault(chance)));
        } else {
            for _ in 0..chance.within(2, 8) {
                let at = chance.within(FIRST, weather.heal_at);
                weather.faults.push((at, any_fault(chance)));
            }
        }
        if weather.rollout {
            weather.roll(chance);
        } else if !single && chance.percent(6) {
            let middle = FIRST + storm / 2;
            weather.faults.push((chance.within(0, middle), (At::Holder, Fault::BackUp)));
            weather.faults.push((chance.within(middle, weather.heal_at), (At::Holder, Fault::Restore)));
        }
        let within = weather.recovers_us();
        let rest = if weather.to_the_end { 20 * SECOND } else { SECOND };
        weather.end_at = SECOND + weather.heal_at + within + rest;
        weather
    }

    fn roll(&mut self, chance: &mut Chance) {
        self.heal_at += 4 * SECOND;
        let mut at = |fault| self.faults.push((chance.within(FIRST + SECOND, self.heal_at), (At::Holder, fault)));
        at(Fault::CoordinatorAway(3_000));
        at(Fault::CoordinatorAway(7_000));
        if self.stray.is_multiple_of(2) {
            at(Fault::Order(Order::Rollback));
        } else {
            at(Fault::Order(Order::Pause));
            at(Fault::Order(Order::Resume));
        }
        self.faults.push((FIRST, (At::Holder, Fault::Rollout)));
    }

    /// A pause that no clock shows, and a service that lies, are the database's business alone. So is an agent that is away
    /// while its service does not obey: nobody is there to kill it.
    pub(crate) fn two_at_once(&self) -> bool {
        let has = |wanted: fn(&Fault) -> bool| self.faults.iter().any(|(_, (_, fault))| wanted(fault));
        let blind = has(|fault| matches!(fault, Fault::BlindPause(_) | Fault::Service(Wrong::Lies)));
        // In a guarded store nobody but root can end a lease before its time, and then time alone protects nothing.
        let by_root = self.habits.trusted && has(|fault| matches!(fault, Fault::Revoked));
        let deaf = has(|fault| matches!(fault, Fault::Service(_) | Fault::ProcessDies { leaks: true }));
        blind
            || by_root
            || deaf && has(|fault| matches!(fault, Fault::AgentCrash(_) | Fault::AgentPause(_) | Fault::Suspend(_)))
    }

    pub(crate) fn settings(&self) -> LeaseSettings {
        if self.patient {
            return LeaseSettings::default();
        }
        LeaseSettings {
            ttl: Duration::from_secs(6),
            attempt: Duration::from_millis(500),
            c_unit: Duration::from_secs(1),
            c_kill: Duration::from_millis(500),
            failover_gap: Duration::from_millis(2900),
            ..LeaseSettings::default()
        }
    }

    /// The longest darkness after the last fault (§1.9): expiry, late by a change of leader, and the quarantine, on the
    /// slowest clock; and then some for the way.
    pub(crate) fn recovers_us(&self) -> u64 {
        let ttl = self.settings().ttl;
        let quarantine = self.settings().quarantine_of(ttl);
        ((ttl + quarantine).as_micros() as f64 * 1.05) as u64 + 8 * SECOND
    }

    /// The bound of the single fault.
    pub(crate) fn dark_us(&self) -> Option<u64> {
        let (_, (_, fault)) = self.faults.first().filter(|_| self.single)?;
        match fault {
            Fault::Ask => Some(SECOND),
            Fault::AgentCrash(_) | Fault::AgentPause(_) | Fault::LeaderDies(_) | Fault::StoreAway(_) => Some(150 * MS),
            Fault::ProcessDies { .. } => Some(1500 * MS),
            Fault::Revoked => Some(2500 * MS),
            _ => Some(self.recovers_us() - 5 * SECOND),
        }
    }
}

fn habits(chance: &mut Chance) -> Habits {
    let trusted = chance.percent(40);
    let (early_revoke, stale_acks) = (!trusted && chance.percent(60), !trusted && chance.percent(60));
    Habits { early_revoke, stale_acks, trusted }
}

fn single_fault(chance: &mut Chance) -> (At, Fault) {
    let fault = match chance.within(0, 7) {
        0 => Fault::Ask,
        1 => Fault::AgentCrash(chance.within(100, 1500)),
        2 => Fault::ProcessDies { leaks: false },
        3 => Fault::HostLost,
        4 => Fault::LeaderDies(chance.within(100, 4000)),
        5 => Fault::StoreAway(chance.within(100, 1200)),
        _ => Fault::Revoked,
    };
    (At::Holder, fault)
}

fn any_fault(chance: &mut Chance) -> (At, Fault) {
    let at = if chance.percent(70) { At::Holder } else { At::Host(chance.within(0, 3) as usize) };
    let short = chance.within(100, 4_000);
    let long = chance.within(1_000, 14_000);
    let any = if chance.percent(70) { short } else { long };
    let fault = match chance.within(0, 100) {
        0..10 => Fault::AgentCrash(any),
        10..14 => Fault::AgentPause(any),
        14..20 => Fault::ProcessDies { leaks: chance.percent(30) },
        20..26 => Fault::Service(*chance.one_of(&[Wrong::Ignores, Wrong::Ignores, Wrong::Hangs, Wrong::Lies])),
        26..31 => Fault::Suspend(any),
        31..34 => Fault::BlindPause(any),
        34..44 => Fault::Cut(any),
        44..50 => Fault::StallPinned(long),
        50..54 => Fault::Stall(long),
        54..58 => Fault::LeaderDies(any),
        58..62 => Fault::StoreAway(any),
        62..69 => Fault::Revoked,
        69..72 => Fault::CandidateDeleted,
        72..74 => Fault::Freeze(short),
        74..76 => Fault::Full(short),
        76..78 => Fault::WallStep(chance.within(0, 7_200_000) as i64 - 3_600_000),
        78..81 => Fault::DiskFails(any),
        81..83 => Fault::HostLost,
        83..85 => Fault::Unready(any),
        85..88 => Fault::Replace,
        88..91 => Fault::Second,
        91..95 => Fault::Ask,
        95 => Fault::Snag,
        96 => Fault::Swap,
        97 => Fault::Alone(any),
        _ => Fault::Loss(chance.within(100, 500)),
    };
    (at, fault)
}
