//! What is shown: pure functions from the world to wire messages.

mod blockers;
mod doctor;
mod fleet;
mod lease;
pub(crate) mod metrics;
mod orders;
mod rollout;
mod staging;
mod turns;

use handover_proto::ids::Service;
use handover_proto::stored::StoredError;
use handover_proto::wire::{HistoryReply, HistoryRequest, StatusReply, StatusRequest, TurnsReply, TurnsRequest};

use crate::rollout::{Rollout, RolloutError};
use crate::world::World;

pub use doctor::doctor;
pub(crate) use rollout::what;

/// A question that has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Nothing of that name.
    #[error("there is no service {asked:?} here; known: {known}")]
    UnknownService {
        /// As asked.
        asked: String,
        /// What there is.
        known: String,
    },
    /// The service must be named.
    #[error("there are several services ({0}); name one with --service")]
    Several(String),
    /// Not an id, or there is no such rollout.
    #[error("there is no rollout {0:?}; `handover rollout history` lists them")]
    UnknownRollout(String),
    /// A stored value is not readable.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// A rollout is not readable, or there is no such one.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
}

/// Whose view it is.
#[derive(Debug, Clone, Default)]
pub struct Viewer {
    /// The leader's endpoint; empty: nobody leads.
    pub leader: String,
    /// Our term, 0 unless we lead.
    pub term: i64,
    /// Wall clock, Unix milliseconds.
    pub at_ms: u64,
}

/// The whole picture of one service.
///
/// # Errors
/// [`ViewError`].
pub fn status(world: &World, request: &StatusRequest, viewer: &Viewer) -> Result<StatusReply, ViewError> {
    let mut reply =
        StatusReply { leader: viewer.leader.clone(), term: viewer.term, at_ms: viewer.at_ms, ..StatusReply::default() };
    let named = named(world, &request.rollout)?;
    let service = match &named {
        Some(rollout) => Some(rollout.plan.service.clone()),
        None => service(world, &request.service)?,
    };
    let Some(service) = service else {
        reply.blockers = blockers::of_store(world);
        return Ok(reply);
    };
    let lease = world.lease(&service)?;
    let rollout = match named {
        Some(rollout) => Some(rollout),
        None => Rollout::latest(world, &service)?,
    };
    reply.service = service.to_string();
    reply.fleet = fleet::rows(world, &service, &lease)?;
    reply.current_version = fleet::current_version(&reply.fleet);
    reply.lease = Some(lease::status(world, &service, &lease)?);
    reply.blockers = blockers::of_store(world);
    let stage = world.stage(&service)?;
    reply.orders = orders::statuses(&world.orders(&service), &stage, viewer, request.order);
    reply.orders.extend(orders::unreadable(world, &service));
    if let Some(rollout) = &rollout {
        reply.blockers.extend(blockers::of_rollout(world, rollout, viewer)?);
    }
    reply.blockers.extend(blockers::of_orders(&reply.orders));
    reply.blockers.extend(blockers::of_lease(reply.lease.as_ref(), &reply.blockers));
    let of_agents = blockers::of_agents(world, &service, &reply.blockers)?;
    reply.blockers.extend(of_agents);
    reply.rollout = rollout.as_ref().map(rollout::status);
    Ok(reply)
}

/// The service that is meant; `None`: there is none at all and none was named.
///
/// # Errors
/// [`ViewError::UnknownService`], [`ViewError::Several`].
pub fn service(world: &World, asked: &str) -> Result<Option<Service>, ViewError> {
    let known = world.services();
    let names = || known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !asked.is_empty() {
        let found = known.iter().find(|service| service.as_str() == asked).cloned();
        let names = if known.is_empty() { "none, no agent has registered".to_owned() } else { names() };
        return found.map(Some).ok_or_else(|| ViewError::UnknownService { asked: asked.to_owned(), known: names });
    }
    if known.len() > 1 {
        return Err(ViewError::Several(names()));
    }
    Ok(known.into_iter().next())
}

/// The rollout that is asked for by its id.
fn named(world: &World, id: &str) -> Result<Option<Rollout>, ViewError> {
    if id.is_empty() {
        return Ok(None);
    }
    let id = id.parse().map_err(|_| ViewError::UnknownRollout(id.to_owned()))?;
    Ok(Some(Rollout::read(world, &id)?))
}

/// The recorded turns of a service's lease, newest first.
///
/// # Errors
/// [`ViewError`].
pub fn turns(world: &World, request: &TurnsRequest, at_ms: u64) -> Result<TurnsReply, ViewError> {
    let records = match service(world, &request.service)? {
        Some(service) => world.turns(&service)?,
        None => Vec::new(),
    };
    let last = usize::try_from(request.last).unwrap_or(usize::MAX);
    Ok(TurnsReply { turns: turns::rows(&records, last), at_ms })
}

/// The rollouts of a service, newest first, or its standing orders, or one rollout's journal.
///
/// # Errors
/// [`ViewError`].
pub fn history(world: &World, request: &HistoryRequest) -> Result<HistoryReply, ViewError> {
    if let Some(rollout) = named(world, &request.rollout)? {
        let rollouts = vec![rollout::status(&rollout)];
        return Ok(HistoryReply { rollouts, lines: rollout::lines(&rollout), orders: Vec::new() });
    }
    let service = service(world, &request.service)?;
    if request.orders {
        let Some(service) = service else { return Ok(HistoryReply::default()) };
        let (all, stage) = (world.orders(&service), world.stage(&service)?);
        return Ok(HistoryReply { orders: orders::all(&all, &stage), ..HistoryReply::default() });
    }
    let mut rollouts = Vec::new();
    for id in world.rollouts().iter().rev() {
        let rollout = Rollout::read(world, id)?;
        if service.as_ref() == Some(&rollout.plan.service) {
            rollouts.push(rollout::status(&rollout));
        }
    }
    Ok(HistoryReply { rollouts, ..HistoryReply::default() })
}

#[cfg(test)]
mod tests;
