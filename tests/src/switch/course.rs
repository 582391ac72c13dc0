//! What happens in a run, in which order.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use crate::switch::site::{End, Site};

/// How often each thing happens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, clap::Args)]
pub struct Course {
    /// Switches of all traffic from one instance to the other.
    #[arg(long, default_value_t = 50)]
    pub switches: usize,
    /// After every so many switches the instance that was left is stopped, and started again before the next; 0: never.
    #[arg(long, default_value_t = 5)]
    pub stop_every: usize,
    /// Restarts of the agent: by turns told to stop, killed, and replaced by a program at another path. Every other one is in
    /// the middle of a switch.
    #[arg(long, default_value_t = 50)]
    pub agent_restarts: usize,
    /// Planned restarts of the gate: a second one is started and takes over.
    #[arg(long, default_value_t = 20)]
    pub gate_restarts: usize,
    /// Kills of the gate: a planted fault, after which losses must show.
    #[arg(long, default_value_t = 0)]
    pub gate_kills: usize,
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// All traffic goes to the other instance.
    Switch,
    /// The same, and the agent is restarted before it can have finished.
    SwitchAndRestart(End),
    /// The instance without traffic is drained and stopped, then started again.
    StopAndStart,
    /// The agent is restarted.
    RestartAgent(End),
    /// A second gate is started, and the first one ends.
    RestartGate,
    /// The gate is killed, and started again.
    KillGate,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("switch"),
            Self::SwitchAndRestart(end) => write!(f, "switch with the agent {end}"),
            Self::StopAndStart => f.write_str("stop and start of the idle instance"),
            Self::RestartAgent(end) => write!(f, "agent {end}"),
            Self::RestartGate => f.write_str("gate restarted"),
            Self::KillGate => f.write_str("gate killed"),
        }
    }
}

impl Course {
    /// Everything, spread evenly over the run.
    pub fn events(&self) -> Vec<Event> {
        let ends = [End::Told, End::Killed, End::Upgraded];
        let rounds = [self.switches, self.agent_restarts.div_ceil(2), self.gate_restarts, self.gate_kills];
        let rounds = rounds.into_iter().max().unwrap_or(0);
        let (mut events, mut restarts) = (Vec::new(), 0);
        for round in 0..rounds {
            // How often something that happens `count` times in all is due in this round.
            let due = |count: usize| (round + 1) * count / rounds - round * count / rounds;
            let mut restart = due(self.agent_restarts);
            let mut end = || {
                restarts += 1;
                ends[(restarts - 1) % ends.len()]
            };
            for switch in 0..due(self.switches) {
                // Before, in the middle of a switch or after it, by turns.
                let in_the_middle = restart > 0 && switch == 0 && round % 2 == 0;
                restart -= usize::from(in_the_middle);
                events.push(if in_the_middle { Event::SwitchAndRestart(end()) } else { Event::Switch });
            }
            if self.stop_every > 0 && due(self.switches) > 0 && (round + 1) % self.stop_every == 0 {
                events.push(Event::StopAndStart);
            }
            events.extend((0..restart).map(|_| Event::RestartAgent(end())));
            events.extend((0..due(self.gate_restarts)).map(|_| Event::RestartGate));
            events.extend((0..due(self.gate_kills)).map(|_| Event::KillGate));
        }
        events
    }
}

impl Event {
    /// Does it, and waits until it is done.
    ///
    /// # Errors
    /// If it is not done in time.
    pub fn happen(self, site: &mut Site) -> Result<()> {
        match self {
            Self::Switch => {
                site.switch()?;
                site.settled()
            }
            Self::SwitchAndRestart(end) => {
                site.switch()?;
                site.restart_agent(end)?;
                site.settled()
            }
            Self::StopAndStart => {
                site.start_a_job()?;
                site.stop_idle()?;
                site.settled()?;
                site.start_idle()?;
                site.settled()
            }
            Self::RestartAgent(end) => {
                site.restart_agent(end)?;
                site.settled()
            }
            Self::RestartGate => {
                site.take_the_gate_over()?;
                site.settled()
            }
            Self::KillGate => {
                site.kill_gate()?;
                site.settled()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_happens_as_often_as_it_is_asked_for_and_is_spread() {
        let course = Course { switches: 50, stop_every: 5, agent_restarts: 50, gate_restarts: 20, gate_kills: 0 };
        let events = course.events();
        let count = |what: fn(&Event) -> bool| events.iter().filter(|event| what(event)).count();
        assert_eq!(count(|e| matches!(e, Event::Switch | Event::SwitchAndRestart(_))), 50);
        assert_eq!(count(|e| matches!(e, Event::RestartAgent(_) | Event::SwitchAndRestart(_))), 50);
        assert_eq!(count(|e| matches!(e, Event::SwitchAndRestart(_))), 25, "half of them in the middle of a switch");
        assert_eq!((count(|e| *e == Event::RestartGate), count(|e| *e == Event::StopAndStart)), (20, 10));
        for end in [End::Told, End::Killed, End::Upgraded] {
            let of = |event: &&Event| matches!(event, Event::RestartAgent(e) | Event::SwitchAndRestart(e) if *e == end);
            assert!(events.iter().filter(of).count() >= 16, "{end}");
        }
        let second_half = &events[events.len() / 2..];
        assert!(second_half.iter().filter(|event| **event == Event::RestartGate).count() >= 9);
    }

    #[test]
    fn restarts_without_switches_happen_too() {
        let course = Course { agent_restarts: 3, ..Course::default() };
        assert_eq!(course.events().len(), 3);
        assert_eq!(Course::default().events(), []);
    }
}
