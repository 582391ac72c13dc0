//! What must outlive the agent's process: very little, because the store knows the rest.
//!
//! The holder key names the instance, its etcd lease and the turn; the first accepted renewal gives the deadline anew. Only
//! two things stand nowhere else: which cluster it was, and whether this agent may have sent a T3 or T4 that is still on
//! its way. It is therefore written when one of them changes and not with every renewal, and a disk that stalls stops no
//! renewal. Everything but the cluster is void after another boot.

use std::collections::BTreeMap;

use handover_proto::ids::InstanceId;
use handover_proto::numbers::{Era, Token};
use handover_proto::txn::Revision;
use serde::{Deserialize, Serialize};

/// Version of the file's form.
const MEMORY_VERSION: u32 = 1;

/// The state file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Version of the form.
    pub v: u32,
    /// The boot that the turns belong to.
    pub boot_id: String,
    /// Which cluster has answered.
    pub cluster: Option<u64>,
    /// The highest era that it has shown: a restored store is believed again only with a higher one.
    #[serde(default)]
    pub era: Era,
    /// The newest turn that it has shown: a lower one, later, is of a restored store.
    #[serde(default)]
    pub last_turn: Revision,
    /// It went back to an older revision, and no higher era has been seen since.
    #[serde(default)]
    pub went_back: bool,
    /// Turns of this host's instances.
    pub turns: BTreeMap<InstanceId, RememberedTurn>,
}

/// A turn of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedTurn {
    /// Of the holder key.
    pub revision: Revision,
    /// Its token.
    pub token: Token,
    /// A T3 or T4 may have been sent.
    pub leaving: bool,
}

impl Memory {
    /// Empty, of this boot.
    pub fn of_boot(boot_id: &str) -> Self {
        Self { v: MEMORY_VERSION, boot_id: boot_id.to_owned(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_file_of_the_previous_form_knows_no_era_and_no_restore() {
        let text = r#"{"v":1,"boot_id":"b","cluster":7,"turns":{"00000000000000aa":{"revision":48,"token":48,"leaving":true}}}"#;
        let memory: Memory = serde_json::from_str(text).expect("the previous form");
        assert_eq!((memory.era, memory.last_turn, memory.went_back, memory.turns.len()), (Era(0), 0, false, 1));
    }
}
