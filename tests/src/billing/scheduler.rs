//! The scheduler: one thread that listens and works in turn, so that an answer is never given with a unit in flight (A4).
//!
//! Each lap: note on which side of the right we are, wait for a message or the next due tick, then run at most one unit.
//! The right is asked immediately before the unit (A1); the unit's commit is refused after the hard deadline (A2).

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::billing::activity::{Activity, Event, UnitEnd, Why};
use crate::billing::contract::{Ack, Answer, Deadline, LeaseRecord, Token, Told};
use crate::billing::faults::{Faults, Watched};
use crate::billing::ledger::{Installed, Ledger, LedgerError};
use crate::billing::mistakes::Mistakes;
use crate::billing::right::{Ended, Heard, Right, Standing};
use crate::chain::chain;
use crate::clock::BootNs;

/// Longest wait without a message; any length would do, since a message ends it.
const IDLE: Duration = Duration::from_secs(3600);

/// What the scheduler is told.
#[derive(Debug)]
pub enum Message {
    /// A record of the agent, with its deadline on our clock.
    Heard {
        /// The record.
        record: Box<LeaseRecord>,
        /// Its deadline.
        deadline: Deadline,
        /// Where the answer goes; a pulled record wants none.
        reply: Option<oneshot::Sender<Ack>>,
    },
    /// The process ends: start no unit, then return.
    Close,
}

/// What the rest of the service sees of the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View {
    /// Held, if only until the deadline: worth pulling for.
    pub holding: Option<Token>,
    /// The last right ended because somebody else's token was higher.
    pub fenced: bool,
    /// Units under way: one or none.
    pub in_flight: u32,
    /// Units that have ended.
    pub progress: u64,
}

/// Numbers that the scheduler works with.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From tick to tick.
    pub period: Duration,
    /// The longest unit, as declared to the agent.
    pub c_unit: Duration,
    /// Progress grows at least this often while a unit runs, as declared to the agent.
    pub progress: Duration,
    /// The ledger waits for its lock no longer than this.
    pub statement: Duration,
}

impl Pace {
    /// The answer to `record`, as far as it follows from these numbers and what the scheduler shows of itself.
    pub fn ack(&self, record: &LeaseRecord, state: Answer, view: View) -> Ack {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Ack {
            v: 1,
            token: record.token,
            seq: record.seq,
            state,
            in_flight: view.in_flight,
            c_unit_ms: ms(self.c_unit),
            progress: view.progress,
            progress_interval_ms: ms(self.progress),
            stored_token: None,
            statement_timeout_ms: ms(self.statement),
            detail: String::new(),
        }
    }
}

/// The scheduler of one process.
#[derive(Debug)]
pub struct Scheduler {
    right: Right,
    ledger: Ledger,
    activity: Activity,
    faults: Watched,
    mistakes: Mistakes,
    pace: Pace,
    view: watch::Sender<View>,
    /// The interval of activity that is open in the activity file, with the last soft deadline seen in it.
    open: Option<(Token, BootNs)>,
    schedule: Option<Installed>,
    /// Units under way and ended.
    in_flight: u32,
    progress: u64,
    last_unit_end: BootNs,
    not_before: BootNs,
    /// Of the planted mistake to start before the install.
    install_later: Option<Token>,
}

impl Scheduler {
    /// A scheduler that does nothing until it is told to (A5).
    pub fn new(ledger: Ledger, activity: Activity, faults: Watched, pace: Pace, view: watch::Sender<View>) -> Self {
        let (right, open, schedule) = (Right::none(), None, None);
        let (last_unit_end, not_before) = (BootNs::default(), BootNs::default());
        let (in_flight, progress) = (0, 0);
        let mistakes = Mistakes::planted();
        Self {
            right,
            ledger,
            activity,
            faults,
            mistakes,
            pace,
            view,
            open,
            schedule,
            in_flight,
            progress,
            last_unit_end,
            not_before,
            install_later: None,
        }
    }

