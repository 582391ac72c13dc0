//! The standing orders and the freeze, as the store has them.

use handover_proto::ids::{AgentId, Service};
use handover_proto::stored::{StoredError, decode};

use handover_store::client::Entry;

use super::World;
use crate::clock::wall_ms;
use crate::core::fleet::Fleet;
use crate::core::standing::{Freeze, Habits, RunningRollout, Scene, StandingOrder};
use crate::core::store_health;
use crate::core::turns::TurnRecord;
use crate::rollout::{Rollout, RolloutError};

/// What outside of rollouts holds where there has been none.
const QUIESCE: std::time::Duration = std::time::Duration::from_secs(30);
const DRAIN_MS: u64 = 30_000;

/// Everything that a service's orders are decided from, but the time.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// The agents and the lease.
    pub(crate) fleet: Fleet,
    /// The rollout that runs.
    pub(crate) rollout: Option<RunningRollout>,
    /// The freeze, if there is one.
    pub(crate) freeze: Option<Freeze>,
    /// Alarms of the store's members.
    pub(crate) alarms: Vec<String>,
    /// The service's orders that are not over.
    pub(crate) open: Vec<StandingOrder>,
    /// As in the last rollout.
    pub(crate) habits: Habits,
}

impl World {
    /// All orders of a service that are kept and can be read, oldest first. One that cannot be read stops no other.
    pub fn orders(&self, service: &Service) -> Vec<StandingOrder> {
        let prefix = self.keys.service(service).orders();
        self.under(&prefix).filter_map(|entry| decode(&entry.key, &entry.value).ok()).collect()
    }

    /// The orders of a service that cannot be read: their numbers, by their keys, and why.
    pub fn unreadable_orders(&self, service: &Service) -> Vec<(u64, StoredError)> {
        let prefix = self.keys.service(service).orders();
        let broken = |entry: &Entry| {
            let error = decode::<StandingOrder>(&entry.key, &entry.value).err()?;
            Some((number(&prefix, &entry.key), error))
        };
        self.under(&prefix).filter_map(broken).collect()
    }

    /// Of the next order: above all that were given, readable or not.
    pub fn next_order(&self, service: &Service) -> u64 {
        let prefix = self.keys.service(service).orders();
        let given = self.under(&prefix).map(|entry| number(&prefix, &entry.key)).max();
        given.unwrap_or(0).saturating_add(1)
    }

    /// The freeze of the service's lease. Its presence counts, whatever was written.
    pub fn freeze(&self, service: &Service) -> Option<Freeze> {
        let key = self.keys.service(service).lease().freeze();
        let entry = self.entry(&key)?;
        let unknown = || Freeze { by: "somebody who wrote the key by hand".to_owned(), ..Freeze::default() };
        Some(decode(&key, &entry.value).unwrap_or_else(|_| unknown()))
    }

    /// Whether only the agents' roles may write the lease, as `handover store setup` has left behind.
    pub fn guard(&self) -> bool {
        self.entry(&self.keys.guard()).is_some()
    }

    /// The recorded turns of the service's lease, oldest first.
    ///
    /// # Errors
    /// [`StoredError::Garbled`], which names the key.
    pub fn turns(&self, service: &Service) -> Result<Vec<TurnRecord>, StoredError> {
        let prefix = self.keys.service(service).turns();
        let turns: Result<Vec<TurnRecord>, _> =
            self.under(&prefix).map(|entry| decode(&entry.key, &entry.value)).collect();
        let mut turns = turns?;
        // Not by their count, which begins anew when the holder key was deleted.
        turns.sort_by_key(|turn| (turn.era, turn.revision));
        Ok(turns)
    }

    /// When the beat of the service's lease was seen to vanish, Unix milliseconds; none: it is there, or was never seen.
    pub fn beat_gone(&self, service: &Service) -> Option<u64> {
        self.beats_gone.get(&self.keys.service(service).lease().beat()).copied()
    }

    /// What the service's orders are decided from.
    ///
    /// # Errors
    /// [`RolloutError`], which names what cannot be read.
    pub(crate) fn stage(&self, service: &Service) -> Result<Stage, RolloutError> {
        let fleet = self.fleet(service, wall_ms())?;
        let latest = Rollout::latest(self, service)?;
        let runs = Rollout::claimed(self, service)?;
        let rollout = latest.as_ref().filter(|latest| runs.as_ref() == Some(&latest.plan.id));
        let rollout = rollout.map(|rollout| RunningRollout {
            id: rollout.plan.id.clone(),
            moves_lease: rollout.progress.moves_lease(&rollout.plan),
        });
        let mut open = self.orders(service);
        open.retain(|order| !order.is_over());
        let habits = habits(latest.as_ref(), fleet.agents.len());
        Ok(Stage {
            freeze: self.freeze(service),
            alarms: store_health::alarms(&self.members),
            rollout,
            open,
            habits,
            fleet,
        })
    }
}

/// The number in an order's key; 0: somebody else's key.
fn number(prefix: &str, key: &str) -> u64 {
    key.strip_prefix(prefix).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn habits(latest: Option<&Rollout>, hosts: usize) -> Habits {
    use handover_proto::assignment::{AtDeadline, DrainPolicy};
    match latest.map(|rollout| &rollout.plan) {
        Some(plan) => Habits {
            min_serving: plan.min_serving.min(hosts),
            quiesce: plan.rules.quiesce_timeout,
            drain: plan.rules.drain,
        },
        None => Habits {
            min_serving: hosts.saturating_sub(1).max(1),
            quiesce: QUIESCE,
            drain: DrainPolicy { deadline_ms: DRAIN_MS, at_deadline: AtDeadline::Wait, over_all: false },
        },
    }
}

impl Stage {
    /// The scene of one order: `others` are the open orders without it.
    pub(crate) fn scene<'a>(
        &'a self,
        others: &'a [StandingOrder],
        quiet: std::time::Duration,
        now: crate::core::next::Now,
    ) -> Scene<'a> {
        Scene {
            fleet: &self.fleet,
            rollout: self.rollout.as_ref(),
            freeze: self.freeze.as_ref(),
            alarms: &self.alarms,
            others,
            habits: &self.habits,
            quiet,
            now,
        }
    }

    /// The open orders but this one.
    pub(crate) fn without(&self, number: u64) -> Vec<StandingOrder> {
        self.open.iter().filter(|order| order.number != number).cloned().collect()
    }

    /// Requests that the host's instances have got, as its gate counted them.
    pub(crate) fn requests(&self, agent: &AgentId) -> Option<u64> {
        let (_, report) = self.fleet.seen(agent)?;
        let instances = report.slots.values().filter_map(|slot| slot.instance.as_ref());
        let traffic = instances.filter_map(|found| found.traffic);
        let counted = traffic.flat_map(|counted| [counted.reads.requests, counted.writes.requests]);
        Some(counted.fold(0, u64::saturating_add))
    }
}
