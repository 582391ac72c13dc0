//! A plan in sentences, for the dry run and for `status`.

use handover_proto::ids::AgentId;
use handover_proto::wire;

use super::{Plan, Step};
use crate::core::duration;

impl Plan {
    /// What `handover plan` prints.
    pub fn reply(&self) -> wire::PlanReply {
        let steps = self.steps.iter().zip(1..).map(|(step, index)| wire::PlanStep {
            index,
            wave: step.wave().map_or(0, |wave| wave + 1),
            kind: step.kind().to_owned(),
            what: self.sentence(step),
            agents: self.hosts_of(step).map(|host| host.agent.to_string()).collect(),
        });
        wire::PlanReply {
            service: self.service.to_string(),
            from_version: self.from.as_ref().map(ToString::to_string).unwrap_or_default(),
            to_version: self.to.to_string(),
            hash: self.hash().to_owned(),
            steps: steps.collect(),
            changes: true,
        }
    }

    /// One step in one sentence.
    pub fn sentence(&self, step: &Step) -> String {
        let on = self.on(step);
        let to = &self.to;
        let watched = |soak| format!("watch for {}", duration::text(soak));
        match (step, &self.from) {
            (Step::Stage, _) => format!("have {to} fetched and verified on {on}, before anything is touched"),
            (Step::Leave { .. }, _) => format!("take {on} out of its balancers, while it still serves what comes"),
            (Step::Start { wave }, Some(from)) if self.is_in_place() => {
                let held = if !self.leaves(*wave) { " while its gate holds requests" } else { "" };
                format!("stop {from} on {on} and start {to} in its place{held}, until it serves")
            }
            (Step::Shift { soak, .. }, Some(_)) if self.is_in_place() => {
                format!("with {to} on {on}, {}", watched(*soak))
            }
            (Step::Soak { soak }, Some(_)) if self.is_in_place() => watched(*soak),
            (Step::Start { .. }, Some(from)) => format!("start {to} beside {from} on {on}, until it is READY"),
            (Step::Start { .. }, None) => format!("start {to} on {on}, until it is READY"),
            (Step::Shift { soak, .. }, None) => format!("all traffic to {to} on {on}, then {}", watched(*soak)),
            (Step::Shift { reads, writes: 0, soak, .. }, Some(_)) => {
                format!("{reads} % of the reads on {on} to {to}, then {}", watched(*soak))
            }
            (Step::Shift { reads, writes, soak, .. }, Some(_)) => {
                format!("{reads} % of the reads and {writes} % of the writes on {on} to {to}, then {}", watched(*soak))
            }
            (Step::Lease, _) => self.lease_sentence(),
            (Step::Soak { soak }, Some(from)) => format!("keep {from} warm, {}", watched(*soak)),
            (Step::Soak { soak }, None) => watched(*soak),
            (Step::Retire, Some(from)) => format!("retire {from} on {on}; from here there is no way back"),
            (Step::Retire, None) => "nothing to retire".to_owned(),
        }
    }

    fn lease_sentence(&self) -> String {
        let to = &self.to;
        match (&self.lease_to, &self.from) {
            (Some(agent), _) => format!("hand the scheduler lease over to {to} on {agent}"),
            (None, Some(from)) => format!("let {to} hold the scheduler lease, and no longer {from}"),
            (None, None) => format!("let {to} hold the scheduler lease"),
        }
    }

    fn on(&self, step: &Step) -> String {
        let agents: Vec<&str> = self.hosts_of(step).map(|host| AgentId::as_str(&host.agent)).collect();
        match agents.as_slice() {
            [] => "no host".to_owned(),
            few if few.len() <= 3 => few.join(", "),
            [first, second, rest @ ..] => format!("{first}, {second} and {} more", rest.len()),
            [one] => (*one).to_owned(),
        }
    }
}

impl Step {
    /// Its kind in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stage => "stage",
            Self::Leave { .. } => "leave",
            Self::Start { .. } => "start",
            Self::Shift { .. } => "shift",
            Self::Lease => "lease",
            Self::Soak { .. } => "soak",
            Self::Retire => "retire",
        }
    }
}
