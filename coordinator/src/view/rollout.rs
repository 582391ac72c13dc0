//! Where a rollout stands, and what was decided in it.

use handover_proto::wire::{JournalLine, RolloutStatus};

use crate::core::event::{BackStep, Event, Outcome, Record};
use crate::core::plan::{Plan, Step};
use crate::core::progress::State;
use crate::rollout::Rollout;

/// The rollout's head.
pub(super) fn status(rollout: &Rollout) -> RolloutStatus {
    let Rollout { plan, progress, records } = rollout;
    let (state, step, reason) = match &progress.state {
        State::Running { step } => ("running", *step, String::new()),
        State::Paused { step, by, reason, .. } => ("paused", *step, said(by, reason)),
        State::GoingBack { from_step, by, reason, .. } => ("rolling-back", *from_step, said(by, reason)),
        State::Ended { outcome, reason, .. } => (ended(*outcome), last_step(records), reason.clone()),
    };
    let what = match &progress.state {
        State::GoingBack { step, .. } => way_back(plan, *step),
        _ => plan.step(step).map(|step| plan.sentence(step)).unwrap_or_default(),
    };
    let wave = plan.step(step).filter(|step| **step != Step::Stage);
    let wave = wave.map_or(0, |step| step.wave().map_or(plan.waves(), |wave| wave + 1));
    RolloutStatus {
        rollout: plan.id.to_string(),
        from_version: plan.from.as_ref().map(ToString::to_string).unwrap_or_default(),
        to_version: plan.to.to_string(),
        state: state.to_owned(),
        step: step + 1,
        steps: u32::try_from(plan.steps.len()).unwrap_or(u32::MAX),
        step_what: what,
        wave,
        waves: plan.waves(),
        started_ms: progress.started_ms,
        ended_ms: match progress.state {
            State::Ended { at_ms, .. } => at_ms,
            _ => 0,
        },
        reason,
        can_go_back: progress.can_go_back(plan),
    }
}

fn said(by: &str, reason: &str) -> String {
    if reason.is_empty() { format!("by {by}") } else { format!("{reason} (by {by})") }
}

fn ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::RolledBack => "rolled-back",
        Outcome::Failed => "failed",
    }
}

/// The furthest step that was entered.
fn last_step(records: &[Record]) -> u32 {
    let entered = records.iter().rev().find_map(|record| match record.event {
        Event::Entered { step } => Some(step),
        _ => None,
    });
    entered.unwrap_or(0)
}

fn way_back(plan: &Plan, step: BackStep) -> String {
    let from = plan.from.as_ref().map_or("the way it was", |version| version.as_str());
    match step {
        BackStep::Routes if plan.is_in_place() => format!("back to {from} in its place, host by host"),
        BackStep::Stop if plan.is_in_place() => format!("back to {from} on the hosts that are left"),
        BackStep::Routes => format!("all traffic back to {from}"),
        BackStep::Lease => format!("the scheduler lease back to {from}"),
        BackStep::Stop => format!("stop {}", plan.to),
    }
}

/// The journal in sentences.
pub(super) fn lines(rollout: &Rollout) -> Vec<JournalLine> {
    let line = |record: &Record| JournalLine {
        seq: record.seq,
        at_ms: record.at_ms,
        term: record.term.get(),
        what: what(&rollout.plan, &record.event),
    };
    rollout.records.iter().map(line).collect()
}

/// An event in a sentence.
pub(crate) fn what(plan: &Plan, event: &Event) -> String {
    match event {
        Event::Started { by, .. } => format!("started by {by}; {}", entered(plan, 0)),
        Event::Entered { step } => entered(plan, *step),
        Event::Assigned { agents } => {
            let agents: Vec<&str> = agents.iter().map(|agent| agent.as_str()).collect();
            format!("assigned to {}", agents.join(", "))
        }
        Event::Staging => format!("asked the hosts to have {} in place", plan.to),
        Event::Asked { from, to, .. } => format!("asked instance {from} to hand the lease over to {to}"),
        Event::Withdrawn { op } => format!("withdrew the request {op} to the lease's holder"),
        Event::Paused { by, reason, .. } => format!("paused: {}", said(by, reason)),
        Event::Resumed { by } => format!("resumed by {by}"),
        Event::Back { by, reason } => format!("going back: {}", said(by, reason)),
        Event::BackEntered { step } => way_back(plan, *step),
        Event::Ended { outcome, reason } if reason.is_empty() => ended(*outcome).to_owned(),
        Event::Ended { outcome, reason } => format!("{}: {reason}", ended(*outcome)),
    }
}

fn entered(plan: &Plan, step: u32) -> String {
    let what = plan.step(step).map(|step| plan.sentence(step)).unwrap_or_default();
    format!("step {}/{}: {what}", step + 1, plan.steps.len())
}
