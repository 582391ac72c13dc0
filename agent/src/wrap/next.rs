//! What the wrapper does next. Pure: time, records and ends come in as values.
//!
//! ```text
//!        ACTIVE, in time             QUIESCE, FENCED, STOPPED, D_soft, SIGTERM       no descendant left
//! Idle -----------------> Running ------------------------------------------> Stopping ---------------> Ended
//!   ^ A5                     \__ the command ends by itself ____________________/ SIGKILL at D_hard        |
//!   |                                                                                                      |
//!   +---------------- --restart, asked to stop, and told of another token (A8) ----------------------------+
//! ```

use std::time::Duration;

use crate::lease::deadline::{Boot, Deadlines};
use crate::lease::record::{AckState, LeaseRecord, Told};

/// What the command leaves behind when it ends gets this long after SIGTERM.
pub const LEFTOVERS: Duration = Duration::from_secs(1);
/// Between two tries of an acknowledgement, and between two kills.
const AGAIN: Duration = Duration::from_millis(200);
/// Between two looks at a tree that is being killed.
const KILL_AGAIN: Duration = Duration::from_millis(10);

/// Where the command stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// It was never started, or a new turn is waited for.
    Idle,
    /// It runs under this token.
    Running {
        /// The token.
        token: String,
        /// Until when.
        until: Deadlines,
    },
    /// It is being stopped.
    Stopping {
        /// The token it ran under.
        token: String,
        /// Whoever is left at this moment is killed. Never moved: a renewal cannot prolong the stopping.
        kill_at: Boot,
        /// SIGTERM has been sent.
        termed: bool,
        /// No SIGKILL before this: the last one needs its time.
        next_kill: Boot,
        /// How the command itself ended, once it has.
        code: Option<u8>,
        /// It was asked to stop; otherwise it ended by itself.
        asked: bool,
    },
    /// It has ended, and no descendant is left.
    Ended {
        /// The token it ran under.
        token: String,
        /// Its exit code.
        code: u8,
        /// It was asked to stop.
        asked: bool,
    },
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The agent told this, with the deadlines on our own clock; none: it gives no right to work.
    Heard(LeaseRecord, Option<Deadlines>),
    /// The command was started.
    Started,
    /// The command could not be started: exit code and reason.
    NotStarted(u8, String),
    /// The command itself ended, with this exit code.
    LeaderEnded(u8),
    /// No child is left, running or ended, and hence no descendant.
    Empty,
    /// Somebody asked the wrapper to end.
    Terminated,
    /// An acknowledgement was tried; whether the agent took it.
    Acked {
        /// Of which record.
        seq: u64,
        /// The agent took it.
        taken: bool,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Start the command under this token.
    Start(String),
    /// Send SIGTERM to all of it.
    Term,
    /// Send SIGKILL to every descendant.
    Kill,
    /// Acknowledge a record.
    Ack {
        /// Its number.
        seq: u64,
        /// Its token.
        token: Option<String>,
        /// What was done.
        state: AckState,
        /// Whether the command runs.
        in_flight: u64,
        /// For people.
        detail: String,
    },
    /// End with this code.
    Exit(u8),
    /// Nothing before this moment; none: nothing without an event.
    Wait(Option<Boot>),
}

/// The wrapper's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// Where the command stands.
    pub stand: Stand,
    restart: bool,
    newest: Option<(LeaseRecord, Option<Deadlines>)>,
    acked: u64,
    /// The newest record has been tried at least once.
    tried: u64,
    ack_not_before: Boot,
    acking: bool,
    terminated: bool,
    failure: Option<(u8, String)>,
}

impl Core {
    /// A wrapper that has started nothing.
    pub fn new(restart: bool) -> Self {
        Self {
            stand: Stand::Idle,
            restart,
            newest: None,
            acked: 0,
            tried: 0,
            ack_not_before: Boot::default(),
            acking: false,
            terminated: false,
            failure: None,
        }
    }

    /// Takes in one event.
    pub fn apply(&mut self, event: Event, now: Boot) {
        match event {
            Event::Heard(record, until) => self.heard(record, until),
            Event::Started => {
                if let Some((LeaseRecord { token: Some(token), .. }, Some(until))) = &self.newest {
                    self.stand = Stand::Running { token: token.clone(), until: *until };
                }
            }
            Event::NotStarted(code, reason) => self.failure = Some((code, reason)),
            Event::LeaderEnded(ended) => match &mut self.stand {
                Stand::Running { .. } => self.stop(now.plus(LEFTOVERS), Some(ended), false, now),
                Stand::Stopping { code, kill_at, .. } => {
                    *code = Some(ended);
                    *kill_at = (*kill_at).min(now.plus(LEFTOVERS));
                }
                Stand::Idle | Stand::Ended { .. } => {}
            },
            Event::Empty => {
                if let Stand::Stopping { token, code, asked, .. } = &self.stand {
                    let code = code.unwrap_or(0);
                    self.stand = Stand::Ended { token: token.clone(), code, asked: *asked };
                }
            }
            Event::Terminated => self.terminated = true,
            Event::Acked { seq, taken } => {
                self.acking = false;
                self.tried = self.tried.max(seq);
                self.ack_not_before = now.plus(AGAIN);
                if taken {
                    self.acked = self.acked.max(seq);
                }
            }
        }
    }

    fn heard(&mut self, record: LeaseRecord, told: Option<Deadlines>) {
        if self.newest.as_ref().is_some_and(|(newest, _)| record.seq < newest.seq) {
            return;
        }
        if let (Stand::Running { token, until }, Told::Active, Some(told)) = (&mut self.stand, record.state, told)
            && record.token.as_ref() == Some(token)
        {
            // I15: a deadline never moves back within a turn.
            *until = until.extended_by(told);
        }
        self.newest = Some((record, told));
    }