    /// Works until it is told to close or nobody can tell it anything any more. Blocks.
    ///
    /// # Errors
    /// When the activity file cannot be written.
    pub fn run(mut self, inbox: &Receiver<Message>) -> std::io::Result<()> {
        loop {
            self.note_edges(Why::Silence)?;
            match inbox.recv_timeout(self.wait(BootNs::now())) {
                Ok(Message::Heard { record, deadline, reply }) => self.hear(&record, deadline, reply)?,
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => {
                    self.right.end(Ended::Told(Told::Stopped));
                    return self.note_edges(Why::Terminated);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.work()?;
        }
    }

    fn hear(
        &mut self,
        record: &LeaseRecord,
        deadline: Deadline,
        reply: Option<oneshot::Sender<Ack>>,
    ) -> std::io::Result<()> {
        self.note_edges(Why::Silence)?;
        if self.mistakes.lies_quiesced && record.state != Told::Active && self.right.may_start(BootNs::now()).is_some()
        {
            self.acknowledge(record, reply, Answer::Quiesced, "not true".to_owned());
            return Ok(());
        }
        let (state, detail) = match self.right.hear(record, deadline) {
            Heard::Install { token, deadline } if self.mistakes.starts_before_install && self.schedule.is_some() => {
                self.install_later = Some(token);
                self.right.installed(token, deadline);
                (Answer::Started, String::new())
            }
            Heard::Install { token, deadline } => {
                self.note_edges(Why::Stopped)?;
                self.install(token, deadline)
            }
            Heard::Extended => (Answer::Started, String::new()),
            Heard::Ended => (Answer::Quiesced, String::new()),
            Heard::Refused(refusal) => (Answer::Failed, refusal.to_string()),
        };
        // The edge is in the file before the agent hears of it, so a successor's interval cannot begin before ours ended.
        self.note_edges(why(record.state))?;
        self.acknowledge(record, reply, state, detail);
        Ok(())
    }

    fn acknowledge(
        &mut self,
        record: &LeaseRecord,
        reply: Option<oneshot::Sender<Ack>>,
        state: Answer,
        detail: String,
    ) {
        let Some(reply) = reply else { return };
        let stored_token = self.ledger.stored_token().unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "the stored token is not known");
            None
        });
        // An agent that hung up will ask again; what it asked for is done all the same.
        let _ = reply.send(Ack { stored_token, detail, ..self.pace.ack(record, state, self.seen()) });
    }

    fn install(&mut self, token: Token, deadline: Deadline) -> (Answer, String) {
        match self.ledger.install(token, self.pace.period, BootNs::now()) {
            Ok(installed) => {
                self.schedule = Some(installed);
                self.not_before = BootNs::default();
                self.right.installed(token, deadline);
                if let Some(leak) = self.faults.now().leak_in_turn {
                    leak.start();
                }
                (Answer::Started, String::new())
            }
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(%token, error, "install refused");
                (Answer::Failed, error)
            }
        }
    }

    /// A1, unless a mistake is planted.
    fn may_start(&self, now: BootNs) -> Option<(Token, Deadline)> {
        if !self.mistakes.ignores_deadline {
            return self.right.may_start(now);
        }
        let never = Deadline { soft: BootNs(u64::MAX), hard: BootNs(u64::MAX) };
        self.right.may_start(BootNs::default()).map(|(token, _)| (token, never))
    }

    /// How long nothing can happen without a message.
    fn wait(&self, now: BootNs) -> Duration {
        match (self.may_start(now), self.schedule) {
            (Some((_, deadline)), Some(next)) => {
                let due = next.schedule.due(next.next_tick).max(self.not_before);
                due.min(deadline.soft).since(now)
            }
            _ => IDLE,
        }
    }

    /// Runs the next unit if there is a right to and it is due.
    fn work(&mut self) -> std::io::Result<()> {
        let Some(next) = self.schedule else { return Ok(()) };
        let now = BootNs::now();
        if now < next.schedule.due(next.next_tick).max(self.not_before) {
            return Ok(());
        }
        let Some((token, deadline)) = self.may_start(now) else { return Ok(()) };
        self.activity.note(now, token, Event::UnitStart { tick: next.next_tick })?;
        self.in_flight = 1;
        self.publish();
        let charged = self.ledger.charge(token, deadline.hard, || Faults::in_unit(&self.faults));
        let end = match &charged {
            Ok(_) => UnitEnd::Charged,
            Err(LedgerError::Fenced { .. }) => UnitEnd::Fenced,
            Err(LedgerError::TooLate { .. }) => UnitEnd::TooLate,
            Err(LedgerError::OtherPeriod { .. } | LedgerError::Database { .. } | LedgerError::Address(_)) => {
                UnitEnd::Failed
            }
        };
        if let Some(token) = self.install_later.take() {
            self.install(token, deadline);
        }
        self.last_unit_end = BootNs::now();
        (self.in_flight, self.progress) = (0, self.progress + 1);
        self.publish();
        self.activity.note(self.last_unit_end, token, Event::UnitEnd { tick: next.next_tick, end })?;
        match charged {
            Ok(tick) => self.schedule = Some(Installed { next_tick: tick + 1, ..next }),
            Err(error) => {
                tracing::warn!(%token, tick = next.next_tick, error = chain(&error), "unit aborted");
                self.not_before = self.last_unit_end.after(self.pace.period);
            }
        }
        if end == UnitEnd::Fenced {
            self.right.fenced();
            self.note_edges(Why::Fenced)?;
        }
        Ok(())
    }

    /// Writes the begin or end of an interval of activity if the right has changed, and publishes the view.
    fn note_edges(&mut self, why: Why) -> std::io::Result<()> {
        let now = BootNs::now();
        let may = self.may_start(now);
        if let Some((token, soft)) = self.open
            && may.is_none_or(|(current, _)| current != token)
        {
            // The right ended at the soft deadline even if we look later, unless a unit ran beyond it.
            let over = soft.max(self.last_unit_end).min(now);
            let why = if soft <= now { Why::Silence } else { why };
            self.activity.note(over, token, Event::Inactive { why })?;
            self.open = None;
        }
        if let Some((token, deadline)) = may {
            if self.open.is_none() {
                self.activity.note(now, token, Event::Active)?;
            }
            self.open = Some((token, deadline.soft));
        }
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        let view = self.seen();
        self.view.send_if_modified(|seen| std::mem::replace(seen, view) != view);
    }

    fn seen(&self) -> View {
        let (holding, fenced) = match self.right.standing() {
            Standing::Active { token, .. } => (Some(token), false),
            Standing::Ended { why: Ended::FencedByLedger | Ended::Told(Told::Fenced), .. } => (None, true),
            Standing::Ended { .. } | Standing::Stopped => (None, false),
        };
        View { holding, fenced, in_flight: self.in_flight, progress: self.progress }
    }
}

fn why(told: Told) -> Why {
    match told {
        Told::Quiesce => Why::Quiesced,
        Told::Fenced => Why::Fenced,
        Told::Unknown => Why::Unknown,
        Told::Active | Told::Stopped => Why::Stopped,
    }
}
