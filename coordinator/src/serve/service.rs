//! The gRPC surface: `Coordinator`, health and reflection.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use handover_proto::peer::Role;
use handover_proto::wire::coordinator_server::{Coordinator, CoordinatorServer};
use handover_proto::wire::{
    DESCRIPTOR, DoctorReply, DoctorRequest, GiveReply, GiveRequest, HistoryReply, HistoryRequest, OrderReply,
    OrderRequest, PlanReply, SpecRequest, StartReply, StatusReply, StatusRequest, TurnsReply, TurnsRequest, kind,
    refusal,
};
use handover_tls::Parties;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::LEADER_HEADER;
use super::leader::Leadership;
use super::orders::{self, Refused, Request as Order};
use super::reign::Desk;
use crate::cause::chain;
use crate::clock::wall_ms;
use crate::core::plan::PlanError;
use crate::core::spec::Spec;
use crate::rollout::RolloutError;
use crate::view::{self, ViewError, Viewer};
use crate::world::World;

/// Pause between two statuses of a stream, for eyes: the last one always follows.
const FRAME: Duration = Duration::from_millis(50);

/// Answers on `listener` until `stop` resolves.
///
/// # Errors
/// If the server breaks.
pub(super) async fn serve(
    (listener, parties): (TcpListener, Parties),
    world: Arc<watch::Sender<World>>,
    leadership: watch::Receiver<Leadership>,
    desk: watch::Receiver<Desk>,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<CoordinatorServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let service = CoordinatorServer::new(Service { world, leadership, desk, parties: parties.clone() });
    let tls = parties.tls().cloned();
    let server = Server::builder()
        .add_service(InterceptedService::new(service, move |call| for_operators(&parties, call)))
        .add_service(health_service)
        .add_service(reflection);
    let server = async {
        match tls {
            Some(tls) => server.serve_with_incoming(handover_tls::incoming(listener, tls)).await,
            None => server.serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true))).await,
        }
    };
    // Streams to watching command lines never end by themselves, so they are cut: they come back to the next leader.
    tokio::select! {
        ended = server => Ok(ended?),
        () = stop => Ok(()),
    }
}

/// The refusal that a view's error becomes.
pub fn refuse_view(error: &ViewError) -> Status {
    match error {
        ViewError::UnknownService { .. } | ViewError::UnknownRollout(_) => {
            refusal(Code::NotFound, kind::POLICY, error.to_string())
        }
        ViewError::Several(_) => refusal(Code::InvalidArgument, kind::INVALID, error.to_string()),
        ViewError::Rollout(RolloutError::Unknown(_)) => refusal(Code::NotFound, kind::POLICY, chain(error)),
        ViewError::Stored(_) | ViewError::Rollout(_) => refusal(Code::DataLoss, kind::STORE, chain(error)),
    }
}

/// Everything here is for operators; who looks from a coordinator's host may do so with the coordinator's certificate.
fn for_operators(parties: &Parties, call: Request<()>) -> Result<Request<()>, Status> {
    parties.admit(&call, "operators", |role| matches!(role, Role::Operator(_) | Role::Coordinator))?;
    Ok(call)
}

struct Service {
    world: Arc<watch::Sender<World>>,
    leadership: watch::Receiver<Leadership>,
    desk: watch::Receiver<Desk>,
    parties: Parties,
}

impl Service {
    fn viewer(&self) -> Viewer {
        viewer(&self.leadership)
    }

    /// Asks the engine, if it runs here.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, Status>>) -> Order,
    ) -> Result<Response<T>, Status> {
        let Some(desk) = self.desk.borrow().clone() else { return Err(self.not_leader()) };
        let (reply, answer) = oneshot::channel();
        desk.send(request(reply)).await.map_err(|_| self.not_leader())?;
        // The engine ended in between: the request may have been recorded, which a repeat finds out.
        answer.await.map_err(|_| self.not_leader())?.map(Response::new)
    }

    /// Who gives this order, as the certificate says; `None`: on loopback without TLS, where the caller's word is all
    /// there is.
    fn by<T>(&self, request: &Request<T>) -> Result<Option<String>, Status> {
        let role = self.parties.admit(request, "operators", |role| matches!(role, Role::Operator(_)))?;
        Ok(match role {
            Some(Role::Operator(name)) => Some(name.to_string()),
            _ => None,
        })
    }

    fn not_leader(&self) -> Status {
        match &*self.leadership.borrow() {
            Leadership::Following(leader) => {
                let sentence = format!("this coordinator follows; the leader is at {}", leader.endpoint);
                let mut status = refusal(Code::FailedPrecondition, kind::NOT_LEADER, sentence);
                if let Ok(value) = leader.endpoint.parse() {
                    status.metadata_mut().insert(LEADER_HEADER, value);
                }
                status
            }
            Leadership::Unknown | Leadership::Leading(_) => {
                refusal(Code::FailedPrecondition, kind::NOT_LEADER, "no coordinator leads at the moment; try again")
            }
        }
    }
}

