//! Whether host and service are fit for a lease with these numbers (`SAFETY.md` §1.8, K4 to K6 and `c_kill`). What is not
//! fit takes no turn, and says so with the numbers; one that holds goes on, since stopping it would help nobody.

use std::time::Duration;

use handover_proto::numbers::Token;

use super::deadline::Boot;
use super::local::{Local, Service};
use super::record::Ack;
use super::settings::LeaseSettings;
use super::state::Core;

/// What the agent found out about its host and itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    /// How long a kill takes.
    pub kill: KillTime,
    /// Whoever watches the agent restarts it after so much silence; none: nobody does.
    pub watchdog: Option<Duration>,
    /// When this agent process was started; none: not known.
    pub began: Option<Boot>,
}

/// How long it takes to end a tree of processes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KillTime {
    /// Not tried here: `c_kill` is taken as configured.
    #[default]
    Assumed,
    /// Being tried.
    UnderWay,
    /// The longest try.
    Took(Duration),
    /// It could not be tried, or a try ended without a proof.
    Failed(String),
}

/// What a service says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Declared {
    progress_interval: Option<Duration>,
    statement_timeout: Option<Duration>,
}

/// Why host and service are not fit for a lease with these numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// K4.
    #[error(
        "a change of config: the service reports progress every {declared:?}, and half of a unit of {c_unit:?} is {half:?} \
         (K4); report more often, or raise c_unit", half = *c_unit / 2
    )]
    Progress {
        /// By the service.
        declared: Duration,
        /// The longest unit.
        c_unit: Duration,
    },
    /// K6.
    #[error(
        "a change of config: the service's database ends a statement after {declared:?}, and a unit may take {c_unit:?} \
         (K6); lower statement_timeout and idle_in_transaction_session_timeout, or raise c_unit"
    )]
    Statement {
        /// By the service.
        declared: Duration,
        /// The longest unit.
        c_unit: Duration,
    },
    /// The kill is being tried.
    #[error("the trial of how long a kill takes on this host")]
    KillUnderWay,
    /// It takes too long.
    #[error(
        "an operator: ending a tree of processes took up to {took:?} on this host, and half of c_kill {c_kill:?} is \
         {half:?}; relieve the host, or raise c_kill", half = *c_kill / 2
    )]
    KillSlow {
        /// The longest try.
        took: Duration,
        /// As configured.
        c_kill: Duration,
    },
    /// It cannot be tried.
    #[error("an operator: how long a kill takes on this host could not be tried: {0}")]
    KillUntried(String),
    /// K5.
    #[error(
        "an operator: the agent's watchdog waits {watchdog:?}, and a third of ttl {ttl:?} is {third:?} (K5); lower \
         WatchdogSec in the agent's unit, or raise ttl", third = *ttl / 3
    )]
    Watchdog {
        /// Of whoever watches.
        watchdog: Duration,
        /// T.
        ttl: Duration,
    },
    /// K5.
    #[error(
        "an operator: this agent's last restart took {took:?} up to its first renewal, and a holder may miss renewals for \
         {limit:?} (K5); find out why it starts slowly, or raise ttl"
    )]
    Restart {
        /// From the start of the process to the first accepted renewal.
        took: Duration,
        /// (D_soft − base) − i.
        limit: Duration,
    },
}

impl Core {
    /// The same, with what is known of the host.
    #[must_use]
    pub fn on_host(self, host: HostFacts) -> Self {
        Self { host, ..self }
    }

    /// Takes in how long a kill takes.
    pub(super) fn kill_tried(&mut self, kill: KillTime) {
        self.host.kill = kill;
    }

    /// Why `local` may take no turn for its own or its host's sake.
    pub(super) fn unfit(&self, local: &Local) -> Option<Unfit> {
        let settings = &self.settings;
        self.host.unfit(settings).or_else(|| local.service.declared.unfit(settings, local.service.c_unit)).or_else(
            || {
                let (took, limit) = (self.restarted_in?, settings.restart_limit());
                (took > limit).then_some(Unfit::Restart { took, limit })
            },
        )
    }

    /// Notes a renewal: the first of a turn that an earlier agent process held ends this agent's restart.
    pub(super) fn note_renewal(&mut self, inherits: bool, now: Boot) {
        if let Some(began) = self.host.began.take().filter(|_| inherits) {
            self.restarted_in = Some(now.since(began));
        }
    }
}

impl HostFacts {
    fn unfit(&self, settings: &LeaseSettings) -> Option<Unfit> {
        let (c_kill, ttl) = (settings.c_kill, settings.ttl);
        if let Some(watchdog) = self.watchdog.filter(|watchdog| *watchdog > ttl / 3) {
            return Some(Unfit::Watchdog { watchdog, ttl });
        }
        match &self.kill {
            KillTime::Took(took) if *took > c_kill / 2 => Some(Unfit::KillSlow { took: *took, c_kill }),
            KillTime::Assumed | KillTime::Took(_) => None,
            KillTime::UnderWay => Some(Unfit::KillUnderWay),
            KillTime::Failed(reason) => Some(Unfit::KillUntried(reason.clone())),
        }
    }
}

impl Declared {
    fn unfit(self, settings: &LeaseSettings, c_unit: Option<Duration>) -> Option<Unfit> {
        // Whoever declares a shorter unit than the config allows is held to it.
        let c_unit = c_unit.unwrap_or(settings.c_unit).min(settings.c_unit);
        let progress = self.progress_interval.filter(|declared| *declared > c_unit / 2);
        let statement = self.statement_timeout.filter(|declared| *declared > c_unit);
        progress
            .map(|declared| Unfit::Progress { declared, c_unit })
            .or(statement.map(|declared| Unfit::Statement { declared, c_unit }))
    }
}

impl Service {
    /// Takes in what an answer says of the service. What it leaves out stands as it was.
    pub(super) fn declares(&mut self, ack: &Ack) {
        let ms = |value: Option<u64>| value.map(Duration::from_millis);
        self.c_unit = ms(ack.c_unit_ms).or(self.c_unit);
        self.declared.progress_interval = ms(ack.progress_interval_ms).or(self.declared.progress_interval);
        let stored = ack.stored_token.as_deref().and_then(|text| text.parse().ok()).map(Token::from_wire);
        self.stored_token = stored.or(self.stored_token);
        self.declared.statement_timeout = ms(ack.statement_timeout_ms).or(self.declared.statement_timeout);
    }
}
