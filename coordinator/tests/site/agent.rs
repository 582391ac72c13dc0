//! A scripted agent: the real protocol over a real socket, with instances that exist in its reports only.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use handover_proto::assignment::{Assignment, Upstream};
use handover_proto::ids::{AgentId, InstanceId, SlotId, Version};
use handover_proto::lifecycle::Lifecycle as TypedLifecycle;
use handover_proto::registration::Registration;
use handover_proto::stored::{STORED_VERSION, decode, encode};
use handover_proto::txn::{Op, Txn};
use handover_proto::wire::agent_server::{Agent, AgentServer};
use handover_proto::wire::{
    AssignReply, AssignRequest, CertifyReply, CertifyRequest, GateReport, InstanceReport, Lifecycle, ProcessState,
    Report, SlotReport, WatchRequest, kind, refusal,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};

use super::{Site, service};

/// What the agent does with the next assignments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Mood {
    /// Makes them true at once.
    #[default]
    Willing,
    /// Takes them, and never makes them true.
    Stuck,
    /// Refuses them.
    Refusing,
}

/// Everything about it.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) mood: Mood,
    pub(crate) term: i64,
    pub(crate) accepted: i64,
    pub(crate) reached: i64,
    /// What is true.
    pub(crate) assignment: Option<Assignment>,
    /// What is to become true.
    wanted: Option<Assignment>,
    /// Serials in the order of their first delivery.
    pub(crate) delivered: Vec<i64>,
    /// Its streams end.
    gone: bool,
    instances: BTreeMap<SlotId, (InstanceId, Version)>,
}

pub(crate) struct Scripted {
    pub(crate) name: AgentId,
    pub(crate) state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Registers under `name` with two slots, and serves.
    pub(crate) async fn start(site: &Site, name: &str) -> Self {
        Self::with(site, name, State::default()).await
    }

    pub(crate) async fn with(site: &Site, name: &str, state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = listener.local_addr().expect("an address");
        let name: AgentId = name.parse().expect("a name");
        let state = Arc::new(watch::Sender::new(state));
        let service = Surface { name: name.clone(), state: Arc::clone(&state) };
        let task = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            Server::builder()
                .add_service(AgentServer::new(service))
                .serve_with_incoming(incoming)
                .await
                .expect("it serves");
        });
        register(site, &name, endpoint).await;
        Self { name, state, task }
    }

    /// Ends its server and every stream with it.
    pub(crate) fn stop(self) -> State {
        self.task.abort();
        let kept = self.state.borrow().clone();
        self.state.send_modify(|state| state.gone = true);
        kept
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.state.send_modify(|state| {
            state.mood = mood;
            state.settle();
        });
    }
}

pub(crate) async fn register(site: &Site, name: &AgentId, endpoint: SocketAddr) {
    let slot = |slot: &str, port: u16| (slot.parse().expect("a slot"), SocketAddr::from(([127, 0, 0, 1], port)));
    let registration = Registration {
        v: STORED_VERSION,
        agent: name.clone(),
        service: service(),
        endpoint,
        operations: endpoint,
        host: "here".into(),
        slots: BTreeMap::from([slot("a", 1), slot("b", 2)]),
        hold_ms: None,
        stages: None,
        labels: BTreeMap::new(),
        state_dir_id: name.to_string(),
        boot_id: "boot".into(),
        agent_version: "0.1.0".into(),
        protocol: (1, 1),
        rest: Default::default(),
    };
    let key = site.keys.service(&service()).agent(name);
    let put = Op::put(key, encode(&registration).expect("json"));
    site.store.txn(&Txn { then: vec![put], ..Txn::default() }).await.expect("registered");
}

struct Surface {
    name: AgentId,
    state: Arc<watch::Sender<State>>,
}

