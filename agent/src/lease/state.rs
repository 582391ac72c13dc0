//! Everything that the keeper knows, as plain data.
//!
//! ```text
//! no turn --Begin--> Active <--> Quiesce --(idle) T3, T4, T5--> the store's next turn --End--> no turn
//!                      \______________ Fenced (ownership lost) ________(idle or dead)______/
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use handover_proto::ids::{InstanceId, OpId};
use handover_proto::keys::LeaseKeys;
use handover_proto::lease::{Held, StopProof};
use handover_proto::numbers::{Era, Token};
use handover_proto::planted::{Mistake, planted};
use handover_proto::txn::{LeaseId, Revision};

use super::belief::Belief;
use super::certificate::Certificate;
use super::deadline::{Boot, Deadlines};
use super::fitness::HostFacts;
use super::ladder::Doom;
use super::local::{Chore, Local};
use super::memory::{Memory, RememberedTurn};
use super::picture::Picture;
use super::settings::LeaseSettings;
use super::suspect::Suspicion;
use super::versions::Trust;

/// The keeper's state. Changed by [`Core::started`](super::next) and [`Core::apply`](super::event) alone.
#[derive(Debug, Clone)]
pub struct Core {
    pub(super) settings: LeaseSettings,
    pub(super) boot_id: String,
    pub(super) picture: Picture,
    pub(super) locals: BTreeMap<InstanceId, Local>,
    /// The one lease transaction whose outcome no read has shown yet.
    pub(super) pending: Option<Pending>,
    /// Etcd leases that have done their service, to be revoked.
    pub(super) spent: BTreeMap<LeaseId, Chore>,
    /// Since when the open intent has been seen.
    pub(super) intent_since: Option<(OpId, Boot)>,
    pub(super) read: Chore,
    /// The newest revision that was known when the read was begun.
    pub(super) read_floor: Revision,
    pub(super) save: Chore,
    /// Asking the members for their versions.
    pub(super) survey: Chore,
    /// What they said.
    pub(super) trust: Trust,
    pub(super) roster_put: Chore,
    /// Asking the lost holder's agent for a certificate.
    pub(super) ask: Chore,
    pub(super) certificate: Option<Certificate>,
    /// No lease transaction before this: the last one did not get through.
    pub(super) move_rest: Boot,
    /// What is in the state file for certain.
    pub(super) saved: Memory,
    /// Turns of an earlier agent process, until their instances are reported.
    pub(super) restored: BTreeMap<InstanceId, RememberedTurn>,
    /// The last failure of the store; none: it answered since.
    pub(super) store_trouble: Option<String>,
    /// The last failure of the state file; none: it was written since.
    pub(super) disk_trouble: Option<String>,
    /// The last transaction that the store has told this very process that it did.
    pub(super) confirmed: Option<OpId>,
    /// What may have happened to this host last, and when it was found: no renewal from before that counts any more.
    pub(super) suspected: Option<(Suspicion, Boot)>,
    pub(super) host: HostFacts,
    /// From the start of this agent process to the first renewal of a turn that it inherited.
    pub(super) restarted_in: Option<Duration>,
}

/// A turn that an instance holds, or held until its service has stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MyTurn {
    pub(super) revision: Revision,
    pub(super) token: Token,
    /// When this process took notice of it.
    pub(super) adopted: Boot,
    /// From the last accepted renewal; none: none since an agent restart.
    pub(super) deadlines: Option<Deadlines>,
    /// It may end by T3 or T4; recorded in the state file before either is sent.
    pub(super) leaving: bool,
    /// A T3, T4 or T5 may still arrive in the store. It compares this turn's revision, so only a new turn makes sure that
    /// it does not, and until then the service stays stopped.
    pub(super) haunted: bool,
    /// An earlier agent process may have told the service to begin.
    pub(super) inherited: bool,
}

/// What a service is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Not known: what was said before stands until its deadline.
    Unknown,
    /// No turn, no work.
    Stopped,
    /// Work until the soft deadline.
    Active,
    /// Finish the present unit, start none.
    Quiesce(Why),
    /// The turn is somebody else's.
    Fenced,
}

/// Why a holder's service is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// To hand over, as this intent asks.
    HandOver(OpId),
    /// To give the lease up without a successor, as this intent asks.
    Park(OpId),
    /// The instance is to be stopped.
    GiveUp,
    /// No renewal was accepted in time.
    Deadline,
    /// The beat is gone: the etcd lease was lost.
    LeaseLost,
    /// An earlier transaction may still arrive.
    Haunted,
    /// The era was raised under the turn.
    EraRaised,
    /// The database has seen a token that is not below this turn's (I12).
    FenceRegression,
    /// The store's keys cannot be trusted.
    Corrupt(String),
    /// This host may have been away: until a renewal that began afterwards is accepted.
    Suspect(Suspicion),
    /// Its processes are being ended.
    Doomed(Doom),
}

/// One of the lease's transactions (`SAFETY.md` §1.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// T1.
    Acquire,
    /// T2.
    TakeOver,
    /// T3.
    HandOver,
    /// T4.
    Release(StopProof),
    /// T5.
    Mint,
}

