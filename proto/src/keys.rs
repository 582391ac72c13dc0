//! The key space (`DESIGN.md` §8): every key that Handover reads or writes, in one place.

use crate::ids::{AgentId, Env, InstanceId, RolloutId, Service};

/// First part of every key; a change of the stored forms that older code cannot read raises it.
const ROOT: &str = "/handover/v1";

/// The keys of one environment.
#[derive(Debug, Clone)]
pub struct EnvKeys {
    prefix: String,
}

/// The keys of one service in it.
#[derive(Debug, Clone)]
pub struct ServiceKeys {
    prefix: String,
}

/// The keys of one service's scheduler lease (`SAFETY.md` §1.3).
#[derive(Debug, Clone)]
pub struct LeaseKeys {
    prefix: String,
}

/// The keys of one rollout.
#[derive(Debug, Clone)]
pub struct RolloutKeys {
    prefix: String,
}

impl EnvKeys {
    /// The keys of `env`.
    pub fn new(env: &Env) -> Self {
        Self { prefix: format!("{ROOT}/{env}") }
    }

    /// Everything of the environment.
    pub fn prefix(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// The coordinators' leader key, bound to the leader's etcd lease; its create revision is the term.
    pub fn leader(&self) -> String {
        format!("{}/leader", self.prefix)
    }

    /// Says that only the agents' roles may write the lease's keys; writable by root alone.
    pub fn guard(&self) -> String {
        format!("{}/guard", self.prefix)
    }

    /// The keys of one service.
    pub fn service(&self, service: &Service) -> ServiceKeys {
        ServiceKeys { prefix: format!("{}/{service}", self.prefix) }
    }

    /// All rollouts of the environment.
    pub fn rollouts(&self) -> String {
        format!("{}/rollouts/", self.prefix)
    }

    /// The keys of one rollout.
    pub fn rollout(&self, id: &RolloutId) -> RolloutKeys {
        RolloutKeys { prefix: format!("{}/rollouts/{id}", self.prefix) }
    }
}

impl ServiceKeys {
    /// Everything of the service.
    pub fn prefix(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// All registrations, and their alive keys.
    pub fn agents(&self) -> String {
        format!("{}/agents/", self.prefix)
    }

    /// An agent's registration. No etcd lease: an outage of etcd must not look like mass death.
    pub fn agent(&self, agent: &AgentId) -> String {
        format!("{}/agents/{agent}", self.prefix)
    }

    /// Bound to the agent's etcd lease: present while its process lives.
    pub fn alive(&self, agent: &AgentId) -> String {
        format!("{}/agents/{agent}/alive", self.prefix)
    }

    /// All assignments.
    pub fn assignments(&self) -> String {
        format!("{}/assigned/", self.prefix)
    }

    /// An agent's assignment; its mod revision is the serial.
    pub fn assigned(&self, agent: &AgentId) -> String {
        format!("{}/assigned/{agent}", self.prefix)
    }

    /// Names the one rollout that runs; claimed with the rollout's first record.
    pub fn rollout(&self) -> String {
        format!("{}/rollout", self.prefix)
    }

    /// Everything about staging; its one key today is [`ServiceKeys::staging`].
    pub fn stagings(&self) -> String {
        format!("{}/staging/", self.prefix)
    }

    /// Which version hosts are to have in place ahead of its window; absent: none.
    pub fn staging(&self) -> String {
        format!("{}/staging/request", self.prefix)
    }

    /// All standing orders: what an operator asked for outside of a rollout.
    pub fn orders(&self) -> String {
        format!("{}/orders/", self.prefix)
    }

    /// One standing order; the number is padded so that key order is the order in which they were given.
    pub fn order(&self, number: u64) -> String {
        format!("{}/orders/{number:08}", self.prefix)
    }

    /// The scheduler lease's past turns, as the coordinator recorded them.
    pub fn turns(&self) -> String {
        format!("{}/turns/", self.prefix)
    }

    /// One turn; the number is padded so that key order is the turns' order.
    pub fn turn(&self, turn: u64) -> String {
        format!("{}/turns/{turn:08}", self.prefix)
    }

    /// The scheduler lease's keys.
    pub fn lease(&self) -> LeaseKeys {
        LeaseKeys { prefix: format!("{}/lease", self.prefix) }
    }
}

impl LeaseKeys {
    /// Everything of the lease.
    pub fn prefix(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// Who holds, or held, and how it ended. No etcd lease.
    pub fn holder(&self) -> String {
        format!("{}/holder", self.prefix)
    }

    /// Bound to the holder's etcd lease; written in one transaction with the holder key.
    pub fn beat(&self) -> String {
        format!("{}/beat", self.prefix)
    }

    /// All candidates.
    pub fn candidates(&self) -> String {
        format!("{}/cand/", self.prefix)
    }

    /// One candidate, bound to its own etcd lease.
    pub fn candidate(&self, instance: &InstanceId) -> String {
        format!("{}/cand/{instance}", self.prefix)
    }

    /// What the coordinator asks for.
    pub fn intent(&self) -> String {
        format!("{}/intent", self.prefix)
    }

    /// The agents that may ever take over; written by the holder's agent alone.
    pub fn roster(&self) -> String {
        format!("{}/roster", self.prefix)
    }

    /// The era; absent means 0.
    pub fn era(&self) -> String {
        format!("{}/era", self.prefix)
    }

    /// Present: nobody takes over by itself.
    pub fn freeze(&self) -> String {
        format!("{}/freeze", self.prefix)
    }
}

impl RolloutKeys {
    /// The operator's TOML, as it was given.
    pub fn spec(&self) -> String {
        format!("{}/spec", self.prefix)
    }

    /// The frozen plan.
    pub fn plan(&self) -> String {
        format!("{}/plan", self.prefix)
    }

    /// All journal records.
    pub fn events(&self) -> String {
        format!("{}/events/", self.prefix)
    }

    /// One journal record; the number is padded so that key order is journal order.
    pub fn event(&self, seq: u64) -> String {
        format!("{}/events/{seq:08}", self.prefix)
    }
}

/// The agent that an alive key stands for, if `key` is one.
pub fn alive_agent<'k>(service: &ServiceKeys, key: &'k str) -> Option<&'k str> {
    key.strip_prefix(&service.agents())?.strip_suffix("/alive")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> EnvKeys {
        EnvKeys::new(&"prod".parse().expect("env"))
    }

    #[test]
    fn no_key_of_one_service_lies_under_the_prefix_of_another() {
        let a = keys().service(&"bill".parse().expect("name"));
        let b = keys().service(&"billing".parse().expect("name"));
        let agent: AgentId = "app-01".parse().expect("name");
        assert!(!b.agent(&agent).starts_with(&a.prefix()));
        assert!(b.lease().holder().starts_with(&b.prefix()));
    }

    #[test]
    fn journal_keys_sort_as_the_journal_does() {
        let rollout = keys().rollout(&RolloutId::random());
        assert!(rollout.event(9) < rollout.event(10));
        assert!(rollout.event(99_999) < rollout.event(100_000));
    }

    #[test]
    fn alive_keys_are_told_from_registrations() {
        let service = keys().service(&"billing".parse().expect("name"));
        let agent: AgentId = "app-01".parse().expect("name");
        assert_eq!(alive_agent(&service, &service.alive(&agent)), Some("app-01"));
        assert_eq!(alive_agent(&service, &service.agent(&agent)), None);
    }
}