impl State {
    fn take(&mut self, request: &AssignRequest) -> Result<(), Status> {
        if request.term < self.term || request.serial < self.accepted {
            return Err(refusal(Code::FailedPrecondition, kind::STALE, "older than what was seen"));
        }
        if self.mood == Mood::Refusing {
            return Err(refusal(Code::InvalidArgument, kind::INVALID, "the assignment is not to my taste"));
        }
        let assignment: Assignment = decode("delivered", &request.assignment).expect("an assignment");
        assignment.check().expect("a sound assignment");
        if self.accepted != request.serial {
            self.delivered.push(request.serial);
        }
        (self.term, self.accepted) = (request.term, request.serial);
        self.wanted = Some(assignment);
        self.settle();
        Ok(())
    }

    /// Makes true what is wanted, in the mood for it.
    fn settle(&mut self) {
        let Some(assignment) = self.wanted.take_if(|_| self.mood == Mood::Willing) else { return };
        self.reached = self.accepted;
        let wished =
            |slot: &SlotId| assignment.slots.get(slot).is_some_and(|wish| wish.lifecycle != TypedLifecycle::Terminated);
        self.instances.retain(|slot, _| wished(slot));
        for (slot, wish) in assignment.slots.iter().filter(|(slot, _)| wished(slot)) {
            let known = self.instances.get(slot).is_some_and(|(_, version)| *version == wish.version);
            if !known {
                self.instances.insert(slot.clone(), (InstanceId::random(), wish.version.clone()));
            }
        }
        self.assignment = Some(assignment);
    }

    fn slot(&self, slot: &SlotId, id: &InstanceId, version: &Version) -> SlotReport {
        let assignment = self.assignment.as_ref().expect("an instance comes from an assignment");
        let route = assignment.routes.iter().find(|route| route.to == Upstream::Slot(slot.clone()));
        let wish = assignment.slots.get(slot).map_or(TypedLifecycle::Terminated, |wish| wish.lifecycle);
        let instance = InstanceReport {
            instance: id.to_string(),
            version: version.to_string(),
            lifecycle: Lifecycle::from(wish).into(),
            process: ProcessState::Running.into(),
            ready: true,
            reads: route.map_or(0, |route| route.reads),
            writes: route.map_or(0, |route| route.writes),
            since_ms: 1,
            ..InstanceReport::default()
        };
        SlotReport { slot: slot.to_string(), instance: Some(instance), ..SlotReport::default() }
    }

    fn report(&self, name: &AgentId) -> Report {
        Report {
            agent: name.to_string(),
            service: service().to_string(),
            agent_version: "0.1.0".into(),
            boot_id: "boot".into(),
            accepted: self.accepted,
            reached: self.reached,
            slots: self.instances.iter().map(|(slot, (id, version))| self.slot(slot, id, version)).collect(),
            gate: Some(GateReport { connected: true, admission: "open".into(), ..GateReport::default() }),
            ..Report::default()
        }
    }
}

#[tonic::async_trait]
impl Agent for Surface {
    async fn assign(&self, request: Request<AssignRequest>) -> Result<Response<AssignReply>, Status> {
        let mut result = Ok(());
        self.state.send_modify(|state| result = state.take(request.get_ref()));
        result.map(|()| Response::new(AssignReply { accepted: self.state.borrow().accepted }))
    }

    async fn certify(&self, _request: Request<CertifyRequest>) -> Result<Response<CertifyReply>, Status> {
        Err(Status::unimplemented("this agent keeps no lease"))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<Report, Status>> + Send>>;

    async fn watch(&self, _request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (to_coordinator, reports) = tokio::sync::mpsc::channel(1);
        let (state, name) = (Arc::clone(&self.state), self.name.clone());
        tokio::spawn(async move {
            let mut changes = state.subscribe();
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            loop {
                let report = {
                    let state = changes.borrow_and_update();
                    if state.gone {
                        return;
                    }
                    state.report(&name)
                };
                if to_coordinator.send(report).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    _ = tick.tick() => {}
                    () = to_coordinator.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(reports).map(Ok))))
    }
}
