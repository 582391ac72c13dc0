//! Real keepers, a real store, real services: what the lease's integration tests are made of.
#![allow(dead_code, unused_imports, reason = "each test file uses its own part")]

pub(crate) mod etcd;
pub(crate) mod history;
pub(crate) mod net;
pub(crate) mod service;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use handover_agent::lease::settings::LeaseSettings;
use handover_agent::lease::socket::peer::{Callers, SlotPeer};
use handover_agent::lease::wanted::{InstanceLease, KeeperStatus, LeaseState, Life, LocalInstance, Wanted};
use handover_agent::lease::{Certifier, KeeperHandle, Place, spawn};
use handover_proto::assignment::Cause;
use handover_proto::ids::{InstanceId, OpId, SlotId};
use handover_proto::keys::{EnvKeys, LeaseKeys};
use handover_proto::lease::{Intent, IntentKind, LeaseView, Owner, RawEntry};
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::encode;
use handover_proto::txn::{Op, Txn};
use handover_store::client::Store;
use handover_store::server::{ServerOptions, serve};
use handover_tls::Parties;
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use service::{Manner, TestService};

/// Longest wait for anything that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Short deadlines, within the rules: D_soft is 1.69 s after the base, D_hard 5.19 s.
pub(crate) fn settings() -> LeaseSettings {
    LeaseSettings {
        ttl: Duration::from_secs(6),
        interval: Duration::from_millis(200),
        attempt: Duration::from_millis(300),
        c_unit: Duration::from_millis(3500),
        c_kill: Duration::from_millis(300),
        failover_gap: Duration::from_millis(500),
        ..LeaseSettings::default()
    }
}

/// The embedded store in a thread of its own.
pub(crate) struct StoreSite {
    data: TempDir,
    pub(crate) address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl StoreSite {
    pub(crate) fn start() -> Self {
        let data = TempDir::new().expect("a directory");
        let mut site = Self { data, address: ([127, 0, 0, 1], 0).into(), running: None };
        site.up();
        site
    }

    /// Starts it (again), on the address that it had.
    pub(crate) fn up(&mut self) {
        let options = ServerOptions { data: self.data.path().to_owned(), listen: self.address };
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let done = runtime.block_on(serve(options, |address| ready.send(address).expect("a listener"), async {
                drop(stopped.await);
            }));
            done.expect("a store that ends well");
        });
        self.address = is_ready.recv_timeout(PATIENCE).expect("a store that is ready");
        self.running = Some((stop, thread));
    }

    pub(crate) fn down(&mut self) {
        let (stop, thread) = self.running.take().expect("a running store");
        drop(stop);
        thread.join().expect("a store that ends");
    }

    pub(crate) fn client(&self) -> Store {
        Store::connect(&[self.address.to_string()]).expect("an endpoint")
    }
}

impl Drop for StoreSite {
    fn drop(&mut self) {
        if let Some((stop, _)) = self.running.take() {
            drop(stop);
        }
    }
}

pub(crate) fn keys() -> LeaseKeys {
    EnvKeys::new(&"test".parse().expect("env")).service(&"billing".parse().expect("service")).lease()
}

/// One agent's keeper, with what its main loop would tell it.
pub(crate) struct Agent {
    name: String,
    state_dir: Arc<TempDir>,
    pub(crate) runtime_dir: Arc<TempDir>,
    endpoint: SocketAddr,
    settings: LeaseSettings,
    own_uid: u32,
    callers: BTreeMap<SlotId, SlotPeer>,
    wanted: watch::Sender<Wanted>,
    pub(crate) killed: watch::Sender<Vec<(InstanceId, Instant)>>,
    keeper: Option<(KeeperHandle, CancellationToken)>,
}

impl Agent {
    pub(crate) fn start(name: &str, store: &StoreSite, settings: LeaseSettings) -> Self {
        Self::at(name, store.address, settings)
    }

