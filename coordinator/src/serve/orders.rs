//! What is asked of the leader: to start a rollout, or to order something of one.

use handover_proto::ids::{OpId, RolloutId, Service};
use handover_proto::wire::{GiveReply, GiveRequest, OrderReply, OrderRequest, SpecRequest, StartReply, kind, refusal};
use tokio::sync::oneshot;
use tonic::{Code, Status};

use super::engine::{Engine, EngineError};
use super::journal::{Append, AppendError};
use super::standing_write::WriteError;
use crate::cause::chain;
use crate::clock::wall_ms;
use crate::core::event::{Event, Record, sha256_hex};
use crate::core::order::{Order, carried_out, order};
use crate::core::plan::{Plan, PlanError};
use crate::core::spec::Spec;
use crate::rollout::{Rollout, RolloutError};
use crate::view::{self, ViewError};
use crate::world::World;

/// A request to the leader, with the way back for the answer.
#[derive(Debug)]
pub enum Request {
    /// Start a rollout.
    Start(SpecRequest, oneshot::Sender<Result<StartReply, Status>>),
    /// Order something of one.
    Order(OrderRequest, oneshot::Sender<Result<OrderReply, Status>>),
    /// Order something outside of a rollout.
    Give(GiveRequest, oneshot::Sender<Result<GiveReply, Status>>),
}

