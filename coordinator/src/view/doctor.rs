//! `handover doctor`: everything about the fleet that a human should look at, each with a verdict and what to do. Pure: from
//! the world, and the same whether a coordinator or only the store answers.

mod agents;
mod lease;
mod rollout;
mod store;

use handover_proto::ids::Service;
use handover_proto::wire::{Blocker, DoctorReply, DoctorRequest, Finding, StatusReply, StatusRequest, verdict};

use super::{ViewError, Viewer, blockers, service, status};
use crate::rollout::Rollout;
use crate::world::World;

/// One service, as its findings are made from.
struct Patient<'w> {
    world: &'w World,
    service: &'w Service,
    status: &'w StatusReply,
    /// What its rollout waits for, and nobody else.
    waits: &'w [Blocker],
    /// Wall clock, Unix milliseconds.
    at_ms: u64,
}

/// All findings; of one service if it is named, of all otherwise.
///
/// # Errors
/// [`ViewError`].
pub fn doctor(world: &World, request: &DoctorRequest, viewer: &Viewer) -> Result<DoctorReply, ViewError> {
    let mut findings = vec![leader(viewer)];
    findings.extend(store::findings(world, viewer.at_ms));
    let services = match request.service.as_str() {
        "" => world.services(),
        name => service(world, name)?.into_iter().collect(),
    };
    if services.is_empty() && world.listed {
        let fix =
            "systemctl enable --now handover-agent@SERVICE on each host; its journal says why if it does not register";
        findings.push(warn("agents", "no agent has registered in this environment", fix));
    }
    for service in &services {
        let request = StatusRequest { service: service.to_string(), ..StatusRequest::default() };
        let status = status(world, &request, viewer)?;
        let waits = Rollout::latest(world, service)?.map(|rollout| blockers::of_rollout(world, &rollout, viewer));
        let waits = waits.transpose()?.unwrap_or_default();
        let patient = Patient { world, service, status: &status, waits: &waits, at_ms: viewer.at_ms };
        let own = [agents::findings(&patient)?, lease::findings(&patient), rollout::findings(&patient)];
        let named = |finding: Finding| Finding { service: service.to_string(), ..finding };
        findings.extend(own.into_iter().flatten().map(named));
    }
    Ok(DoctorReply { findings, at_ms: viewer.at_ms })
}

fn leader(viewer: &Viewer) -> Finding {
    if viewer.leader.is_empty() {
        let fix = "systemctl start handover, where it is installed; journalctl -u handover says why it does not lead";
        return fail("coordinator", "no coordinator leads: what runs goes on, and nothing new is ordered", fix);
    }
    ok("coordinator", format!("{} leads", viewer.leader))
}

fn ok(check: &str, sentence: impl Into<String>) -> Finding {
    finding(check, verdict::OK, sentence, "")
}

fn warn(check: &str, sentence: impl Into<String>, fix: impl Into<String>) -> Finding {
    finding(check, verdict::WARN, sentence, fix)
}

fn fail(check: &str, sentence: impl Into<String>, fix: impl Into<String>) -> Finding {
    finding(check, verdict::FAIL, sentence, fix)
}

fn finding(check: &str, verdict: &str, sentence: impl Into<String>, fix: impl Into<String>) -> Finding {
    let (check, verdict) = (check.to_owned(), verdict.to_owned());
    Finding { check, verdict, sentence: sentence.into(), fix: fix.into(), service: String::new() }
}

/// For how long, in words; since 0: not known.
fn age(since_ms: u64, at_ms: u64) -> String {
    let seconds = at_ms.saturating_sub(since_ms) / 1000;
    match (since_ms, seconds) {
        (0, _) => "an unknown time".to_owned(),
        (_, 0..=119) => format!("{seconds} s"),
        (_, 120..=7199) => format!("{} min", seconds / 60),
        (_, 7200..=172_799) => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