    /// One whose keeper finds its store at `endpoint`.
    pub(crate) fn at(name: &str, endpoint: SocketAddr, settings: LeaseSettings) -> Self {
        Self::start_for(name, endpoint, settings, nix::unistd::geteuid().as_raw(), BTreeMap::new())
    }

    /// With these users allowed on its socket.
    pub(crate) fn start_for(
        name: &str,
        endpoint: SocketAddr,
        settings: LeaseSettings,
        own_uid: u32,
        peers: BTreeMap<SlotId, SlotPeer>,
    ) -> Self {
        let mut agent = Self {
            name: name.to_owned(),
            state_dir: Arc::new(TempDir::new().expect("a directory")),
            runtime_dir: Arc::new(TempDir::new().expect("a directory")),
            endpoint,
            settings,
            own_uid,
            callers: peers,
            wanted: watch::Sender::new(Wanted::default()),
            killed: watch::Sender::default(),
            keeper: None,
        };
        agent.up();
        agent
    }

    pub(crate) fn up(&mut self) {
        let shutdown = CancellationToken::new();
        let place = Place {
            store: vec![self.endpoint.to_string()].into(),
            parties: Parties::plain(),
            env: "test".parse().expect("env"),
            service: "billing".parse().expect("service"),
            agent: self.name.parse().expect("agent"),
            state_dir: self.state_dir.path().to_owned(),
            runtime_dir: self.runtime_dir.path().to_owned(),
            callers: Callers::new(self.own_uid, self.callers.clone()),
            host: Default::default(),
            trial: None,
        };
        let killed = self.killed.clone();
        let kill = Arc::new(move |id: &InstanceId| {
            killed.send_modify(|all| all.push((id.clone(), Instant::now())));
            Ok(())
        });
        let keeper = spawn(self.settings.clone(), place, self.wanted.subscribe(), kill, shutdown.clone());
        self.keeper = Some((keeper.expect("a keeper"), shutdown));
    }

    pub(crate) fn certifier(&self) -> Certifier {
        self.keeper.as_ref().expect("a keeper").0.certifier.clone()
    }

    /// Ends the keeper as a crash does: nothing is released, nobody is told.
    pub(crate) fn down(&mut self) {
        let (keeper, shutdown) = self.keeper.take().expect("a keeper");
        shutdown.cancel();
        keeper.join.join().expect("no panic").expect("a good end");
    }

    /// Reports an instance whose service is `service`.
    pub(crate) fn run(&self, service: &TestService) -> InstanceId {
        let instance = InstanceId::random();
        let owner = Owner {
            instance: instance.clone(),
            agent: self.name.parse().expect("agent"),
            host: self.name.clone(),
            boot_id: "this".to_owned(),
            version: "1.0.0".parse().expect("version"),
        };
        let local = LocalInstance {
            owner,
            slot: "a".parse().expect("slot"),
            app: service.address,
            eligible: true,
            ready: true,
            serving: true,
            rank: 0,
            life: Life::Running,
        };
        self.wanted.send_modify(|wanted| drop(wanted.instances.insert(instance.clone(), local)));
        instance
    }

    pub(crate) fn change(&self, instance: &InstanceId, change: impl FnOnce(&mut LocalInstance)) {
        self.wanted.send_modify(|wanted| change(wanted.instances.get_mut(instance).expect("a known instance")));
    }

    pub(crate) fn forget(&self, instance: &InstanceId) {
        self.wanted.send_modify(|wanted| drop(wanted.instances.remove(instance)));
    }

    pub(crate) fn status(&self) -> KeeperStatus {
        self.keeper.as_ref().expect("a keeper").0.status.borrow().clone()
    }

    /// Waits for the first kill: of whom, and when.
    pub(crate) async fn first_kill(&self) -> (InstanceId, Instant) {
        let mut killed = self.killed.subscribe();
        let seen = tokio::time::timeout(PATIENCE, killed.wait_for(|all| !all.is_empty())).await;
        seen.expect("a kill in time").expect("a sender")[0].clone()
    }

