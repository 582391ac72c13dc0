//! Who may write which key, as roles in etcd: the key space of [`crate::keys`] once more, by its writers.
//!
//! | role | writes | reads |
//! |---|---|---|
//! | `handover.{env}.{service}.agent` | holder, beat, candidates, roster; registrations | the lease, assignments, the staging, the leader, the guard |
//! | `handover.{env}.coordinator` | leader, rollouts | everything of the environment |
//! | `handover.{env}.{service}.coordinator` | assignments, the staging, the rollout's claim, orders, turns, intent, freeze | - |
//! | `handover.{env}.operator` | - | everything of the environment |
//! | `handover.{env}.{service}.operator` | era, holder, beat, candidates (T6) | - |
//!
//! So the coordinator cannot move the lease, whatever it does: etcd refuses (`SAFETY.md` §1.6). Names have dots between
//! their parts because the parts have none.
//!
//! A user has the name of its role; etcd takes it from the common name of the certificate.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{Env, Service};
use crate::keys::EnvKeys;

/// etcd's user and role that may do everything.
pub const ROOT: &str = "root";

/// A range of keys, as etcd has it: `key` alone if `end` is empty, else from `key` up to, but without, `end`; an `end` of
/// one zero byte has no upper bound.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first key.
    pub key: Vec<u8>,
    /// Where it ends.
    pub end: Vec<u8>,
}

/// What may be done with a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Read.
    Read,
    /// Write; we never grant it without reading.
    Write,
    /// Both.
    ReadWrite,
}

/// The grants of a role; a span has one right.
pub type Grants = BTreeMap<Span, Right>;

/// Roles and users, as they should be or as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Roles by name.
    pub roles: BTreeMap<String, Grants>,
    /// The roles of each user.
    pub users: BTreeMap<String, BTreeSet<String>>,
}

/// What a role is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoleOf {
    /// The agents of a service.
    Agent(Service),
    /// The coordinators, as far as no service is concerned.
    Coordinator,
    /// The coordinators, for a service.
    CoordinatorFor(Service),
    /// The operators, as far as no service is concerned.
    Operator,
    /// The operators, for a service.
    OperatorFor(Service),
}

impl Span {
    /// One key.
    pub fn key(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), end: Vec::new() }
    }

    /// All keys that begin so. `prefix` ends in `/`, so that the end is found by raising the last byte.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let key = prefix.into();
        let mut end = key.clone();
        if let Some(last) = end.last_mut() {
            *last = last.saturating_add(1);
        }
        Self { key, end }
    }

    /// Whether both have a key in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.begins_before_end_of(other) && other.begins_before_end_of(self)
    }

    fn begins_before_end_of(&self, other: &Self) -> bool {
        match &other.end[..] {
            [] => self.key <= other.key,
            [0] => true,
            end => self.key[..] < *end,
        }
    }

    /// Whether it is all keys that begin with `key`, which is how people write such a span.
    pub fn is_prefix(&self) -> bool {
        *self == Self::prefix(self.key.clone()) && !self.key.is_empty()
    }
}

impl Right {
    /// Whether it lets somebody write.
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

impl RoleOf {
    /// The role's name in etcd.
    pub fn name(&self, env: &Env) -> String {
        match self {
            Self::Agent(service) => format!("handover.{env}.{service}.agent"),
            Self::Coordinator => format!("handover.{env}.coordinator"),
            Self::CoordinatorFor(service) => format!("handover.{env}.{service}.coordinator"),
            Self::Operator => format!("handover.{env}.operator"),
            Self::OperatorFor(service) => format!("handover.{env}.{service}.operator"),
        }
    }

