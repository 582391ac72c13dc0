//! The step before all others: every host has the version in place. Nothing has been touched yet, so that a host that
//! refuses ends the rollout, and there is nothing to go back from.

use std::collections::BTreeMap;

use handover_proto::assignment::Cause;
use handover_proto::blocker::Blocker;
use handover_proto::ids::AgentId;
use handover_proto::staging::StagingRequest;
use handover_proto::stored::{Rest, STORED_VERSION};

use super::forward::{Lap, enter};
use super::{Act, Decision};
use crate::core::event::{Event, Outcome};
use crate::core::plan::Step;
use crate::core::progress::State;
use crate::core::staging::{Ask, HostEnd, HostStand, Requested, refusals, stand};

/// Running at the step `step`, which is this one.
pub(super) fn next(lap: Lap<'_>, step: u32) -> Decision {
    let Some(requested) = ours(lap) else { return ask(lap, step) };
    let stands = lap.plan.hosts.iter().map(|host| (&host.agent, stand(lap.fleet, &host.agent, requested)));
    let (mut waits, mut ends): (Vec<Blocker>, BTreeMap<&AgentId, HostEnd>) = Default::default();
    for (host, stand) in stands {
        waits.extend(stand.blocker(host, &lap.plan.to, lap.progress.since_ms));
        if let HostStand::Ended(end) = stand {
            ends.insert(host, end);
        }
    }
    if let Some(refusals) = refusals(ends.iter().map(|(host, end)| (*host, end)), &lap.plan.to) {
        let reason = format!("nothing was touched: {refusals}");
        return Act::only(Event::Ended { outcome: Outcome::Failed, reason }).with(Ask::Withdraw);
    }
    if waits.is_empty() {
        return enter(lap, step + 1).with(Ask::Withdraw);
    }
    waits.sort_by_key(|blocker| blocker.kind);
    Decision::Wait { blockers: waits, until: None }
}

/// Takes away what this rollout has asked for, with whatever comes after the step.
pub(super) fn tidied(lap: Lap<'_>, decided: Decision) -> Decision {
    let at_it = match lap.progress.state {
        State::Running { step } | State::Paused { step, .. } => lap.plan.step(step) == Some(&Step::Stage),
        State::GoingBack { .. } | State::Ended { .. } => false,
    };
    if at_it || ours(lap).is_none() { decided } else { decided.with(Ask::Withdraw) }
}

fn ours(lap: Lap<'_>) -> Option<&Requested> {
    lap.fleet.staging.as_ref().filter(|requested| requested.request.cause.rollout.as_ref() == Some(&lap.plan.id))
}

fn ask(lap: Lap<'_>, step: u32) -> Decision {
    let request = StagingRequest {
        v: STORED_VERSION,
        term: lap.now.term,
        cause: Cause { rollout: Some(lap.plan.id.clone()), step, plan_hash: lap.plan.hash().to_owned() },
        version: lap.plan.to.clone(),
        hosts: lap.plan.hosts.iter().map(|host| host.agent.clone()).collect(),
        rest: Rest::new(),
    };
    Act::only(Event::Staging).with(Ask::Request(request))
}

impl Decision {
    /// The same, with this done to the staging key in the same transaction.
    fn with(self, ask: Ask) -> Self {
        match self {
            Self::Do(act) => Self::Do(Box::new(Act { staging: Some(ask), ..*act })),
            other => other,
        }
    }
}