/// A transaction on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) op: OpId,
    pub(super) instance: InstanceId,
    pub(super) kind: Move,
    pub(super) stage: Stage,
}

/// How much is known of a transaction's outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// No answer yet.
    Sent,
    /// An answer, or none in time: only a read says what stands.
    Answered,
    /// The read is under way.
    Reading,
}

impl Core {
    /// A keeper that has seen nothing but `memory`, which an earlier process may have left on this boot.
    pub fn new(settings: LeaseSettings, keys: LeaseKeys, boot_id: &str, memory: Option<Memory>) -> Self {
        let memory = memory.unwrap_or_default();
        // Deadlines, processes and instance ids end with the boot; which cluster it is does not.
        let restored = if memory.boot_id == boot_id { memory.turns.clone() } else { BTreeMap::new() };
        Self {
            picture: Picture::new(
                keys,
                Belief::remembered(memory.cluster, memory.era, memory.last_turn, memory.went_back),
            ),
            settings,
            boot_id: boot_id.to_owned(),
            locals: BTreeMap::new(),
            pending: None,
            spent: BTreeMap::new(),
            intent_since: None,
            read: Chore::default(),
            read_floor: 0,
            save: Chore::default(),
            survey: Chore::default(),
            trust: Trust::default(),
            roster_put: Chore::default(),
            ask: Chore::default(),
            certificate: None,
            move_rest: Boot::default(),
            saved: memory,
            restored,
            store_trouble: None,
            disk_trouble: None,
            confirmed: None,
            suspected: None,
            host: HostFacts::default(),
            restarted_in: None,
        }
    }

    /// The newest turn that it has heard of in the store that it believes; 0: none.
    pub fn last_turn(&self) -> Revision {
        self.picture.belief().last_turn()
    }

    /// What the state file should say now.
    pub(super) fn memory(&self) -> Memory {
        let turn = |(id, local): (&InstanceId, &Local)| {
            let turn = local.turn.as_ref()?;
            let leaving = turn.leaving || turn.haunted;
            Some((id.clone(), RememberedTurn { revision: turn.revision, token: turn.token, leaving }))
        };
        let mut turns = self.restored.clone();
        turns.extend(self.locals.iter().filter_map(turn));
        let belief = self.picture.belief();
        let (cluster, era, went_back) = (belief.cluster(), belief.era(), belief.went_back());
        let last_turn = belief.last_turn();
        Memory { cluster, era, last_turn, went_back, turns, ..Memory::of_boot(&self.boot_id) }
    }

    /// Why the state file does not say what it should.
    pub(super) fn unsaved(&self) -> Option<String> {
        self.disk_trouble.clone().filter(|_| self.memory() != self.saved)
    }

    /// Whether the state file says for certain that this turn may end.
    pub(super) fn leaving_is_saved(&self, id: &InstanceId, turn: &MyTurn) -> bool {
        let saved = self.saved.turns.get(id).filter(|saved| saved.revision == turn.revision);
        self.saved.boot_id == self.boot_id && saved.is_some_and(|saved| saved.leaving)
    }

    /// Where `id`'s service takes its calls.
    pub(super) fn app(&self, id: &InstanceId) -> Option<SocketAddr> {
        self.locals.get(id).map(|local| local.wanted.app)
    }

    /// Whether the store shows this turn as the present one.
    pub(super) fn is_present(&self, id: &InstanceId, turn: &MyTurn) -> bool {
        self.picture.held().is_some_and(|(seen, held)| seen.mod_revision == turn.revision && self.owns(held, id))
    }

    /// Whether the store shows `id` as the holder, by whichever turn.
    pub(super) fn is_holder(&self, id: &InstanceId) -> bool {
        self.picture.held().is_some_and(|(_, held)| self.owns(held, id))
    }

    /// Whether the turn is `id`'s: one token stands for one process (`SAFETY.md` §1.4, rule 3).
    pub(super) fn owns(&self, held: &Held, id: &InstanceId) -> bool {
        if planted(Mistake::SameTokenForNewProcess) {
            let alive = |id| self.locals.get(id).is_some_and(Local::is_alive);
            return alive(id)
                && (held.owner.instance == *id || !alive(&held.owner.instance))
                && self.locals.get(id).is_some_and(|local| local.wanted.owner.agent == held.owner.agent);
        }
        held.owner.instance == *id
    }

    /// The store's era.
    pub(super) fn era(&self) -> Era {
        self.picture.view().era.0
    }

    /// Whether the turn's beat is there and bound to the instance's own lease.
    pub(super) fn is_beating(&self, local: &Local, turn: &MyTurn) -> bool {
        let beat = self.picture.view().beat.as_ref();
        let lease = local.live.as_ref().map(|live| live.id);
        beat.is_some_and(|beat| beat.mod_revision == turn.revision && Some(beat.lease) == lease)
    }

    /// The turn's deadlines.
    pub(super) fn deadlines(&self, turn: &MyTurn) -> Deadlines {
        turn.deadlines.unwrap_or_else(|| Deadlines::provisional(turn.adopted, &self.settings))
    }
}
