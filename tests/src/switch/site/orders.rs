//! Assignments, written into the store as a coordinator would.

use std::time::{Duration, Instant};

use anyhow::Result;
use handover_proto::assignment::{Assignment, Cause, DrainPolicy, LeaseRules, LeaseWish, Route, SlotWish, Upstream};
use handover_proto::ids::SlotId;
use handover_proto::keys::EnvKeys;
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::encode;
use handover_proto::txn::{Op, Txn};

use super::{DONE, SLOTS, Site, VERSIONS, config};

impl Site {
    /// From now on drains have this policy.
    pub fn set_drain(&mut self, drain: DrainPolicy) {
        self.drain = drain;
    }

    /// All traffic goes to the other instance.
    ///
    /// # Errors
    /// If the store does not take it.
    pub fn switch(&mut self) -> Result<()> {
        self.serving = 1 - self.serving;
        self.assign()
    }

    /// The instance without traffic is drained and stopped.
    ///
    /// # Errors
    /// If the store does not take it.
    pub fn stop_idle(&mut self) -> Result<()> {
        self.both = false;
        self.assign()
    }

    /// It is started again.
    ///
    /// # Errors
    /// If the store does not take it.
    pub fn start_idle(&mut self) -> Result<()> {
        self.both = true;
        self.assign()
    }

    pub(super) fn assign(&mut self) -> Result<()> {
        let wish = |index: usize| {
            let lifecycle = if index == self.serving { Lifecycle::Serving } else { Lifecycle::Ready };
            Ok::<_, anyhow::Error>((
                SLOTS[index].parse::<SlotId>()?,
                SlotWish { version: VERSIONS[index].parse()?, lifecycle, lease: LeaseWish::Never },
            ))
        };
        let slots = (0..2).filter(|index| self.both || *index == self.serving).map(wish).collect::<Result<_>>()?;
        let to = Upstream::Slot(SLOTS[self.serving].parse()?);
        let assignment = Assignment {
            v: 1,
            term: Term::new(Era(0), 1)?,
            cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
            slots,
            routes: vec![Route { to, reads: 100, writes: 100 }],
            drain: self.drain,
            leaving: false,
            lease: LeaseRules::default(),
            hooks: Vec::new(),
            fallback: None,
        };
        let key = EnvKeys::new(&config::ENV.parse()?).service(&"billing".parse()?).assigned(&config::AGENT.parse()?);
        let txn = Txn { then: vec![Op::put(key, encode(&assignment)?)], ..Txn::default() };
        let end = Instant::now() + DONE;
        loop {
            match self.runtime.block_on(self.store.txn(&txn)) {
                Ok(reply) => self.serial = reply.revision,
                Err(_) if Instant::now() < end => {
                    // The store is just starting.
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            return Ok(());
        }
    }
}