fn viewer(leadership: &watch::Receiver<Leadership>) -> Viewer {
    let (leader, term) = match &*leadership.borrow() {
        Leadership::Unknown => (String::new(), 0),
        Leadership::Following(leader) => (leader.endpoint.clone(), 0),
        Leadership::Leading(mandate) => (mandate.endpoint.clone(), mandate.term.get()),
    };
    Viewer { leader, term, at_ms: wall_ms() }
}

#[tonic::async_trait]
impl Coordinator for Service {
    async fn plan(&self, request: Request<SpecRequest>) -> Result<Response<PlanReply>, Status> {
        let SpecRequest { spec, file, .. } = request.get_ref();
        let spec = Spec::parse(file, spec).map_err(|error| Refused::from(error).status())?;
        match orders::plan(&self.world.borrow(), &spec) {
            Ok(plan) => Ok(Response::new(plan.reply())),
            Err(Refused::Plan(PlanError::NoChanges { version })) => {
                let (service, to_version) = (spec.service.to_string(), version.to_string());
                Ok(Response::new(PlanReply { service, to_version, ..PlanReply::default() }))
            }
            Err(refused) => Err(refused.status()),
        }
    }

    async fn start(&self, request: Request<SpecRequest>) -> Result<Response<StartReply>, Status> {
        let by = self.by(&request)?;
        let request = request.into_inner();
        let request = SpecRequest { by: by.unwrap_or(request.by), ..request };
        self.ask(|reply| Order::Start(request, reply)).await
    }

    async fn order(&self, request: Request<OrderRequest>) -> Result<Response<OrderReply>, Status> {
        let by = self.by(&request)?;
        let request = request.into_inner();
        let request = OrderRequest { by: by.unwrap_or(request.by), ..request };
        self.ask(|reply| Order::Order(request, reply)).await
    }

    async fn give(&self, request: Request<GiveRequest>) -> Result<Response<GiveReply>, Status> {
        let by = self.by(&request)?;
        let request = request.into_inner();
        let request = GiveRequest { by: by.unwrap_or(request.by), ..request };
        self.ask(|reply| Order::Give(request, reply)).await
    }

    async fn turns(&self, request: Request<TurnsRequest>) -> Result<Response<TurnsReply>, Status> {
        let turns = view::turns(&self.world.borrow(), request.get_ref(), wall_ms());
        turns.map(Response::new).map_err(|error| refuse_view(&error))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<StatusReply, Status>> + Send>>;

    async fn watch(&self, request: Request<StatusRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (to_client, replies) = mpsc::channel(1);
        tokio::spawn(tell(Arc::clone(&self.world), self.leadership.clone(), request.into_inner(), to_client));
        Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let status = view::status(&self.world.borrow(), request.get_ref(), &self.viewer());
        status.map(Response::new).map_err(|error| refuse_view(&error))
    }

    async fn doctor(&self, request: Request<DoctorRequest>) -> Result<Response<DoctorReply>, Status> {
        let findings = view::doctor(&self.world.borrow(), request.get_ref(), &self.viewer());
        findings.map(Response::new).map_err(|error| refuse_view(&error))
    }

    async fn history(&self, request: Request<HistoryRequest>) -> Result<Response<HistoryReply>, Status> {
        let history = view::history(&self.world.borrow(), request.get_ref());
        history.map(Response::new).map_err(|error| refuse_view(&error))
    }
}

/// Sends the status now and whenever it differs from what was sent last, until the client is gone.
async fn tell(
    world: Arc<watch::Sender<World>>,
    leadership: watch::Receiver<Leadership>,
    request: StatusRequest,
    to_client: mpsc::Sender<Result<StatusReply, Status>>,
) {
    let mut changes = world.subscribe();
    let mut last = None;
    loop {
        let status = view::status(&changes.borrow_and_update(), &request, &viewer(&leadership));
        let status = status.map_err(|error| refuse_view(&error));
        let timeless = status.as_ref().ok().map(|reply| StatusReply { at_ms: 0, ..reply.clone() });
        let failed = status.is_err();
        if failed || timeless != last {
            last = timeless;
            if to_client.send(status).await.is_err() || failed {
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = to_client.closed() => return,
        }
        tokio::time::sleep(FRAME).await;
    }
}
