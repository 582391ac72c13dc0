//! What is shown: pure functions from the world to wire messages.

mod blockers;
mod fleet;
mod lease;

use handover_proto::ids::Service;
use handover_proto::stored::StoredError;
use handover_proto::wire::{HistoryReply, HistoryRequest, StatusReply, StatusRequest};

use crate::world::World;

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
    let Some(service) = service(world, &request.service)? else {
        reply.blockers = blockers::of_store(world);
        return Ok(reply);
    };
    let lease = world.lease(&service)?;
    reply.service = service.to_string();
    reply.fleet = fleet::rows(world, &service, &lease)?;
    reply.current_version = fleet::current_version(&reply.fleet);
    reply.lease = Some(lease::status(&lease));
    reply.blockers = blockers::of_store(world);
    reply.blockers.extend(blockers::of_agents(world, &service)?);
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

/// The rollouts of a service.
///
/// # Errors
/// [`ViewError`].
pub fn history(world: &World, request: &HistoryRequest) -> Result<HistoryReply, ViewError> {
    service(world, &request.service)?;
    Ok(HistoryReply::default())
}
