//! `handover serve`: the coordinator.
//!
//! ```text
//! store ── mirror ──▶ World ◀── links ◀── reports ── agents
//!                       │  ▲                  ▲
//!                       ▼  │                  │ Assign
//!   election ──▶ engine: next, journal ── links
//!                       │
//!                    service ◀── command line
//! ```

mod election;
mod embedded;
mod engine;
mod failpoint;
mod health;
mod journal;
mod leader;
mod link;
mod links;
mod metrics;
mod notify;
mod orders;
mod reign;
mod service;
mod standing;
mod standing_write;
mod told;
mod turns;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use handover_proto::ids::Env;
use handover_proto::peer::Role;
use handover_store::client::{Store, WatchItem};
use handover_tls::Parties;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use election::{Election, LEADER_TTL};
pub use embedded::{Embedded, EmbeddedError};
pub use engine::{Engine, EngineError};
pub(crate) use health::ask as members;
pub use journal::{Append, AppendError, Appended};
pub use leader::{Leader, Leadership, Mandate};
pub use links::Links;
pub use orders::Request;
pub use reign::{Desk, reign};
pub use service::refuse_view;
pub use standing_write::WriteError;

use crate::cli::args::{self, Global};
use crate::clock::wall_ms;
use crate::world::World;

/// Name of the metadata entry of a "not-leader" refusal that holds the leader's address.
pub const LEADER_HEADER: &str = "handover-leader";

/// Runs the coordinator until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting, with its cause.
pub async fn run(global: Global, serve: args::Serve) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    let parties = global.parties()?;
    parties.may_listen(serve.listen).context("--listen")?;
    parties.am(Role::Coordinator)?;
    let listener = TcpListener::bind(serve.listen).await;
    let listener =
        listener.with_context(|| format!("cannot listen at {}; does a coordinator run there?", serve.listen))?;
    let embedded = global.store.is_empty().then_some(Embedded { data: serve.data, listen: serve.store_listen });
    let store = match &embedded {
        Some(embedded) => {
            embedded.ensure().await?;
            Store::connect(&[embedded.listen.to_string()])?
        }
        None => Store::open(&global.store_access()?)?,
    };
    for tls in store.tls().into_iter().chain(parties.tls()) {
        tokio::spawn(tls.clone().warn_of_expiry());
    }
    let metrics = match serve.metrics {
        Some(address) => {
            let listener = TcpListener::bind(address).await;
            Some(listener.with_context(|| format!("cannot answer metrics at {address}; choose another port"))?)
        }
        None => None,
    };
    Coordinator { store, env: global.env, embedded, metrics }.run_among(parties, listener, stop).await
}

/// Resolves at the first SIGTERM or SIGINT.
///
/// # Errors
/// If the signals cannot be listened for.
pub fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// One coordinator in one process.
pub struct Coordinator {
    /// The store.
    pub store: Store,
    /// Its environment.
    pub env: Env,
    /// The embedded store to bring back if it goes away.
    pub embedded: Option<Embedded>,
    /// Where Prometheus is answered.
    pub metrics: Option<TcpListener>,
}

impl Coordinator {
    /// Serves on `listener`, on loopback and in plain text, until `stop` resolves.
    ///
    /// # Errors
    /// If this host cannot be identified, or the server breaks.
    pub async fn run(self, listener: TcpListener, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.run_among(Parties::plain(), listener, stop).await
    }

    /// The same, with agents and command lines that are reached and recognised by these parties.
    ///
    /// # Errors
    /// As [`Coordinator::run`].
    pub async fn run_among(
        self,
        parties: Parties,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let address: SocketAddr = listener.local_addr().context("the listening address is not known")?;
        let world = Arc::new(watch::Sender::new(World::new(&self.env)));
        let keys = world.borrow().keys.clone();
        let (leadership, leading) = watch::channel(Leadership::Unknown);
        let me = Leader::here(address.to_string()).context("this host cannot be identified")?;
        let (stopping, stopped) = watch::channel(false);

        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(mirror(self.store.clone(), Arc::clone(&world)));
        tasks.spawn(health::watch(self.store.clone(), Arc::clone(&world)));
        if let Some(listener) = self.metrics {
            tasks.spawn(metrics::serve(listener, world.subscribe(), leading.clone()));
        }
        tasks.spawn(notify::keep_telling(world.subscribe(), leading.clone()));
        let (desk, handed_in) = watch::channel(None);
        tasks.spawn(reign(self.store.clone(), Arc::clone(&world), leading.clone(), desk));
        tasks.spawn(Links::new(Arc::clone(&world), leading.clone()).among(parties.clone()).run());
        if let Some(embedded) = self.embedded {
            tasks.spawn(embedded.keep(world.subscribe()));
        }
        let election = Election::new(self.store.clone(), &keys, me, world.subscribe(), leadership);
        let election = election.run(told(stopped.clone()));
        let service = service::serve((listener, parties), Arc::clone(&world), leading, handed_in, told(stopped));
        tracing::info!(%address, env = %self.env, "coordinator");
        let both = async { tokio::join!(election, service).1 };
        tokio::pin!(both);
        tokio::select! {
            ended = &mut both => return ended.context("the coordinator's server broke"),
            Some(ended) = tasks.join_next() => anyhow::bail!("a part of the coordinator ended by itself: {ended:?}"),
            () = stop => {}
        }
        tracing::info!("stopping; the agents keep what they have");
        stopping.send_replace(true);
        both.await.context("the coordinator's server broke")
    }
}

/// Follows the environment in the store, for ever.
async fn mirror(store: Store, world: Arc<watch::Sender<World>>) {
    let prefix = world.borrow().keys.prefix();
    let mut watch = store.watch(&prefix, 0);
    loop {
        let item = watch.next().await;
        if let WatchItem::Changes { changes, .. } = &item {
            changes.iter().for_each(|change| failpoint::see(&change.key));
        }
        world.send_modify(|world| {
            let was_cut_off = world.cut_off.is_some();
            world.follow(item, wall_ms());
            match &world.cut_off {
                Some((reason, _)) if !was_cut_off => tracing::warn!(reason, "cut off from the store"),
                None if was_cut_off => tracing::info!("the store is back"),
                _ => {}
            }
        });
    }
}

async fn told(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
