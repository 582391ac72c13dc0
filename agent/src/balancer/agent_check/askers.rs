//! Who asks, and what they have been told: from this, whether every HAProxy knows. Pure.
//!
//! HAProxy is the one that asks, so all that can be known is that it has been answered since it was to change. Askers are
//! told apart by address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use handover_proto::blocker::BlockerKind;

use crate::core::front::{Target, Wish, Wishes};
use crate::core::next::Waiting;
use crate::core::observed::Boot;

/// An asker that has been silent for this long is gone: an HAProxy that was taken away, or an old process of it.
const GONE: Duration = Duration::from_secs(60);
/// As many are remembered; there are a handful of HAProxies.
pub const LIMIT: usize = 64;

/// Everybody who asks about one target or another.
#[derive(Debug, Clone, Default)]
pub struct Askers {
    told: Option<(Wishes, Boot)>,
    /// Since when anything was told.
    began: Boot,
    seen: BTreeMap<(Target, IpAddr), Asker>,
    /// Who asked last and was not told to drain, when, and why.
    refused: Option<(IpAddr, Boot, String)>,
}

/// Room in the record for one more to whom a drain is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Room {
    /// There is.
    Free,
    /// If this one is forgotten: nobody has asked for it for long.
    InsteadOf(Target, IpAddr),
    /// There is none.
    None,
}

#[derive(Debug, Clone, Copy)]
struct Asker {
    last: Boot,
    heard: Option<Wish>,
    /// Since when it has been told, in an undo, to lift our drain.
    undoing: Option<Boot>,
}

impl Askers {
    /// From now on these are the answers.
    pub fn tell(&mut self, wishes: &Wishes, now: Boot) {
        if self.told.is_none() {
            self.began = now;
        }
        if self.told.as_ref().is_none_or(|(before, _)| before != wishes) {
            self.told = Some((wishes.clone(), now));
        }
    }

    /// What to answer about a target. A drain waits until the same asker knows of one that is to serve (`SAFETY.md` R8): in
    /// between it would have nobody to send to.
    pub fn wish(&self, target: &Target, asker: IpAddr, settle: Duration, now: Boot) -> Option<Wish> {
        let wish = self.told.as_ref()?.0.get(target).copied()?;
        match (wish, self.first_to_hear_of(asker, settle, now)) {
            (Wish::Drain, Some(_)) => self.heard(target, asker).or(Some(wish)),
            (wish, _) => Some(wish),
        }
    }

    /// What this asker must be told of before anything is drained. Nothing for one that has never asked about any that is
    /// to serve, though it has had the time: it was not told to drain those, and is not going to hear of them.
    fn first_to_hear_of(&self, asker: IpAddr, settle: Duration, now: Boot) -> Option<&Target> {
        let (wishes, since) = self.told.as_ref()?;
        let serve = || wishes.iter().filter(|(_, wish)| **wish != Wish::Drain);
        let asked_about = |(other, _): &(&Target, &Wish)| self.seen.contains_key(&((*other).clone(), asker));
        if serve().any(|(other, wish)| self.heard(other, asker) == Some(*wish)) {
            return None;
        }
        let first = serve().find(asked_about);
        first.or_else(|| serve().next().filter(|_| now < *since + settle)).map(|(other, _)| other)
    }

    fn heard(&self, target: &Target, asker: IpAddr) -> Option<Wish> {
        self.seen.get(&(target.clone(), asker))?.heard
    }

    /// Whether a drain may be recorded for one more than these.
    pub fn room(&self, recorded: &[(Target, IpAddr)], now: Boot) -> Room {
        if recorded.len() < LIMIT {
            return Room::Free;
        }
        // Those of an earlier agent may have asked until it ended.
        let last = |at: &(Target, IpAddr)| self.seen.get(at).map_or(self.began, |asker| asker.last);
        let longest = recorded.iter().min_by_key(|at| last(at)).filter(|at| last(at) + GONE <= now);
        longest.map_or(Room::None, |(target, asker)| Room::InsteadOf(target.clone(), *asker))
    }

