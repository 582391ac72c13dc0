//! Who leads, and with what right.

use handover_proto::numbers::Term;
use handover_proto::stored::STORED_VERSION;
use handover_proto::txn::{Cmp, Revision};
use handover_store::client::Entry;
use serde::{Deserialize, Serialize};

/// What stands under the leader key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Version of the stored form.
    pub v: u32,
    /// Where it listens.
    pub endpoint: String,
    /// Its host's boot id and network namespace: together with the endpoint, the one place that it can listen at.
    pub place: String,
    /// Its host's name, for people.
    pub host: String,
}

/// The right to decide, until somebody else has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mandate {
    /// The leader key.
    pub key: String,
    /// The revision that created it; every write of ours compares it.
    pub create_revision: Revision,
    /// What the agents know it by.
    pub term: Term,
    /// Where its holder listens.
    pub endpoint: String,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Leadership {
    /// Nobody that we know of.
    #[default]
    Unknown,
    /// Another coordinator.
    Following(Leader),
    /// We do.
    Leading(Mandate),
}

impl Mandate {
    pub(super) fn is_of(&self, entry: &Entry) -> bool {
        entry.key == self.key && entry.create_revision == self.create_revision
    }

    /// The comparison that a deposed leader fails.
    pub fn compare(&self) -> Cmp {
        Cmp::CreateRevision(self.key.clone(), self.create_revision)
    }
}

impl Leadership {
    /// Our mandate, while we lead.
    pub fn mandate(&self) -> Option<&Mandate> {
        match self {
            Self::Leading(mandate) => Some(mandate),
            Self::Unknown | Self::Following(_) => None,
        }
    }
}

impl Leader {
    /// This process, listening at `endpoint`.
    ///
    /// # Errors
    /// If the host's boot id cannot be read.
    pub fn here(endpoint: String) -> std::io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let net = std::fs::read_link("/proc/self/ns/net")?;
        let host = nix::unistd::gethostname().map_err(std::io::Error::from)?;
        Ok(Self {
            v: STORED_VERSION,
            endpoint,
            place: format!("{} {}", boot.trim(), net.display()),
            host: host.to_string_lossy().into_owned(),
        })
    }
}
