//! A fleet whose holder and hosts do as they are asked, when the test says so.

use std::time::Duration;

use handover::core::fleet::{Assigned, Fleet};
use handover::core::next::{Ask, Now};
use handover::core::staging::{self, Requested};
use handover::core::standing::freeze::FreezeAsk;
use handover::core::standing::give::{Refused, Request, cancel, give};
use handover::core::standing::next::{Change, Step, next};
use handover::core::standing::{Freeze, Habits, Outcome, Phase, RunningRollout, Scene, StandingOrder, What};
use handover_proto::assignment::{Assignment, AtDeadline, DrainPolicy};
use handover_proto::blocker::BlockerKind;
use handover_proto::lease::{Free, HolderState, Intent, LeaseCause, StopProof};
use handover_proto::numbers::Serial;

use crate::world::{agent, candidate, hold, instance_id, obey, owner, seen, serving_fleet, slot, term};

/// When the order is given.
pub(super) const GIVEN: u64 = 1_000_000;

pub(super) struct Stage {
    pub(super) fleet: Fleet,
    pub(super) order: Option<StandingOrder>,
    pub(super) others: Vec<StandingOrder>,
    pub(super) rollout: Option<RunningRollout>,
    pub(super) freeze: Option<Freeze>,
    pub(super) alarms: Vec<String>,
    pub(super) quiet: Duration,
    pub(super) now: Now,
    revision: i64,
}

impl Stage {
    /// Three hosts serve 1.0.0; `holder` holds and works, the others are ready candidates.
    pub(super) fn new(holder: u8) -> Self {
        let mut fleet = serving_fleet(3);
        for number in 1..=3 {
            let owner = owner(&agent(number), "a", "1.0.0");
            fleet.lease.candidates.insert(owner.instance.clone(), seen(candidate(owner), 60));
        }
        hold(&mut fleet.lease, &agent(holder), "a", "1.0.0", 50);
        let now = Now { wall_ms: GIVEN, boot: Duration::from_secs(100), term: term() };
        Self {
            fleet,
            order: None,
            others: Vec::new(),
            rollout: None,
            freeze: None,
            alarms: Vec::new(),
            quiet: Duration::from_secs(60),
            now,
            revision: 100,
        }
    }

    fn habits() -> Habits {
        let drain = DrainPolicy { deadline_ms: 30_000, at_deadline: AtDeadline::Wait, over_all: false };
        Habits { min_serving: 2, quiesce: Duration::from_secs(5), drain }
    }

