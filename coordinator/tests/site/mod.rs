//! A small site for tests: the embedded store, coordinators and scripted agents, all over real sockets.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub(crate) mod agent;
pub(crate) mod process;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use handover::serve::{Coordinator, Leader, Leadership};
use handover::world::World;
use handover_proto::ids::{Env, Service};
use handover_proto::keys::EnvKeys;
use handover_proto::wire::coordinator_client::CoordinatorClient;
use handover_proto::wire::{SpecRequest, StatusReply, StatusRequest};
use handover_store::client::Store;
use handover_store::server::{ServerOptions, serve};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Longest wait for anything that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The embedded store in this process, and the environment `demo` in it.
pub(crate) struct Site {
    pub(crate) store: Store,
    pub(crate) address: SocketAddr,
    pub(crate) env: Env,
    pub(crate) keys: EnvKeys,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    data: TempDir,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let (address, server) = store(data.path(), "127.0.0.1:0".parse().expect("an address")).await;
        let env: Env = "demo".parse().expect("a name");
        let store = Store::connect(&[address.to_string()]).expect("an endpoint");
        Self { store, address, keys: EnvKeys::new(&env), env, server: Some(server), data }
    }

    /// Ends the store; its data stays.
    pub(crate) async fn stop_store(&mut self) {
        let (stop, server) = self.server.take().expect("it runs");
        drop(stop);
        server.await.expect("it ended");
    }

    /// Starts it again, where it was.
    pub(crate) async fn restart_store(&mut self) {
        self.server = Some(store(self.data.path(), self.address).await.1);
    }

    /// What the store holds now.
    pub(crate) async fn world(&self) -> World {
        World::of_listing(&self.env, self.store.list(&self.keys.prefix()).await.expect("a listing"))
    }

    /// A world that follows the store.
    pub(crate) fn follow(&self) -> Arc<watch::Sender<World>> {
        let world = Arc::new(watch::Sender::new(World::new(&self.env)));
        let (store, prefix, mirror) = (self.store.clone(), self.keys.prefix(), Arc::clone(&world));
        tokio::spawn(async move {
            let mut changes = store.watch(&prefix, 0);
            loop {
                let item = changes.next().await;
                mirror.send_modify(|world| world.follow(item, 1));
            }
        });
        world
    }

    /// A coordinator in this process.
    pub(crate) async fn coordinator(&self) -> Running {
        self.coordinator_with(None).await
    }

    /// One that answers Prometheus there.
    pub(crate) async fn coordinator_with(&self, metrics: Option<TcpListener>) -> Running {
        self.run_at("127.0.0.1:0".parse().expect("an address"), metrics).await
    }

    /// One that takes the place of another that has ended.
    pub(crate) async fn coordinator_at(&self, address: SocketAddr) -> Running {
        self.run_at(address, None).await
    }

    async fn run_at(&self, address: SocketAddr, metrics: Option<TcpListener>) -> Running {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let coordinator = Coordinator { store: self.store.clone(), env: self.env.clone(), embedded: None, metrics };
        let task = tokio::spawn(async move {
            let stop = async {
                // A sender that is gone stops it as well.
                let _ = stopped.await;
            };
            coordinator.run(listener, stop).await.expect("it runs until it is stopped");
        });
        let channel =
            Channel::from_shared(format!("http://{address}")).expect("a uri").connect().await.expect("it listens");
        Running { address, client: CoordinatorClient::new(channel), stop: Some(stop), task }
    }
}

async fn store(data: &Path, listen: SocketAddr) -> (SocketAddr, (oneshot::Sender<()>, JoinHandle<()>)) {
    let options = ServerOptions { data: data.to_owned(), listen };
    let (ready, address) = oneshot::channel();
    let (stop, stopped) = oneshot::channel();
    let told = move |address| ready.send(address).expect("somebody waits");
    let shutdown = async {
        // A sender that is gone stops it as well.
        let _ = stopped.await;
    };
    let server = tokio::spawn(async move { serve(options, told, shutdown).await.expect("a store") });
    (address.await.expect("the store starts"), (stop, server))
}

/// A coordinator in this process.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) client: CoordinatorClient<Channel>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn status(&mut self) -> StatusReply {
        self.client.status(StatusRequest::default()).await.expect("a status").into_inner()
    }

    /// The first status that is as wished, from the watch.
    pub(crate) async fn until(&mut self, what: &str, wish: impl Fn(&StatusReply) -> bool) -> StatusReply {
        let mut last = None;
        let watching = async {
            let mut replies = self.client.watch(StatusRequest::default()).await.expect("a watch").into_inner();
            while let Some(reply) = replies.message().await.expect("a status") {
                if wish(&reply) {
                    return reply;
                }
                last = Some(reply);
            }
            panic!("the watch ended before {what}");
        };
        match tokio::time::timeout(PATIENCE, watching).await {
            Ok(reply) => reply,
            Err(_) => panic!("not within {PATIENCE:?}: {what}; last seen: {last:#?}"),
        }
    }

    pub(crate) async fn until_leading(&mut self) -> i64 {
        self.until("it leads", |reply| reply.term > 0).await.term
    }

    pub(crate) async fn until_state(&mut self, state: &str) -> StatusReply {
        self.until(state, |reply| reply.rollout.as_ref().is_some_and(|rollout| rollout.state == state)).await
    }

    /// Starts a rollout to `version`.
    pub(crate) async fn start(&mut self, version: &str) -> Result<String, tonic::Status> {
        let op = handover_proto::ids::OpId::random().to_string();
        self.start_with(&op, version, "").await
    }

    pub(crate) async fn start_with(&mut self, op: &str, version: &str, more: &str) -> Result<String, tonic::Status> {
        let spec = spec(version, more);
        let request = SpecRequest { spec, file: "test.toml".into(), by: "test".into(), op: op.into() };
        self.client.start(request).await.map(|reply| reply.into_inner().rollout)
    }

    /// Stops it as SIGTERM would.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.expect("it stopped");
    }

    /// Ends it in the middle of whatever it does, without a word to the store.
    pub(crate) async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.expect_err("it was ended").is_cancelled());
    }
}

/// A spec of `billing` without waiting times.
pub(crate) fn spec(version: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"billing\"\nversion = \"{version}\"\n\n[rollout]\nmin_serving = 1\nshift = [\"50%\", \"100%\"]\n\
         step_soak = \"0s\"\nsoak = \"0s\"\n{more}"
    )
}

pub(crate) fn service() -> Service {
    "billing".parse().expect("a name")
}

/// A coordinator's identity at an address that nobody listens at.
pub(crate) fn leader(endpoint: &str) -> Leader {
    Leader::here(endpoint.to_owned()).expect("this host")
}

/// The first state that is as wished.
pub(crate) async fn until<T>(receiver: &mut watch::Receiver<T>, what: &str, wish: impl FnMut(&T) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, receiver.wait_for(wish)).await;
    assert!(matches!(waited, Ok(Ok(_))), "not within {PATIENCE:?}: {what}");
}

/// Waits until the election has made us leader.
pub(crate) async fn mandate(leadership: &mut watch::Receiver<Leadership>) -> handover::serve::Mandate {
    until(leadership, "leading", |who| who.mandate().is_some()).await;
    leadership.borrow().mandate().cloned().expect("a mandate")
}