    fn stop(&mut self, latest: Boot, code: Option<u8>, asked: bool, now: Boot) {
        if let Stand::Running { token, until } = &self.stand {
            let kill_at = until.hard.min(latest);
            self.stand = Stand::Stopping { token: token.clone(), kill_at, termed: false, next_kill: now, code, asked };
        }
    }

    /// Decides, and notes what is begun by it.
    pub fn next(&mut self, now: Boot) -> Step {
        if let Stand::Running { .. } = &self.stand
            && let Some(latest) = self.must_stop(now)
        {
            self.stop(latest, None, true, now);
        }
        match &mut self.stand {
            Stand::Stopping { termed: termed @ false, .. } => {
                *termed = true;
                return Step::Term;
            }
            Stand::Stopping { kill_at, next_kill, .. } if now >= (*kill_at).max(*next_kill) => {
                *next_kill = now.plus(KILL_AGAIN);
                return Step::Kill;
            }
            Stand::Idle | Stand::Running { .. } | Stand::Stopping { .. } | Stand::Ended { .. } => {}
        }
        if let Some(token) = self.may_start(now) {
            return Step::Start(token);
        }
        if let Some(ack) = self.ack_due(now) {
            self.acking = true;
            return ack;
        }
        match self.exit() {
            Some(code) => Step::Exit(code),
            None => Step::Wait(self.wake(now)),
        }
    }

    /// Until when the command may still take to end, if it has to.
    fn must_stop(&self, now: Boot) -> Option<Boot> {
        let Stand::Running { token, until } = &self.stand else { return None };
        let (told, theirs) = self.newest.as_ref().map(|(record, _)| (record.state, record.token.as_ref()))?;
        let fenced = told == Told::Fenced || theirs.is_some_and(|theirs| theirs != token);
        // Somebody else may be at work: nothing to be polite about.
        if fenced {
            return Some(now);
        }
        let stop = told != Told::Active || now >= until.soft || self.terminated;
        stop.then_some(until.hard)
    }

    fn may_start(&self, now: Boot) -> Option<String> {
        let last = match &self.stand {
            Stand::Idle => None,
            Stand::Ended { token, asked: true, .. } if self.restart => Some(token),
            Stand::Running { .. } | Stand::Stopping { .. } | Stand::Ended { .. } => return None,
        };
        if self.terminated || self.failure.is_some() {
            return None;
        }
        let (record, until) = self.newest.as_ref()?;
        // A1. A token stands for one life of the command: its old life may have a COMMIT in flight.
        let new = record.state == Told::Active && record.token.as_ref() != last;
        let in_time = until.is_some_and(|until| now < until.soft);
        record.token.clone().filter(|_| new && in_time)
    }

    fn ack_due(&self, now: Boot) -> Option<Step> {
        let (record, _) = self.newest.as_ref()?;
        if self.acking || record.seq <= self.acked || now < self.ack_not_before {
            return None;
        }
        let told_to_work = record.state == Told::Active;
        let (state, in_flight, detail) = match (&self.stand, told_to_work) {
            (Stand::Running { token, .. }, true) if record.token.as_ref() == Some(token) => {
                (AckState::Started, 1, String::new())
            }
            (Stand::Ended { token, code, .. }, true) if record.token.as_ref() == Some(token) => {
                (AckState::Failed, 0, format!("the command has ended with code {code}, and lives once under a token"))
            }
            (Stand::Idle | Stand::Ended { .. }, true) => {
                (AckState::Failed, 0, self.failure.as_ref().map(|(_, reason)| reason.clone())?)
            }
            // A4: only with no descendant left.
            (Stand::Idle | Stand::Ended { .. }, false) => (AckState::Quiesced, 0, String::new()),
            (Stand::Running { .. } | Stand::Stopping { .. }, _) => return None,
        };
        Some(Step::Ack { seq: record.seq, token: record.token.clone(), state, in_flight, detail })
    }

    /// The code to end with, once nothing is left to say.
    fn exit(&self) -> Option<u8> {
        let newest = self.newest.as_ref().map_or(0, |(record, _)| record.seq);
        let heard = self.tried >= newest || self.acked >= newest;
        if self.acking {
            return None;
        }
        match (&self.stand, &self.failure) {
            (Stand::Idle | Stand::Ended { .. }, Some((code, _))) if heard => Some(*code),
            (Stand::Idle, None) if self.terminated => Some(0),
            (Stand::Ended { code, asked, token }, None) => {
                let same = self
                    .newest
                    .as_ref()
                    .is_some_and(|(record, _)| record.state == Told::Active && record.token.as_ref() == Some(token));
                // By itself: nothing needs to be said, the agent sees the process end. Told to go on under the old
                // token: only a new process brings a new one.
                let over = !self.restart && heard || !asked || same && heard || self.terminated;
                over.then_some(*code)
            }
            (Stand::Idle | Stand::Running { .. } | Stand::Stopping { .. } | Stand::Ended { .. }, _) => None,
        }
    }

    fn wake(&self, now: Boot) -> Option<Boot> {
        let stand = match &self.stand {
            Stand::Running { until, .. } => Some(until.soft),
            Stand::Stopping { kill_at, next_kill, .. } => Some((*kill_at).max(*next_kill)),
            Stand::Idle | Stand::Ended { .. } => None,
        };
        [stand, Some(self.ack_not_before)].into_iter().flatten().filter(|moment| *moment > now).min()
    }
}

#[cfg(test)]
mod tests;
