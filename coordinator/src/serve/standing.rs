//! Standing orders, carried out: read, decide with the core, write. The counterpart of the engine's laps for rollouts.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::ids::{AgentId, OpId, Service};
use handover_proto::wire::give_request::What as Asked;
use handover_proto::wire::{GiveReply, GiveRequest};

use super::engine::{Engine, EngineError};
use super::failpoint::{self, Side};
use super::orders::Refused;
use super::standing_write::{OrderWrite, WriteError};
use crate::clock::boot;
use crate::core::standing::give::{self, Request, cancel, give};
use crate::core::standing::next::{Change, Step, next};
use crate::core::standing::{Phase, StandingOrder, What};
use crate::view;
use crate::world::{Stage, World};

/// After a change was not written because something moved, unless the world changes before.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How often a request is decided anew when something moved in between.
const TRIES: u32 = 5;

/// What this coordinator remembers of the standing orders.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// For each host that leaves: requests counted, and since when there have been no more.
    quiet: BTreeMap<AgentId, (Option<u64>, Duration)>,
    said: BTreeMap<u64, String>,
    /// Why a service's staging key cannot be read, if it cannot.
    unread: BTreeMap<Service, String>,
}

impl Memory {
    /// For how long the host that the order drains has had no new request.
    fn quiet(&mut self, stage: &Stage, order: &StandingOrder) -> Duration {
        let (Some(agent), Phase::Leaving { told_ms: Some(_), .. }) = (order.drains(), &order.phase) else {
            return Duration::ZERO;
        };
        let count = stage.requests(agent);
        let now = boot();
        let known = self.quiet.entry(agent.clone()).or_insert((count, now));
        // A host that is not heard has not been seen to be quiet.
        if known.0 != count || count.is_none() {
            *known = (count, now);
        }
        now.saturating_sub(known.1)
    }

    /// Once, not at every lap.
    fn tell_unreadable_staging(&mut self, world: &World) {
        for service in world.services() {
            let Err(error) = world.staging(&service) else {
                self.unread.remove(&service);
                continue;
            };
            let why = crate::cause::chain(&error);
            if self.unread.get(&service) != Some(&why) {
                tracing::warn!(%service, error = why, "nobody acts on what hosts are asked to stage");
                self.unread.insert(service, why);
            }
        }
    }
}

impl Engine {
    /// One lap for each open order. `Ok(true)`: something was written.
    pub(super) async fn standing_round(&mut self) -> Result<(bool, Option<Duration>), EngineError> {
        let mut until: Option<Duration> = None;
        let mut wrote = false;
        self.memory.tell_unreadable_staging(&self.world.borrow());
        let all = open(&self.world.borrow());
        for (service, number) in all {
            match self.standing_lap(&service, number).await {
                Ok(Standing::Wrote) => wrote = true,
                Ok(Standing::Waits(at)) => until = until.into_iter().chain(at).min(),
                Err(EngineError::Write(error @ (WriteError::Moved { .. } | WriteError::Lease { .. }))) => {
                    tracing::info!(order = number, %error, "looking again");
                    until = until.into_iter().chain([boot() + LOOK_AGAIN]).min();
                }
                Err(error @ EngineError::Write(WriteError::Deposed { .. })) => return Err(error),
                Err(error) => tracing::error!(order = number, error = crate::cause::chain(&error), "cannot go on"),
            }
        }
        Ok((wrote, until))
    }

    async fn standing_lap(&mut self, service: &Service, number: u64) -> Result<Standing, EngineError> {
        let now = self.now();
        let stage = self.world.borrow().stage(service)?;
        let Some(order) = stage.open.iter().find(|order| order.number == number).cloned() else {
            return Ok(Standing::Waits(None));
        };
        let quiet = self.memory.quiet(&stage, &order);
        let others = stage.without(number);
        match next(&order, &stage.scene(&others, quiet, now)) {
            Step::Do(change) => {
                self.write(service, *change).await?;
                Ok(Standing::Wrote)
            }
            Step::Wait { blocker, until } => {
                let said = blocker.waiting_for;
                if self.memory.said.insert(number, said.clone()).as_ref() != Some(&said) {
                    tracing::info!(order = number, "waiting for {said}");
                }
                Ok(Standing::Waits(until))
            }
            Step::Rest => Ok(Standing::Waits(None)),
        }
    }

    async fn write(&mut self, service: &Service, change: Change) -> Result<StandingOrder, EngineError> {
        let write = OrderWrite::of(&self.world.borrow(), &self.mandate, service, change)?;
        let appended = write.commit(&self.store, &self.mandate).await?;
        let order = write.order;
        let lines = u64::try_from(order.lines.len()).unwrap_or(u64::MAX);
        if let Some(line) = order.lines.last() {
            tracing::info!(order = order.number, %service, term = %self.mandate.term, "{}", line.what);
        }
        failpoint::reach_order(lines, Side::Before);
        self.world.send_modify(|world| world.wrote(appended.entries, &appended.deleted, appended.serial.0));
        failpoint::reach_order(lines, Side::After);
        Ok(order)
    }