    /// What the role of this name is for; `None`: it is not one of ours, in this environment.
    pub fn parse(env: &Env, name: &str) -> Option<Self> {
        let rest = name.strip_prefix("handover.")?.strip_prefix(env.as_str())?.strip_prefix('.')?;
        match rest.split_once('.') {
            None => match rest {
                "coordinator" => Some(Self::Coordinator),
                "operator" => Some(Self::Operator),
                _ => None,
            },
            Some((service, part)) => {
                let service = service.parse().ok()?;
                match part {
                    "agent" => Some(Self::Agent(service)),
                    "coordinator" => Some(Self::CoordinatorFor(service)),
                    "operator" => Some(Self::OperatorFor(service)),
                    _ => None,
                }
            }
        }
    }

    /// What it may do.
    pub fn grants(&self, env: &Env) -> Grants {
        let keys = EnvKeys::new(env);
        let read_all = (Span::prefix(keys.prefix()), Right::Read);
        let read = |span| (span, Right::Read);
        let write = |span| (span, Right::ReadWrite);
        let all = match self {
            Self::Agent(service) => {
                let (service, lease) = (keys.service(service), keys.service(service).lease());
                vec![
                    read(Span::prefix(lease.prefix())),
                    write(Span::key(lease.holder())),
                    write(Span::key(lease.beat())),
                    write(Span::prefix(lease.candidates())),
                    write(Span::key(lease.roster())),
                    write(Span::prefix(service.agents())),
                    read(Span::prefix(service.assignments())),
                    read(Span::prefix(service.stagings())),
                    read(Span::key(keys.leader())),
                    read(Span::key(keys.guard())),
                ]
            }
            Self::Coordinator => vec![read_all, write(Span::key(keys.leader())), write(Span::prefix(keys.rollouts()))],
            Self::CoordinatorFor(service) => {
                let (service, lease) = (keys.service(service), keys.service(service).lease());
                vec![
                    write(Span::prefix(service.assignments())),
                    write(Span::key(service.rollout())),
                    write(Span::prefix(service.stagings())),
                    write(Span::prefix(service.orders())),
                    write(Span::prefix(service.turns())),
                    write(Span::key(lease.intent())),
                    write(Span::key(lease.freeze())),
                ]
            }
            Self::Operator => vec![read_all],
            // Candidates: who binds the beat to a lease needs the right to write every other key of that lease.
            Self::OperatorFor(service) => {
                let lease = keys.service(service).lease();
                vec![
                    write(Span::key(lease.era())),
                    write(Span::key(lease.holder())),
                    write(Span::key(lease.beat())),
                    write(Span::prefix(lease.candidates())),
                ]
            }
        };
        all.into_iter().collect()
    }

    /// The service that it is for.
    pub fn service(&self) -> Option<&Service> {
        match self {
            Self::Agent(service) | Self::CoordinatorFor(service) | Self::OperatorFor(service) => Some(service),
            Self::Coordinator | Self::Operator => None,
        }
    }
}

/// Roles and users as they should be for these services of an environment, `root` included.
pub fn wanted(env: &Env, services: &BTreeSet<Service>) -> Access {
    let of = |make: fn(Service) -> RoleOf| services.iter().cloned().map(make).collect::<Vec<_>>();
    let coordinator = [vec![RoleOf::Coordinator], of(RoleOf::CoordinatorFor)].concat();
    let operator = [vec![RoleOf::Operator], of(RoleOf::OperatorFor)].concat();
    let agents = of(RoleOf::Agent);
    let mut access = Access::default();
    for role in coordinator.iter().chain(&operator).chain(&agents) {
        access.roles.insert(role.name(env), role.grants(env));
    }
    let names = |roles: &[RoleOf]| roles.iter().map(|role| role.name(env)).collect::<BTreeSet<_>>();
    access.users.insert(RoleOf::Coordinator.name(env), names(&coordinator));
    access.users.insert(RoleOf::Operator.name(env), names(&operator));
    for agent in &agents {
        access.users.insert(agent.name(env), names(std::slice::from_ref(agent)));
    }
    access.roles.insert(ROOT.to_owned(), Grants::new());
    access.users.insert(ROOT.to_owned(), BTreeSet::from([ROOT.to_owned()]));
    access
}

#[cfg(test)]
mod tests;