    /// Somebody asked and could not be told to drain. It may send, so that no drain is known for as long as it may be there.
    pub fn refused(&mut self, asker: IpAddr, why: &str, now: Boot) {
        self.refused = Some((asker, now, why.to_owned()));
    }

    /// All targets.
    pub fn wishes(&self) -> Option<&Wishes> {
        self.told.as_ref().map(|(wishes, _)| wishes)
    }

    /// Somebody was answered this. `drained`: our record says that our drain stands there. True: the undo has been said
    /// for long enough, and the record can forget it.
    ///
    /// An undo is said for a while, not once: two HAProxies may ask from one address.
    pub fn answered(&mut self, at: (Target, IpAddr), wish: Wish, drained: bool, settle: Duration, now: Boot) -> bool {
        if self.seen.len() >= LIMIT && !self.seen.contains_key(&at) {
            self.seen.retain(|_, asker| asker.last + GONE > now);
            if self.seen.len() >= LIMIT {
                return false;
            }
        }
        let asker = self.seen.entry(at).or_insert(Asker { last: now, heard: None, undoing: None });
        (asker.last, asker.heard) = (now, Some(wish));
        let undo = drained && wish != Wish::Drain;
        asker.undoing = if undo { asker.undoing.or(Some(now)) } else { None };
        asker.undoing.is_some_and(|since| now >= since + settle)
    }

    /// Why not everybody knows yet, or the wishes that everybody knows.
    pub fn known(&self, settle: Duration, now: Boot) -> Result<Option<Wishes>, Waiting> {
        let Some((wishes, since)) = &self.told else { return Ok(None) };
        let unknown = |kind, sentence| Err(Waiting { kind, sentence });
        let drains = wishes.values().any(|wish| *wish == Wish::Drain);
        if let Some((address, _, why)) = self.refused.as_ref().filter(|(_, at, _)| drains && *at + GONE > now) {
            let sentence = format!("HAProxy at {address}, which asks the agent-check port, to be told to drain: {why}");
            return unknown(BlockerKind::BalancerNotConfirmed, sentence);
        }
        for target in wishes.keys() {
            let of_target = self.seen.iter().filter(|((it, _), _)| it == target);
            let present: Vec<_> = of_target.filter(|(_, asker)| asker.last + GONE > now).collect();
            let about = about(target);
            if present.is_empty() {
                let sentence = match now >= *since + settle {
                    true => {
                        format!(
                            "no HAProxy asks the agent-check port{about}; is `agent-check agent-port` in its server line?"
                        )
                    }
                    false => format!("HAProxy to ask the agent-check port{about}"),
                };
                return unknown(BlockerKind::BalancerUnreachable, sentence);
            }
            let wish = wishes.get(target).copied();
            if let Some(((_, address), _)) = present.iter().find(|(_, asker)| asker.heard != wish) {
                let first = self.first_to_hear_of(*address, settle, now).filter(|_| wish == Some(Wish::Drain));
                let again = match first {
                    Some(first) => format!("{}, before it is told to drain", self::about(first)),
                    None => format!("{about} again"),
                };
                let sentence = format!("HAProxy at {address} to ask the agent-check port{again}");
                return unknown(BlockerKind::BalancerNotConfirmed, sentence);
            }
        }
        if now < *since + settle {
            let sentence = "every HAProxy to have asked the agent-check port".to_owned();
            return unknown(BlockerKind::BalancerNotConfirmed, sentence);
        }
        Ok(Some(wishes.clone()))
    }
}

/// Several are told apart by the slot.
fn about(target: &Target) -> String {
    match target {
        Target::Host => String::new(),
        Target::Slot(slot) => format!(" about slot {slot}"),
    }
}

#[cfg(test)]
mod tests;