    fn with<T>(&self, look: impl FnOnce(&Scene<'_>) -> T) -> T {
        let habits = Self::habits();
        look(&Scene {
            fleet: &self.fleet,
            rollout: self.rollout.as_ref(),
            freeze: self.freeze.as_ref(),
            alarms: &self.alarms,
            others: &self.others,
            habits: &habits,
            quiet: self.quiet,
            now: self.now,
        })
    }

    pub(super) fn try_give(&self, what: What, at: Option<(u64, u64)>) -> Result<Change, Refused> {
        let op = "00000000000000cc".parse().expect("an op");
        let request = Request { op, what, by: "ann".into(), because: "a test".into(), at };
        self.with(|scene| give(request, 7, scene))
    }

    pub(super) fn give(&mut self, what: What) -> &mut Self {
        let change = self.try_give(what, None).expect("it makes sense");
        self.write(change)
    }

    pub(super) fn give_at(&mut self, what: What, due_ms: u64, late_ms: u64) -> &mut Self {
        let change = self.try_give(what, Some((due_ms, late_ms))).expect("it makes sense");
        self.write(change)
    }

    pub(super) fn cancel(&mut self) -> Result<(), Refused> {
        let change = self.with(|scene| cancel(self.order(), "bob", scene))?;
        self.write(change);
        Ok(())
    }

    /// As one transaction would.
    pub(super) fn write(&mut self, change: Change) -> &mut Self {
        self.revision += 1;
        for (name, assignment) in change.assignments {
            assignment.check().expect("an assignment that an agent accepts");
            let host = self.fleet.agents.get_mut(&name).expect("a host");
            host.assigned = Some(Assigned { assignment, serial: Serial(self.revision) });
        }
        match change.ask {
            Some(Ask::Intent(intent)) => self.fleet.lease.intent = Some(seen(intent, self.revision)),
            Some(Ask::Withdraw) => self.fleet.lease.intent = None,
            None => {}
        }
        match change.staging {
            Some(staging::Ask::Request(request)) => {
                self.fleet.staging = Some(Requested { request, serial: Serial(self.revision) });
            }
            Some(staging::Ask::Withdraw) => self.fleet.staging = None,
            None => {}
        }
        match change.order.freezes(self.freeze.as_ref()) {
            Some(FreezeAsk::Put(freeze)) => self.freeze = Some(freeze),
            Some(FreezeAsk::Delete) => self.freeze = None,
            Some(FreezeAsk::Keep) | None => {}
        }
        self.order = Some(change.order);
        self
    }

    pub(super) fn order(&self) -> &StandingOrder {
        self.order.as_ref().expect("an order was given")
    }

    pub(super) fn decide(&self) -> Step {
        self.with(|scene| next(self.order(), scene))
    }

    /// Decides and writes, until nothing more is to be done now.
    pub(super) fn settle(&mut self) -> Option<BlockerKind> {
        for _ in 0..20 {
            match self.decide() {
                Step::Do(change) => self.write(*change),
                Step::Wait { blocker, .. } => return Some(blocker.kind),
                Step::Rest => return None,
            };
        }
        panic!("it never settles: {:?}", self.order());
    }

    pub(super) fn pass(&mut self, time: Duration) -> &mut Self {
        self.now.boot += time;
        self.now.wall_ms += u64::try_from(time.as_millis()).expect("a short time");
        self
    }

    pub(super) fn intent(&self) -> Option<Intent> {
        self.fleet.lease.intent.as_ref().map(|seen| seen.value.clone())
    }

    /// The holder does what the intent asks for; the heir works if `works`.
    pub(super) fn follow(&mut self, works: bool) -> &mut Self {
        let intent = self.intent().expect("an intent");
        self.revision += 1;
        match &intent.to {
            Some(to) => {
                let heir = self.fleet.lease.candidates[to].value.owner.agent.clone();
                hold(&mut self.fleet.lease, &heir, "a", "1.0.0", self.revision);
                if !works {
                    self.fleet.lease.candidates.get_mut(to).expect("the heir").value.active = None;
                }
            }
            None => {
                let holder = self.fleet.lease.holder.as_mut().expect("a holder");
                let last = holder.value.owner().clone();
                holder.value.state = HolderState::Free(Free { last, stop_proof: StopProof::Quiesced });
                self.fleet.lease.beat = None;
            }
        }
        self.fleet.lease.holder.as_mut().expect("a holder").value.op = intent.op;
        self
    }

    /// Somebody begins another turn: nobody has looked at the one before.
    pub(super) fn turn(&mut self, number: u8, cause: LeaseCause, after: u64) -> &mut Self {
        let before = self.fleet.lease.holder.as_ref().map_or(0, |seen| seen.value.turn);
        self.revision += 1;
        hold(&mut self.fleet.lease, &agent(number), "a", "1.0.0", self.revision);
        let holder = &mut self.fleet.lease.holder.as_mut().expect("a holder").value;
        (holder.turn, holder.cause) = (before + after, cause);
        self
    }

    pub(super) fn decline(&mut self) -> &mut Self {
        let intent = self.intent().expect("an intent");
        let holder = self.fleet.lease.candidates.get_mut(&intent.from).expect("the holder");
        holder.value.declined = Some(intent.op);
        self
    }

    /// Hosts make true what is assigned to them.
    pub(super) fn obey(&mut self) -> &mut Self {
        self.fleet.agents.iter_mut().for_each(|(name, host)| obey(name, host));
        self
    }

    pub(super) fn assignment(&self, number: u8) -> Assignment {
        self.fleet.agents[&agent(number)].assignment().expect("an assignment").clone()
    }

    pub(super) fn end(&self) -> (Outcome, String) {
        match &self.order().phase {
            Phase::Ended { outcome, reason, .. } => (*outcome, reason.clone()),
            other => panic!("it has not ended: {other:?}"),
        }
    }

    pub(super) fn unready(&mut self, number: u8) -> &mut Self {
        let id = instance_id(&agent(number), &slot("a"));
        self.fleet.lease.candidates.get_mut(&id).expect("a candidate").value.ready = false;
        self
    }
}

pub(super) fn handoff(to: Option<u8>) -> What {
    What::Handoff { to: to.map(agent) }
}

pub(super) fn drain(number: u8) -> What {
    What::Drain { agent: agent(number), min_serving: 2, notice_ms: 5000 }
}
