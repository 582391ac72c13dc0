//! What the hosts share that is not simulated: the database with its fence, the checkers, and what outlives a process.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use handover_agent::lease::deadline::Boot;
use handover_agent::lease::memory::Memory;
use handover_tests::sim::check::Check;
use handover_tests::sim::check::dark::Dark;
use handover_tests::sim::check::fence::Fence;
use handover_tests::sim::check::single::Single;
use handover_tests::sim::check::ticks::Ticks;
use handover_tests::sim::fact::{Fact, Token, Who};

/// True time.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

pub(crate) fn boot() -> Boot {
    // Far enough from the boot that no deadline is cut off at its zero.
    Boot::from_ns(1_000_000_000_000).plus(now())
}

/// One host's past.
#[derive(Default)]
pub(crate) struct Past {
    pub(crate) lives: u32,
    pub(crate) disk: Option<Memory>,
    pub(crate) working: Option<Who>,
}

pub(crate) struct Inner {
    checks: Vec<Box<dyn Check + Send>>,
    pub(crate) violation: Option<String>,
    stored: Option<Token>,
    ticks: u64,
    pub(crate) units: u64,
    pub(crate) turns: u64,
    pub(crate) pasts: Vec<Past>,
}

#[derive(Clone)]
pub(crate) struct Site(Arc<Mutex<Inner>>);

impl Site {
    pub(crate) fn new(hosts: usize) -> Self {
        let checks: Vec<Box<dyn Check + Send>> =
            vec![Box::<Single>::default(), Box::<Fence>::default(), Box::<Ticks>::default(), Box::new(Dark::new(None))];
        let pasts = (0..hosts).map(|_| Past::default()).collect();
        let (stored, violation) = (None, None);
        Self(Arc::new(Mutex::new(Inner { checks, violation, stored, ticks: 0, units: 0, turns: 0, pasts })))
    }

    pub(crate) fn get(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("nobody panics with it")
    }

    pub(crate) fn see(&self, at: Duration, fact: &Fact) {
        let inner = &mut *self.get();
        for check in &mut inner.checks {
            if let Err(what) = check.see(at.as_micros() as u64, fact) {
                inner.violation.get_or_insert(format!("{} at {at:?}: {what}", check.name()));
            }
        }
    }

    /// Makes `token` the valid one; false: a newer one stands there.
    pub(crate) fn install(&self, who: Who, token: Token) -> bool {
        let stored = self.get().stored;
        if stored.is_some_and(|stored| stored > token) {
            return false;
        }
        if stored != Some(token) {
            let inner = &mut *self.get();
            inner.stored = Some(token);
            inner.turns += 1;
        }
        if stored != Some(token) {
            self.see(now(), &Fact::Installed { who, token });
        }
        true
    }

    pub(crate) fn stored(&self) -> Option<Token> {
        self.get().stored
    }

    pub(crate) fn begin(&self, host: usize, who: Who, token: Token) {
        self.see(now(), &Fact::Began { who, token, knew: 0 });
        let inner = &mut *self.get();
        inner.pasts[host].working = Some(who);
        inner.units += 1;
    }

    /// Ends a unit; its effect counts if its token is still the valid one.
    pub(crate) fn end(&self, host: usize, who: Who, token: Token) {
        self.see(now(), &Fact::Ended { who });
        let tick = {
            let inner = &mut *self.get();
            inner.pasts[host].working = None;
            inner.ticks += u64::from(inner.stored == Some(token));
            (inner.stored == Some(token)).then_some(inner.ticks)
        };
        if let Some(tick) = tick {
            self.see(now(), &Fact::Committed { who, token, tick });
        }
    }

    /// The host is gone, with whatever it was doing. From outside of the simulation.
    pub(crate) fn lost(&self, host: usize, at: Duration) {
        let working = self.get().pasts[host].working.take();
        if let Some(who) = working {
            self.see(at, &Fact::Ended { who });
        }
    }
}
