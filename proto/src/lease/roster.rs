//! Who may ever take over: the holder's agent lists the agents of all candidates that it sees.

use std::collections::BTreeSet;

use super::txn::{Refused, my_turn, read_ops};
use super::values::Roster;
use super::view::LeaseView;
use crate::ids::{AgentId, InstanceId};
use crate::keys::LeaseKeys;
use crate::stored::{STORED_VERSION, encode};
use crate::txn::{Cmp, Op, Txn};

/// Longest roster. Far above any fleet of one service, and small enough for one value.
pub const MAX_LISTED: usize = 128;

impl LeaseView {
    /// Whether `agent` may take over.
    pub fn lists(&self, agent: &AgentId) -> bool {
        self.roster.as_ref().is_some_and(|roster| roster.value.agents.contains(agent))
    }
}

/// The roster that the holder `me` should write: with the agents of all candidates. None: it is as it should be.
///
/// # Errors
/// [`Refused`] if `me` does not hold.
pub fn list_agents(keys: &LeaseKeys, view: &LeaseView, me: &InstanceId) -> Result<Option<Txn>, Refused> {
    let turn = my_turn(view, me)?;
    let holder = view.holder.as_ref().map(|seen| &seen.value.owner().agent);
    let Some(agents) = with(view, holder) else { return Ok(None) };
    // Only the present holder may: it compares its own turn.
    let cmp = vec![Cmp::ModRevision(keys.holder(), turn), as_seen(keys, view)];
    Ok(Some(Txn { cmp, then: vec![put(keys, view, agents)?], or_else: read_ops(keys) }))
}

/// The roster with `first` and the agents of all candidates; none: they are all listed. Nobody leaves it before it is
/// full; then those without a candidate do.
pub(super) fn with<'a>(view: &'a LeaseView, first: impl IntoIterator<Item = &'a AgentId>) -> Option<BTreeSet<AgentId>> {
    let candidates = view.candidates.values().map(|seen| &seen.value.owner.agent);
    let mut agents: BTreeSet<AgentId> = first.into_iter().chain(candidates).take(MAX_LISTED).cloned().collect();
    if agents.iter().all(|agent| view.lists(agent)) {
        return None;
    }
    let before = view.roster.iter().flat_map(|roster| &roster.value.agents);
    for agent in before {
        if agents.len() < MAX_LISTED {
            agents.insert(agent.clone());
        }
    }
    Some(agents)
}

/// The roster is as this view shows it.
pub(super) fn as_seen(keys: &LeaseKeys, view: &LeaseView) -> Cmp {
    Cmp::ModRevision(keys.roster(), view.roster.as_ref().map_or(0, |seen| seen.mod_revision))
}

pub(super) fn put(keys: &LeaseKeys, view: &LeaseView, agents: BTreeSet<AgentId>) -> Result<Op, Refused> {
    let rest = view.roster.as_ref().map(|seen| seen.value.rest.clone()).unwrap_or_default();
    Ok(Op::put(keys.roster(), encode(&Roster { v: STORED_VERSION, agents, rest })?))
}