/// Why a request is not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Spec(#[from] crate::core::spec::SpecError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Order(#[from] crate::core::order::Refused),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Standing(#[from] crate::core::standing::give::Refused),
    #[error("there is no such agent")]
    NoAgent(#[source] handover_proto::ids::IdError),
    #[error("that is no version")]
    NoVersion(#[source] handover_proto::ids::IdError),
    #[error("no agent has registered, so there is no service to order something of")]
    NoService,
    #[error("the request names no order that this coordinator knows; is the command line newer than it?")]
    NoWhat,
    #[error("{0} is not an order; these are: pause, resume, abort, rollback")]
    NoOrder(String),
    #[error("{0:?} is not an operation id; it is made by the command line")]
    NoOp(String),
    #[error("rollout {running} of {service} runs; wait for it, or send it back with `handover rollout abort`")]
    Busy { service: Service, running: RolloutId },
    #[error("no rollout of {0} runs; `handover rollout history` lists the ones that did")]
    NoneRuns(String),
    #[error("rollout {0} is not the latest one of its service; roll out the version that you want")]
    NotLatest(RolloutId),
    #[error("rollout {0} brought the service up: there is no version before it")]
    NothingBefore(RolloutId),
}

impl Refused {
    pub(super) fn status(&self) -> Status {
        let sentence = chain(self);
        match self {
            Self::Spec(_)
            | Self::NoOrder(_)
            | Self::NoOp(_)
            | Self::NoAgent(_)
            | Self::NoVersion(_)
            | Self::NoWhat
            | Self::View(ViewError::Several(_)) => refusal(Code::InvalidArgument, kind::INVALID, sentence),
            Self::View(ViewError::Stored(_) | ViewError::Rollout(_)) | Self::Rollout(_) => {
                refusal(Code::DataLoss, kind::STORE, sentence)
            }
            Self::Engine(
                EngineError::Append(AppendError::Deposed { .. }) | EngineError::Write(WriteError::Deposed { .. }),
            ) => refusal(Code::FailedPrecondition, kind::NOT_LEADER, sentence),
            Self::Engine(_) => refusal(Code::Internal, kind::STORE, sentence),
            Self::Plan(_)
            | Self::Order(_)
            | Self::Standing(_)
            | Self::NoService
            | Self::View(_)
            | Self::Busy { .. }
            | Self::NoneRuns(_)
            | Self::NotLatest(_)
            | Self::NothingBefore(_) => refusal(Code::FailedPrecondition, kind::POLICY, sentence),
        }
    }
}

/// What a spec would do to the fleet as it is.
pub(super) fn plan(world: &World, spec: &Spec) -> Result<Plan, Refused> {
    let fleet = world.fleet(&spec.service, wall_ms()).map_err(ViewError::from)?;
    Ok(Plan::make(spec, &fleet, &world.services(), &RolloutId::random())?)
}

impl Engine {
    /// Carries out a request and answers it.
    ///
    /// # Errors
    /// Only what ends the engine: the leadership is lost. The asker has been told.
    pub(super) async fn answer(&mut self, request: Request) -> Result<(), EngineError> {
        let result = match request {
            Request::Start(request, reply) => {
                let result = self.start(&request).await;
                tell(result, reply)
            }
            Request::Order(request, reply) => {
                let result = self.order(&request).await;
                tell(result, reply)
            }
            Request::Give(request, reply) => {
                let result = self.give(&request).await;
                tell(result, reply)
            }
        };
        match result {
            Err(Refused::Engine(EngineError::Append(error @ AppendError::Deposed { .. }))) => Err(error.into()),
            Err(Refused::Engine(EngineError::Write(error @ WriteError::Deposed { .. }))) => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn start(&mut self, request: &SpecRequest) -> Result<StartReply, Refused> {
        let op: OpId = request.op.parse().map_err(|_| Refused::NoOp(request.op.clone()))?;
        let planned = {
            let world = self.world.borrow();
            if let Some(id) = started_by(&world, &op) {
                return Ok(StartReply { rollout: id.to_string() });
            }
            let spec = Spec::parse(&request.file, &request.spec)?;
            if let Some(running) = Rollout::claimed(&world, &spec.service).map_err(ViewError::from)? {
                return Err(Refused::Busy { service: spec.service, running });
            }
            plan(&world, &spec)
        };
        let rollout = match planned {
            Ok(plan) => self.begin(&plan, &request.spec, &request.by, op).await?,
            // The fleet is as the spec wants it: done, with nothing to name.
            Err(Refused::Plan(PlanError::NoChanges { .. })) => String::new(),
            Err(refused) => return Err(refused),
        };
        Ok(StartReply { rollout })
    }

    /// Claims the service with the rollout's first record.
    async fn begin(&mut self, plan: &Plan, spec: &str, by: &str, op: OpId) -> Result<String, Refused> {
        let now = self.now();
        let started = Event::Started {
            spec_hash: sha256_hex(spec.as_bytes()),
            plan_hash: plan.hash().to_owned(),
            by: by.to_owned(),
            op,
        };
        let record = Record::after(None, now.wall_ms, now.term, started).map_err(EngineError::from)?;
        let append = Append::first(&self.world.borrow(), &self.mandate, plan, spec, record);
        let append = append.map_err(EngineError::from)?;
        let appended = append.commit(&self.store, &self.mandate).await.map_err(EngineError::from)?;
        tracing::info!(rollout = %plan.id, service = %plan.service, to = %plan.to, by, "started");
        self.publish(&append, appended, &plan.service).await;
        Ok(plan.id.to_string())
    }

    async fn order(&mut self, request: &OrderRequest) -> Result<OrderReply, Refused> {
        let what = match request.order.as_str() {
            "pause" => Order::Pause,
            "resume" => Order::Resume,
            "abort" => Order::Abort,
            "rollback" => Order::Rollback,
            other => return Err(Refused::NoOrder(other.to_owned())),
        };
        let (service, running) = self.meant(request)?;
        let Some(id) = running else {
            return match what {
                Order::Rollback => self.return_from_last(&service, request).await,
                Order::Pause | Order::Resume | Order::Abort => Err(Refused::NoneRuns(service.to_string())),
            };
        };
        let now = self.now();
        let fleet = self.world.borrow().fleet(&service, now.wall_ms).map_err(ViewError::from)?;
        let Rollout { plan, progress, .. } = self.course(&service, &id)?;
        let event = order(plan, progress, what, &request.by, &request.reason)?;
        for act in carried_out(plan, progress, &fleet, event, now.term) {
            self.carry_out(&id, act, now).await?;
        }
        Ok(OrderReply { rollout: id.to_string(), message: format!("rollout {id}: {} is recorded", request.order) })
    }

    /// The service that is meant, and the rollout that runs there, if it is the one that is meant.
    fn meant(&self, request: &OrderRequest) -> Result<(Service, Option<RolloutId>), Refused> {
        let world = self.world.borrow();
        let asked = request.rollout.as_str();
        if asked.is_empty() {
            let service = view::service(&world, &request.service)?;
            let service = service.ok_or_else(|| Refused::NoneRuns("any service".into()))?;
            let running = Rollout::claimed(&world, &service).map_err(ViewError::from)?;
            return Ok((service, running));
        }
        let id = asked.parse().map_err(|_| ViewError::UnknownRollout(asked.to_owned()))?;
        let rollout = Rollout::read(&world, &id)?;
        let service = rollout.plan.service;
        let running = Rollout::claimed(&world, &service).map_err(ViewError::from)?;
        if running.as_ref() != Some(&id) {
            let latest = Rollout::latest(&world, &service)?.map(|latest| latest.plan.id);
            if latest.as_ref() != Some(&id) {
                return Err(Refused::NotLatest(id));
            }
        }
        Ok((service, running))
    }

    /// A rollback of a rollout that is over: a new rollout to the version before it.
    async fn return_from_last(&mut self, service: &Service, request: &OrderRequest) -> Result<OrderReply, Refused> {
        let (plan, spec, from) = {
            let world = self.world.borrow();
            let last = Rollout::latest(&world, service)?.ok_or_else(|| Refused::NoneRuns(service.to_string()))?;
            let before = last.plan.from.clone().ok_or_else(|| Refused::NothingBefore(last.plan.id.clone()))?;
            let key = world.keys.rollout(&last.plan.id).spec();
            let stored = world.entry(&key).map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
            let stored = stored.ok_or_else(|| RolloutError::Unknown(last.plan.id.clone()))?;
            let parsed = Spec::parse(&format!("the spec of rollout {}", last.plan.id), &stored)?;
            let text =
                format!("# Back from rollout {}: version {before} instead of the one below.\n{stored}", last.plan.id);
            (plan(&world, &Spec { version: before, ..parsed })?, text, last.plan.id)
        };
        let id = self.begin(&plan, &spec, &request.by, OpId::random()).await?;
        let message = format!(
            "rollout {id} takes {service} back from {} to {}, as it was before {from}",
            plan.from.as_ref().map_or("nothing", |v| v.as_str()),
            plan.to
        );
        Ok(OrderReply { rollout: id, message })
    }
}

/// The rollout that this operation has started already.
fn started_by(world: &World, op: &OpId) -> Option<RolloutId> {
    let first = |id: &RolloutId| world.value::<Record>(&world.keys.rollout(id).event(1)).ok().flatten();
    let is_its = |record: Record| matches!(record.event, Event::Started { op: known, .. } if known == *op);
    world.rollouts().into_iter().rev().find(|id| first(id).is_some_and(is_its))
}

fn tell<T>(result: Result<T, Refused>, reply: oneshot::Sender<Result<T, Status>>) -> Result<(), Refused> {
    let (answer, result) = match result {
        Ok(answer) => (Ok(answer), Ok(())),
        Err(refused) => (Err(refused.status()), Err(refused)),
    };
    if reply.send(answer).is_err() {
        tracing::debug!("whoever asked is gone; what was recorded stands");
    }
    result
}
