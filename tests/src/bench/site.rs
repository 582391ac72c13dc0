//! What a bench measures: a fleet that serves [`CURRENT`], with [`CANDIDATE`] installed, and our own view of its store.

use anyhow::{Context, Result, bail};
use handover_proto::keys::{EnvKeys, ServiceKeys};
use handover_proto::lease::EraValue;
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::decode;
use handover_proto::txn::Revision;
use handover_store::client::Store;
use tokio::runtime::Runtime;

use crate::fleet::{Fleet, Options, Spec, StoreKind};

/// The version that serves.
pub(super) const CURRENT: &str = "1.0.0";
/// The version that comes.
pub(super) const CANDIDATE: &str = "1.1.0";

pub(super) struct Site {
    pub(super) fleet: Fleet,
    pub(super) store: Store,
    pub(super) keys: EnvKeys,
    pub(super) service: ServiceKeys,
    /// The store's connections live here.
    pub(super) runtime: Runtime,
}

/// The leader of the moment, as whoever writes in its name needs it.
pub(super) struct Leader {
    pub(super) key: String,
    pub(super) create_revision: Revision,
    pub(super) term: Term,
}

/// A fleet in which nothing runs yet.
pub(super) fn fleet(hosts: usize, store: StoreKind) -> Result<Fleet> {
    let fleet = Fleet::start(Options { hosts, store, ..Options::default() })?;
    fleet.install(CURRENT, "")?;
    fleet.install(CANDIDATE, "")?;
    Ok(fleet)
}

impl Site {
    /// A fleet of so many hosts, each serving [`CURRENT`], one of them holding the lease.
    pub(super) fn start(hosts: usize, store: StoreKind) -> Result<Self> {
        Self::serving(fleet(hosts, store)?)
    }

    /// Brings [`CURRENT`] up in `fleet`.
    pub(super) fn serving(fleet: Fleet) -> Result<Self> {
        let hosts = fleet.hosts.len();
        let spec = Spec { min_serving: hosts, wave_size: hosts, soak: "200ms", ..Spec::to(CURRENT) };
        let outcome = fleet.cli().roll(&spec)?;
        if outcome.code != 0 {
            bail!("{CURRENT} could not be brought up (exit code {}): {}{}", outcome.code, outcome.out, outcome.err);
        }
        fleet.wait_for("the lease to be held", |fleet| Ok(fleet.cli().status()?["lease"]["state"] == "held"))?;
        let store = Store::connect(&fleet.stores())?;
        let keys = EnvKeys::new(&"demo".parse()?);
        let service = keys.service(&"billing".parse()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { fleet, store, keys, service, runtime })
    }

    /// Who leads.
    pub(super) async fn leader(&self) -> Result<Leader> {
        let (key, era_key) = (self.keys.leader(), self.service.lease().era());
        let entry = self.store.get(&key).await?.context("nobody leads")?;
        let era = self.store.get(&era_key).await?;
        let era = era.map(|entry| decode::<EraValue>(&era_key, &entry.value)).transpose()?;
        let term = Term::new(era.map_or(Era(0), |value| value.era), entry.create_revision)?;
        Ok(Leader { key, create_revision: entry.create_revision, term })
    }
}
