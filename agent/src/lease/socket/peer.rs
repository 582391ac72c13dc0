//! Who may ask on `lease.sock`, by the credentials that the kernel vouches for. Pure.
//!
//! A false QUIESCED would be taken for a proof of stop, so reading and acknowledging need the same right: the agent's own
//! user, root, or the user or group that the config names for the slot of the instance in question.

use std::collections::BTreeMap;
use std::fmt;

use handover_proto::ids::SlotId;

/// Root may do what it likes on its host.
const ROOT: u32 = 0;

/// The process at the other end, as of its connecting (SO_PEERCRED).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its process id, if it is in a PID namespace that we see.
    pub pid: Option<i32>,
}

/// As whom a slot's instance runs, if not as the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotPeer {
    /// The user.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
}

/// Everybody who may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callers {
    own: u32,
    slots: BTreeMap<SlotId, SlotPeer>,
}

/// A peer that may not ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{peer} may not ask about {what}: allowed are root, the agent's own user {own}, and whom the config names for the \
     slot; to allow it, write user = \"{uid}\" (or group = \"{gid}\") under the [[slot]] and restart the agent",
    uid = peer.uid, gid = peer.gid
)]
pub struct Refused {
    peer: Peer,
    own: u32,
    what: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}, group {}", self.uid, self.gid)?;
        match self.pid {
            Some(pid) => write!(f, " (process {pid})"),
            None => Ok(()),
        }
    }
}

impl Callers {
    /// Root, the agent's own user, and whom the config names for each slot.
    pub fn new(own: u32, slots: BTreeMap<SlotId, SlotPeer>) -> Self {
        Self { own, slots }
    }

    /// Whether somebody else than the agent's own user and root is named: then the socket's file mode must let them in.
    pub fn names_others(&self) -> bool {
        self.slots.values().any(|slot| slot.uid.is_some_and(|uid| uid != self.own) || slot.gid.is_some())
    }

    /// Whether `peer` may ask and acknowledge for the instance in `slot`; none: about one that is not running.
    ///
    /// # Errors
    /// [`Refused`], with who it was and how to allow it.
    pub fn check(&self, peer: Peer, slot: Option<&SlotId>) -> Result<(), Refused> {
        let named = |slot: &SlotPeer| slot.uid == Some(peer.uid) || slot.gid == Some(peer.gid);
        let by_slot = match slot {
            Some(slot) => self.slots.get(slot).is_some_and(named),
            None => self.slots.values().any(named),
        };
        if peer.uid == ROOT || peer.uid == self.own || by_slot {
            return Ok(());
        }
        let what =
            slot.map_or_else(|| "this agent's instances".to_owned(), |slot| format!("the instance in slot {slot}"));
        Err(Refused { peer, own: self.own, what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Callers {
        let slot = |uid, gid| SlotPeer { uid, gid };
        let slots = [("a", slot(Some(1001), None)), ("b", slot(None, Some(2000)))];
        Callers::new(500, slots.map(|(id, peer)| (id.parse().expect("slot"), peer)).into())
    }

    fn ask(uid: u32, gid: u32, slot: Option<&str>) -> Result<(), Refused> {
        let slot = slot.map(|slot| slot.parse().expect("slot"));
        peers().check(Peer { uid, gid, pid: Some(77) }, slot.as_ref())
    }

    #[test]
    fn root_and_the_agents_own_user_may_ask_about_everything() {
        for uid in [0, 500] {
            for slot in [Some("a"), Some("b"), Some("c"), None] {
                assert_eq!(ask(uid, 9, slot), Ok(()), "{uid} {slot:?}");
            }
        }
    }

    #[test]
    fn a_slots_user_or_group_may_ask_about_that_slot_and_no_other() {
        assert_eq!(ask(1001, 9, Some("a")), Ok(()));
        assert_eq!(ask(9, 2000, Some("b")), Ok(()));
        ask(1001, 9, Some("b")).expect_err("another's instance: it could claim that it has quiesced");
        ask(9, 2000, Some("a")).expect_err("another's instance");
        assert_eq!(ask(1001, 9, None), Ok(()), "that its own instance is gone it may hear");
    }

    #[test]
    fn a_refusal_says_who_was_refused_and_how_to_allow_it() {
        let error = ask(1002, 1003, Some("a")).expect_err("a stranger").to_string();
        for part in ["user 1002", "group 1003", "process 77", "slot a", "user = \"1002\"", "[[slot]]", "500"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        ask(1002, 1003, None).expect_err("nor about instances that are not there");
    }

    #[test]
    fn only_foreign_names_open_the_file() {
        assert!(peers().names_others());
        let own = SlotPeer { uid: Some(500), gid: None };
        assert!(!Callers::new(500, [("a".parse().expect("slot"), own)].into()).names_others());
    }
}
