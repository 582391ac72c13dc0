//! The wrapper at work: one loop over [`next`](super::next), which decides.

use std::ffi::OsString;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::ask::{Agent, AskError, deadlines, same_clock};
use super::child::{self, ChildError};
use super::next::{Core, Event, Step};
use super::tree;
use crate::lease::clock::{ClockError, ClockIdentity, boot_now, identity};
use crate::lease::deadline::Boot;
use crate::lease::record::Ack;

/// One wait at the agent.
const LONG_POLL: Duration = Duration::from_secs(10);
/// With another clock a record counts from the sending of the question, so the question must not wait.
const SHORT_POLL: Duration = Duration::from_millis(500);
/// Rest after a question without an answer.
const REST: Duration = Duration::from_millis(200);
/// Timers run on CLOCK_MONOTONIC, which a suspend stops and CLOCK_BOOTTIME does not: the deadline is looked at this often.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);
/// The agent calls its services: nothing can be acknowledged on the socket.
const METHOD_NOT_ALLOWED: u16 = 405;

/// The wrapper cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The command.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The kernel.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
    /// The agent does not take acknowledgements.
    #[error("{0}")]
    CallMode(String),
}

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Order {
    /// Whom to ask.
    pub agent: Agent,
    /// The command with its arguments.
    pub command: Vec<OsString>,
    /// Run it again with the next token after it was asked to stop.
    pub restart: bool,
}

/// News for the loop.
enum News {
    Event(Event),
    CallMode(String),
}

/// Runs the command while the instance holds the lease. Must be called on the process's main thread, with a runtime of
/// one thread. Returns the exit code for the process.
///
/// # Errors
/// [`WrapError`], before the command was started.
pub async fn run(order: Order) -> Result<u8, WrapError> {
    if let Some(name) = order.command.first() {
        child::check(name)?;
    }
    tree::become_subreaper().map_err(|error| WrapError::System("become the subreaper of the command", error))?;
    let listen = |kind| signal(kind).map_err(|error| WrapError::System("listen for signals", error));
    let signals = [listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?];
    let child_ended = listen(SignalKind::child())?;
    let clock = identity()?;
    let (news, inbox) = unbounded_channel();
    let reader = tokio::spawn(read(order.agent.clone(), clock, news.clone()));
    let wrapper = Wrapper { core: Core::new(order.restart), order, leader: None, news };
    let code = wrapper.go(inbox, signals, child_ended).await;
    reader.abort();
    code
}

struct Wrapper {
    core: Core,
    order: Order,
    /// The command's process, until it is reaped.
    leader: Option<i32>,
    news: UnboundedSender<News>,
}

impl Wrapper {
    async fn go(
        mut self,
        mut inbox: UnboundedReceiver<News>,
        [mut terminate, mut interrupt, mut hangup]: [Signal; 3],
        mut child_ended: Signal,
    ) -> Result<u8, WrapError> {
        loop {
            self.reap(boot_now()?)?;
            let until = match self.lap()? {
                Lap::Exit(code) => return Ok(code),
                Lap::Wait(until) => until,
            };
            let now = boot_now()?;
            let sleep = until.map_or(LONGEST_SLEEP, |until| until.since(now).min(LONGEST_SLEEP));
            tokio::select! {
                biased;
                _ = terminate.recv() => self.core.apply(Event::Terminated, now),
                _ = interrupt.recv() => self.core.apply(Event::Terminated, now),
                _ = hangup.recv() => self.core.apply(Event::Terminated, now),
                _ = child_ended.recv() => {}
                Some(news) = inbox.recv() => match news {
                    News::Event(event) => self.core.apply(event, boot_now()?),
                    News::CallMode(text) => return Err(WrapError::CallMode(text)),
                },
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    fn reap(&mut self, now: Boot) -> Result<(), WrapError> {
        let reaped = tree::reap().map_err(|error| WrapError::System("wait for processes", error))?;
        for (pid, code) in reaped.ended {
            if self.leader == Some(pid) {
                self.leader = None;
                tracing::info!(code, "the command has ended");
                self.core.apply(Event::LeaderEnded(code), now);
            }
        }
        if reaped.empty {
            self.core.apply(Event::Empty, now);
        }
        Ok(())
    }

    /// Steps until there is nothing to do but to wait.
    fn lap(&mut self) -> Result<Lap, WrapError> {
        loop {
            // Read anew before each step: the start's own check of the deadline is the last thing before it (A1).
            let now = boot_now()?;
            match self.core.next(now) {
                Step::Wait(until) => return Ok(Lap::Wait(until)),
                Step::Exit(code) => return Ok(Lap::Exit(code)),
                Step::Start(token) => {
                    let event = match child::start(&self.order.command, &token) {
                        Ok(pid) => {
                            tracing::info!(token, pid, "holds the lease: the command is started");
                            self.leader = Some(pid);
                            Event::Started
                        }
                        Err(error) => {
                            tracing::error!(error = crate::report::chain(&error), "the command cannot be started");
                            Event::NotStarted(error.code(), crate::report::chain(&error))
                        }
                    };
                    self.core.apply(event, now);
                }
                Step::Term => {
                    tracing::info!("the command is to stop: SIGTERM");
                    complain("SIGTERM", tree::terminate(self.leader));
                }
                Step::Kill => {
                    tracing::warn!("the command has not stopped in time: SIGKILL for all that is left");
                    complain("SIGKILL", tree::kill());
                    return Ok(Lap::Wait(None));
                }
                Step::Ack { seq, token, state, in_flight, detail } => {
                    self.acknowledge(Ack { in_flight, detail, ..Ack::new(token, seq, state) });
                }
            }
        }
    }

    fn acknowledge(&self, ack: Ack) {
        let (agent, news) = (self.order.agent.clone(), self.news.clone());
        drop(tokio::spawn(async move {
            let said = match agent.acknowledge(&ack).await {
                Ok(()) => News::Event(Event::Acked { seq: ack.seq, taken: true }),
                Err(AskError::Refused { status: METHOD_NOT_ALLOWED, text }) => News::CallMode(text),
                Err(error) => {
                    tracing::debug!(error = crate::report::chain(&error), "an acknowledgement was not taken");
                    News::Event(Event::Acked { seq: ack.seq, taken: false })
                }
            };
            // Nobody listens only when the wrapper is ending.
            drop(news.send(said));
        }));
    }
}

enum Lap {
    Wait(Option<Boot>),
    Exit(u8),
}

fn complain(what: &str, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::error!(%error, "{what} did not reach all of the command's processes; it is sent again");
    }
}

/// Asks for ever, and passes on what is new.
async fn read(agent: Agent, clock: ClockIdentity, news: UnboundedSender<News>) {
    let mut newest: Option<(u64, Duration)> = None;
    let mut trouble = String::new();
    loop {
        match agent.record(newest).await {
            Ok((record, sent)) => {
                trouble.clear();
                let same = same_clock(&record, &clock);
                newest = same.then_some((record.seq, LONG_POLL));
                let until = deadlines(&record, &clock, sent);
                if news.send(News::Event(Event::Heard(record, until))).is_err() {
                    return;
                }
                if !same {
                    tokio::time::sleep(SHORT_POLL).await;
                }
            }
            Err(error) => {
                let text = crate::report::chain(&error);
                if text != trouble {
                    tracing::warn!(error = text, "no record: what was told before stands until its deadline");
                    trouble = text;
                }
                tokio::time::sleep(REST).await;
            }
        }
    }
}
