//! What two people write straight to the store, past any coordinator: break-glass and the era.
//!
//! Coordinators may not write these keys (`SAFETY.md` I9, I14), and the moments when they are needed are those when
//! there may be none.

use std::time::Duration;

use handover_proto::ids::{AgentId, OpId, Service};
use handover_proto::keys::LeaseKeys;
use handover_proto::lease::{self, Assertion, BreakGlass, EraValue, Holder, LeaseView, Refused, Stamp};
use handover_proto::numbers::Era;
use handover_proto::stored::{StoredError, decode};
use handover_proto::txn::{Revision, Txn};
use handover_store::client::{Store, StoreError};

use super::args::lease::{Assert, EraArgs, Release};
use super::commands::Session;
use super::outcome::{CliError, Outcome};
use crate::clock::wall_ms;
use crate::view;
use crate::world::World;

/// Without an assertion the store must not believe in the holder for this long at least: the longest quarantine of the
/// presets (`SAFETY.md` §1.9, T = 20 s), since what the holder's agent is set to is not known for sure.
const QUARANTINE: Duration = Duration::from_secs(22);
/// A TTL beyond every sane one: the holder key is somebody else's word, and must not overflow a span of time.
const MAX_TTL_S: u64 = 86_400;

/// How long that is for this holder: T (1 + rho) and the margin, both generous, if that is longer.
fn quarantine(view: &LeaseView) -> Duration {
    let held = view.holder.as_ref().and_then(|seen| seen.value.held());
    let ttl = Duration::from_secs(held.map_or(0, |held| held.ttl_s.min(MAX_TTL_S)));
    QUARANTINE.max(ttl.mul_f64(1.085) + Duration::from_millis(250))
}

/// Why the store was not changed.
#[derive(Debug, thiserror::Error)]
pub enum StraightError {
    /// Against the rules.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The named host has no instance that could hold.
    #[error("{0} has no ready candidate; `handover lease show` lists who could take the lease")]
    NoCandidate(AgentId),
    /// Something moved.
    #[error(
        "the lease changed meanwhile; look at `handover lease show`, and give the order again if it still makes sense"
    )]
    Moved,
    /// The era that stands there is none.
    #[error(
        "the era of {service}'s scheduler lease cannot be read ({why}), so nobody can hold it; two people replace it by \
         {next}, the one after the last turn's: `handover --service {service} lease era --raise --by NAME --second NAME \
         --because TEXT`"
    )]
    NoEra {
        /// Whose.
        service: Service,
        /// What is wrong with it.
        why: String,
        /// The one that would replace it.
        next: u16,
    },
    /// The store cannot be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value is not readable.
    #[error(transparent)]
    Stored(#[from] StoredError),
}

impl StraightError {
    /// Whether a rule forbids it.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::NoCandidate(_) | Self::Moved | Self::NoEra { .. })
    }
}

fn refused(refused: Refused) -> StraightError {
    refused.into()
}

/// The era key as it stands, which nobody can read.
struct NoEra {
    /// Its revision.
    written: Revision,
    /// What is said about it.
    refusal: StraightError,
}

/// The lease of one service, straight from the store.
struct Straight {
    store: Store,
    service: Service,
    keys: LeaseKeys,
    view: LeaseView,
}

impl Session {
    async fn straight(&self) -> Result<Straight, CliError> {
        let (straight, no_era) = self.straight_if_without_era().await?;
        no_era.map_or(Ok(straight), |no_era| Err(no_era.refusal.into()))
    }

    /// The same, and if its era cannot be read, without that: then the second says so.
    async fn straight_if_without_era(&self) -> Result<(Straight, Option<NoEra>), CliError> {
        let global = self.global();
        let store = Store::open(&global.store_access()?)?;
        let world = World::new(&global.env);
        let listing = store.list(&world.keys.prefix()).await.map_err(StraightError::from)?;
        let mut world = World::of_listing(&global.env, listing);
        let service = view::service(&world, &global.service_name());
        let service = service.map_err(|error| CliError::of(&crate::serve::refuse_view(&error)))?;
        let nobody = || CliError::Refused { kind: String::new(), sentence: "no service is known here".to_owned() };
        let service = service.ok_or_else(nobody)?;
        let keys = world.keys.service(&service).lease();
        let broken = world.value::<EraValue>(&keys.era()).err();
        let entry = broken.and_then(|broken| Some((broken, world.remove(&keys.era())?)));
        let view = world.lease(&service).map_err(StraightError::from)?;
        let no_era = entry.map(|(broken, entry)| {
            let why = std::error::Error::source(&broken).map_or_else(|| broken.to_string(), ToString::to_string);
            let next = lease::after_last_turn(&view).0;
            let refusal = StraightError::NoEra { service: service.clone(), why, next };
            NoEra { written: entry.mod_revision, refusal }
        });
        Ok((Straight { store, keys, service, view }, no_era))
    }

