//! A wire that can be cut, and an agent's gRPC surface.

use std::net::SocketAddr;

use handover_agent::lease::Certifier;
use handover_agent::service::AgentService;
use handover_proto::ids::AgentId;
use handover_proto::keys::EnvKeys;
use handover_proto::registration::Registration;
use handover_proto::stored::{Rest, STORED_VERSION, encode};
use handover_proto::wire::Report;
use handover_proto::wire::agent_server::AgentServer;
use handover_store::client::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tonic::transport::server::TcpIncoming;

/// Passes connections on to one address, until it is cut.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    cut: watch::Sender<bool>,
    task: AbortHandle,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let cut = watch::Sender::new(false);
        let task = tokio::spawn(pass_on(listener, target, cut.subscribe())).abort_handle();
        Self { address, cut, task }
    }

    /// From now on nothing gets through, and what was connected is cut off; or it does again.
    pub(crate) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(listener: TcpListener, target: SocketAddr, mut cut: watch::Receiver<bool>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            changed = cut.changed() => match changed {
                Ok(()) => open.abort_all(),
                Err(_) => return,
            },
            accepted = listener.accept() => {
                let (mut from, _) = accepted.expect("a connection");
                if *cut.borrow() {
                    continue;
                }
                open.spawn(async move {
                    if let Ok(mut to) = TcpStream::connect(target).await {
                        drop(tokio::io::copy_bidirectional(&mut from, &mut to).await);
                    }
                });
            }
            Some(_) = open.join_next() => {}
        }
    }
}

/// The gRPC surface of one agent, registered in the store; it ends with this value.
pub(crate) struct Surface(AbortHandle);

impl Surface {
    pub(crate) async fn of(agent: &str, store: &Store, certifier: Certifier) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = listener.local_addr().expect("an address");
        let (env, agent): (_, AgentId) = ("test".parse().expect("env"), agent.parse().expect("agent"));
        let keys = EnvKeys::new(&env).service(&"billing".parse().expect("service"));
        let me = Registration {
            v: STORED_VERSION,
            agent: agent.clone(),
            service: "billing".parse().expect("service"),
            endpoint,
            operations: endpoint,
            host: agent.to_string(),
            slots: Default::default(),
            hold_ms: None,
            stages: None,
            labels: Default::default(),
            state_dir_id: "d".to_owned(),
            boot_id: "b".to_owned(),
            agent_version: "1".to_owned(),
            protocol: (1, 1),
            rest: Rest::new(),
        };
        super::put(store, keys.agent(&agent), encode(&me).expect("json")).await;
        let (offers, _) = mpsc::channel(1);
        let (_, reports) = watch::channel(Report::default());
        let service = AgentService::new(store.clone(), (&env, keys), offers, reports);
        let service = AgentServer::new(service.certifying(Some((agent, certifier))));
        let server = tonic::transport::Server::builder().add_service(service);
        Self(tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener))).abort_handle())
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        self.0.abort();
    }
}