    /// Waits until the keeper's status is as `holds` says.
    pub(crate) async fn until(&self, what: &str, holds: impl FnMut(&KeeperStatus) -> bool) -> KeeperStatus {
        let mut status = self.keeper.as_ref().expect("a keeper").0.status.clone();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(holds)).await.map(|seen| seen.map(|s| s.clone()));
        match found {
            Ok(Ok(status)) => status,
            Ok(Err(_)) => panic!("the keeper of {} ended while waiting for: {what}", self.name),
            Err(_) => panic!("{}: not within {PATIENCE:?}: {what}; status {:#?}", self.name, self.status()),
        }
    }

    /// Waits until the state file knows the turn of `instance`: a crash before that costs its token.
    pub(crate) async fn until_saved(&self, instance: &InstanceId) {
        let (file, began) = (self.state_dir.path().join("lease-keeper.json"), Instant::now());
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains(instance.as_str())) {
            assert!(began.elapsed() < PATIENCE, "{} never named {instance}", file.display());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) async fn until_state(&self, instance: &InstanceId, state: LeaseState) -> InstanceLease {
        let what = format!("{instance} to be {state:?}");
        let status = self.until(&what, |s| s.instances.get(instance).is_some_and(|lease| lease.state == state)).await;
        status.instances[instance].clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some((keeper, shutdown)) = self.keeper.take() {
            shutdown.cancel();
            drop(keeper.join.join());
        }
    }
}

/// The lease's keys as they stand.
pub(crate) async fn view(store: &Store) -> LeaseView {
    let listing = store.list(&keys().prefix()).await.expect("a listing");
    let mut view = LeaseView::default();
    for entry in &listing.entries {
        let raw = RawEntry {
            value: &entry.value,
            mod_revision: entry.mod_revision,
            create_revision: entry.create_revision,
            lease: entry.lease,
        };
        view.put(&keys(), &entry.key, Some(raw)).expect("readable");
    }
    view
}

/// Waits until the lease's keys are as `holds` says.
pub(crate) async fn until_view(store: &Store, what: &str, holds: impl Fn(&LeaseView) -> bool) -> LeaseView {
    let mut watch = store.watch(&keys().prefix(), 0);
    let search = async {
        loop {
            watch.next().await;
            let view = view(store).await;
            if holds(&view) {
                return view;
            }
        }
    };
    let found = tokio::time::timeout(PATIENCE, search).await;
    match found {
        Ok(view) => view,
        Err(_) => panic!("not within {PATIENCE:?}: {what}; {:#?}", view(store).await),
    }
}

/// Asks for a hand-over, as the coordinator does.
pub(crate) async fn ask(store: &Store, from: &InstanceId, to: &InstanceId, quiesce_timeout: Duration) -> OpId {
    intend(store, IntentKind::Handoff, from, Some(to), quiesce_timeout).await
}

/// Asks for anything that an intent can ask for.
pub(crate) async fn intend(
    store: &Store,
    kind: IntentKind,
    from: &InstanceId,
    to: Option<&InstanceId>,
    quiesce_timeout: Duration,
) -> OpId {
    let op = OpId::random();
    let intent = Intent {
        v: 1,
        op: op.clone(),
        kind,
        from: from.clone(),
        to: to.cloned(),
        quiesce_timeout_ms: u64::try_from(quiesce_timeout.as_millis()).expect("fits"),
        term: Term::new(Era(0), 1).expect("a term"),
        cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
    };
    put(store, keys().intent(), encode(&intent).expect("json")).await;
    op
}

pub(crate) async fn put(store: &Store, key: String, value: Vec<u8>) {
    let txn = Txn { then: vec![Op::put(key, value)], ..Txn::default() };
    assert!(store.txn(&txn).await.expect("a write").succeeded);
}

/// Instances by what they are told, for messages.
pub(crate) fn states(agent: &Agent) -> BTreeMap<InstanceId, LeaseState> {
    agent.status().instances.into_iter().map(|(id, lease)| (id, lease.state)).collect()
}

pub(crate) fn path(agent: &Agent, name: &str) -> PathBuf {
    agent.runtime_dir.path().join(name)
}