    /// `handover lease release --force`.
    ///
    /// # Errors
    /// [`CliError::Straight`].
    pub(super) async fn break_glass(&self, args: &Release) -> Result<Outcome, CliError> {
        let mut straight = self.straight().await?;
        let op = OpId::random();
        // What is wrong with the order is said before anybody waits for it.
        let mut txn = straight.break_glass(args, &op)?;
        if args.asserting.is_none() && straight.view.beat.is_none() {
            let wait = quarantine(&straight.view);
            eprintln!(
                "handover: nothing is asserted, so the holder gets {} s to stop by himself first",
                wait.as_secs_f64().ceil()
            );
            tokio::time::sleep(wait).await;
            let before = straight.view.turn_revision();
            straight = self.straight().await?;
            if straight.view.turn_revision() != before {
                return Err(StraightError::Moved.into());
            }
            txn = straight.break_glass(args, &op)?;
        }
        straight.move_lease(&txn, &op).await?;
        let whose = args.to.as_ref().map_or_else(|| "free".to_owned(), |agent| format!("given to {agent}"));
        let text =
            format!("the scheduler lease of {} is {whose}; `handover lease history` shows by whom", straight.service);
        self.out().answer(&serde_json::json!({ "service": straight.service, "state": whose }), &[text])?;
        Ok(Outcome::Done)
    }

    /// `handover lease era`.
    ///
    /// # Errors
    /// [`CliError::Straight`].
    pub(super) async fn era(&self, args: &EraArgs) -> Result<Outcome, CliError> {
        let (straight, no_era) = self.straight_if_without_era().await?;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (by, second, because) = (text(&args.by), text(&args.second), text(&args.because));
        let who = (by.as_str(), second.as_str(), because.as_str());
        let era = match no_era {
            None if !args.raise => straight.view.era.0,
            None => {
                let era = Era(straight.view.era.0.0.saturating_add(1));
                straight.write(&lease::raise_era(&straight.keys, &straight.view, era, who).map_err(refused)?).await?;
                era
            }
            Some(no_era) if !args.raise => return Err(no_era.refusal.into()),
            Some(NoEra { written, .. }) => {
                let mended = lease::mend_era(&straight.keys, &straight.view, written, who);
                let (era, txn) = mended.map_err(refused)?;
                straight.write(&txn).await?;
                era
            }
        };
        let text = format!("the scheduler lease of {} is in era {}", straight.service, era.0);
        self.out().answer(&serde_json::json!({ "service": straight.service, "era": era.0 }), &[text])?;
        Ok(Outcome::Done)
    }
}

impl Straight {
    /// What two people order, from the lease as it was read.
    fn break_glass(&self, args: &Release, op: &OpId) -> Result<Txn, StraightError> {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let order = BreakGlass {
            by: name(&args.by),
            second: name(&args.second),
            because: args.because.clone(),
            asserting: args.asserting.map(|what| match what {
                Assert::HostPoweredOff => Assertion::HostPoweredOff,
                Assert::FenceEnforced => Assertion::FenceEnforced,
            }),
        };
        let heir = |agent: &AgentId| {
            let there = self.view.candidates.values().map(|seen| &seen.value);
            let of_agent = there.filter(|candidate| candidate.ready && candidate.owner.agent == *agent);
            let found = of_agent.min_by_key(|candidate| candidate.rank);
            found.map(|found| found.owner.instance.clone()).ok_or_else(|| StraightError::NoCandidate(agent.clone()))
        };
        let to = args.to.as_ref().map(heir).transpose()?;
        let stamp = Stamp { at_ms: wall_ms(), stopped_at_ms: None };
        Ok(lease::break_glass(&self.keys, &self.view, order, to.as_ref(), op.clone(), stamp)?)
    }

    /// Writes it; where the answer was lost, the holder key says what became of it.
    async fn move_lease(&self, txn: &Txn, op: &OpId) -> Result<(), StraightError> {
        match self.write(txn).await {
            Err(StraightError::Store(lost @ StoreError::Unknown { .. })) => {
                let key = self.keys.holder();
                let entry = self.store.get(&key).await.ok().flatten();
                let holder = entry.and_then(|entry| decode::<Holder>(&key, &entry.value).ok());
                if holder.is_some_and(|holder| holder.op == *op) { Ok(()) } else { Err(lost.into()) }
            }
            other => other,
        }
    }

    async fn write(&self, txn: &Txn) -> Result<(), StraightError> {
        if self.store.txn(txn).await?.succeeded { Ok(()) } else { Err(StraightError::Moved) }
    }
}
