//! `handover store setup`, decided: from the roles that should be and those that are to the steps between them.
//!
//! Pure. The roles come from [`handover_proto::roles`]; the shell is `cli/setup.rs`.

use std::collections::BTreeSet;

use handover_proto::ids::{Env, Service};
use handover_proto::keys::EnvKeys;
use handover_proto::roles::{Access, Grants, ROOT, RoleOf, Span, wanted};
use handover_store::client::AuthChange;

mod command;
#[cfg(test)]
mod tests;

pub use command::{command, guard};

/// What stands in the store.
#[derive(Debug, Clone, Default)]
pub struct Stands {
    /// Whether callers have to be users.
    pub enabled: bool,
    /// Roles and users.
    pub access: Access,
    /// Whether the guard key says that the lease's keys are protected.
    pub guarded: bool,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Of users and roles.
    Auth(AuthChange),
    /// The guard key is written: from now on agents trust that nobody else touches the lease.
    WriteGuard,
    /// The guard key is deleted, because it is not true.
    DeleteGuard,
}

/// What is to be done, and what we must not do by ourselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setup {
    /// In this order.
    pub steps: Vec<Step>,
    /// Rights of others, one sentence each with the command that ends it; while there is one, there is no guard.
    pub dangers: Vec<String>,
}

/// The way from what stands to what should, for these services and all whose roles stand already.
pub fn plan(env: &Env, named: &BTreeSet<Service>, stands: &Stands) -> Setup {
    let roles = stands.access.roles.keys().filter_map(|name| RoleOf::parse(env, name));
    let services = roles.filter_map(|role| role.service().cloned()).chain(named.iter().cloned()).collect();
    let wanted = wanted(env, &services);
    let dangers = dangers(env, &services, &stands.access);
    let mut steps = Vec::new();
    if stands.guarded && !dangers.is_empty() {
        steps.push(Step::DeleteGuard);
    }
    for (role, grants) in &wanted.roles {
        steps.extend(mend_role(role, grants, stands.access.roles.get(role)).into_iter().map(Step::Auth));
    }
    for (user, roles) in &wanted.users {
        let has = stands.access.users.get(user);
        steps.extend(mend_user(env, user, roles, has).into_iter().map(Step::Auth));
    }
    if !stands.enabled {
        steps.push(Step::Auth(AuthChange::Enable));
    }
    if !stands.guarded && dangers.is_empty() {
        steps.push(Step::WriteGuard);
    }
    Setup { steps, dangers }
}

fn mend_role(role: &str, wanted: &Grants, stands: Option<&Grants>) -> Vec<AuthChange> {
    let mut changes = Vec::new();
    let nothing = Grants::new();
    let has = stands.unwrap_or(&nothing);
    if stands.is_none() {
        changes.push(AuthChange::AddRole(role.to_owned()));
    }
    // What is too much goes first: the time in between errs towards refusing. Root's rights are not listed anywhere.
    for span in has.keys().filter(|span| role != ROOT && !wanted.contains_key(span)) {
        changes.push(AuthChange::Revoke { role: role.to_owned(), span: span.clone() });
    }
    for (span, right) in wanted.iter().filter(|(span, right)| has.get(span) != Some(right)) {
        changes.push(AuthChange::Grant { role: role.to_owned(), span: span.clone(), right: *right });
    }
    changes
}

fn mend_user(env: &Env, user: &str, wanted: &BTreeSet<String>, stands: Option<&BTreeSet<String>>) -> Vec<AuthChange> {
    let mut changes = Vec::new();
    let nobody = BTreeSet::new();
    let has = stands.unwrap_or(&nobody);
    if stands.is_none() {
        changes.push(AuthChange::AddUser(user.to_owned()));
    }
    // A user of ours has no other role of ours; what else it may do is the administrators' business.
    for role in has.iter().filter(|role| !wanted.contains(*role) && RoleOf::parse(env, role).is_some()) {
        changes.push(AuthChange::Take { user: user.to_owned(), role: role.clone() });
    }
    for role in wanted.difference(has) {
        changes.push(AuthChange::Give { user: user.to_owned(), role: role.clone() });
    }
    changes
}

/// Who else could write the lease: roles that are not ours, and users that have both sides' roles.
fn dangers(env: &Env, services: &BTreeSet<Service>, stands: &Access) -> Vec<String> {
    let keys = EnvKeys::new(env);
    let leases: Vec<Span> =
        services.iter().map(|service| Span::prefix(keys.service(service).lease().prefix())).collect();
    let mut dangers = Vec::new();
    let foreign = |role: &str| role != ROOT && RoleOf::parse(env, role).is_none();
    for (role, grants) in stands.roles.iter().filter(|(role, _)| foreign(role)) {
        let writes = grants.iter().filter(|(_, right)| right.writes()).map(|(span, _)| span);
        for span in writes.filter(|span| leases.iter().any(|lease| lease.overlaps(span))) {
            let revoke = command(&keys, &Step::Auth(AuthChange::Revoke { role: role.clone(), span: span.clone() }), 0);
            dangers.push(format!("role {role} may write the lease's keys; take that right away: {revoke}"));
        }
    }
    for (user, roles) in stands.users.iter().filter(|(_, roles)| !roles.contains(ROOT)) {
        let parts: BTreeSet<&str> =
            roles.iter().filter_map(|role| RoleOf::parse(env, role)).map(|role| part(&role)).collect();
        if parts.len() > 1 {
            let parts = Vec::from_iter(parts).join(" and ");
            dangers
                .push(format!("user {user} is {parts} at once; take roles away: etcdctl user revoke-role {user} ROLE"));
        }
    }
    dangers
}

fn part(role: &RoleOf) -> &'static str {
    match role {
        RoleOf::Agent(_) => "agent",
        RoleOf::Coordinator | RoleOf::CoordinatorFor(_) => "coordinator",
        RoleOf::Operator | RoleOf::OperatorFor(_) => "operator",
    }
}