    /// Takes an order, or takes one back.
    pub(super) async fn give(&mut self, request: &GiveRequest) -> Result<GiveReply, Refused> {
        let mut tries = 0;
        loop {
            let (service, decided) = self.decide_order(request)?;
            let change = match decided {
                Decided::Known(reply) => return Ok(reply),
                Decided::Change(change) => *change,
            };
            match self.write(&service, change).await {
                Ok(order) => return Ok(reply(&order)),
                Err(EngineError::Write(WriteError::Moved { .. } | WriteError::Lease { .. })) if tries < TRIES => {
                    tries += 1;
                    // The watch brings what has moved.
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn decide_order(&self, request: &GiveRequest) -> Result<(Service, Decided), Refused> {
        let op: OpId = request.op.parse().map_err(|_| Refused::NoOp(request.op.clone()))?;
        let world = self.world.borrow();
        let service = view::service(&world, &request.service)?.ok_or(Refused::NoService)?;
        let all = world.orders(&service);
        if let Some(known) = all.iter().find(|order| order.op == op) {
            return Ok((service, Decided::Known(reply(known))));
        }
        let stage = world.stage(&service)?;
        let now = self.now();
        let asked = request.what.as_ref().ok_or(Refused::NoWhat)?;
        let number = match asked {
            Asked::Cancel(cancel) => to_cancel(&all, cancel.number)?,
            Asked::Undrain(undrain) => drained(&all, &undrain.agent)?,
            _ => {
                let request = typed(asked, request, op, &stage)?;
                let number = world.next_order(&service);
                let scene = stage.scene(&stage.open, Duration::ZERO, now);
                return Ok((service, Decided::Change(Box::new(give(request, number, &scene)?))));
            }
        };
        let order = all.iter().find(|order| order.number == number).ok_or(give::Refused::UnknownOrder(number))?;
        let others = stage.without(number);
        let change = cancel(order, &because(request), &stage.scene(&others, Duration::ZERO, now))?;
        Ok((service, Decided::Change(Box::new(change))))
    }
}

/// What a lap came to.
enum Standing {
    Wrote,
    Waits(Option<Duration>),
}

enum Decided {
    Known(GiveReply),
    Change(Box<Change>),
}

fn open(world: &World) -> Vec<(Service, u64)> {
    let of = |service: Service| {
        let open = world.orders(&service).into_iter().filter(|order| !order.is_over());
        open.map(move |order| (service.clone(), order.number)).collect::<Vec<_>>()
    };
    world.services().into_iter().flat_map(of).collect()
}

fn to_cancel(all: &[StandingOrder], number: u64) -> Result<u64, Refused> {
    if number != 0 {
        return Ok(number);
    }
    // A host is given back with `undrain`, by its name, and a staging is no matter of the lease.
    let of_lease = |order: &&StandingOrder| !matches!(order.what, What::Drain { .. } | What::Stage { .. });
    let open = all.iter().rev().find(|order| !order.is_over() && of_lease(order));
    open.map(|order| order.number).ok_or(Refused::Standing(give::Refused::NothingOpen))
}

fn drained(all: &[StandingOrder], agent: &str) -> Result<u64, Refused> {
    let agent: AgentId = agent.parse().map_err(Refused::NoAgent)?;
    let open = all.iter().find(|order| order.drains() == Some(&agent));
    open.map(|order| order.number).ok_or(Refused::Standing(give::Refused::NotDrained(agent)))
}

fn typed(asked: &Asked, request: &GiveRequest, op: OpId, stage: &Stage) -> Result<Request, Refused> {
    let agent = |text: &str| text.parse::<AgentId>().map_err(Refused::NoAgent);
    let mut at = None;
    let what = match asked {
        Asked::Handoff(handoff) => {
            at = (handoff.at_ms > 0).then_some((handoff.at_ms, handoff.late_ms));
            What::Handoff { to: (!handoff.to.is_empty()).then(|| agent(&handoff.to)).transpose()? }
        }
        Asked::Release(release) => What::Release { freeze: release.freeze },
        Asked::Freeze(_) => What::Freeze,
        Asked::Unfreeze(_) => What::Unfreeze,
        Asked::Drain(drain) => What::Drain {
            agent: agent(&drain.agent)?,
            min_serving: drain.min_serving.map_or(stage.habits.min_serving, |floor| floor as usize),
            notice_ms: drain.notice_ms,
        },
        Asked::Stage(asked) => What::Stage {
            version: asked.version.parse().map_err(Refused::NoVersion)?,
            hosts: match asked.agents.as_slice() {
                [] => stage.fleet.agents.keys().cloned().collect(),
                named => named.iter().map(|name| agent(name)).collect::<Result<_, _>>()?,
            },
        },
        Asked::Cancel(_) | Asked::Undrain(_) => return Err(Refused::NoWhat),
    };
    Ok(Request { op, what, by: request.by.clone(), because: request.because.clone(), at })
}

fn because(request: &GiveRequest) -> String {
    if request.because.is_empty() { request.by.clone() } else { format!("{}: {}", request.by, request.because) }
}

fn reply(order: &StandingOrder) -> GiveReply {
    let last = order.lines.last().map(|line| line.what.clone()).unwrap_or_default();
    GiveReply { number: order.number, message: format!("order {}: {last}", order.number) }
}
