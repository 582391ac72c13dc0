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
    seen: BTreeMap<(Target, IpAddr), Asker>,
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
        if self.told.as_ref().is_none_or(|(before, _)| before != wishes) {
            self.told = Some((wishes.clone(), now));
        }
    }

    /// What to answer about a target. A drain waits until the same asker knows of one that is to serve (`SAFETY.md` R8): in
    /// between it would have nobody to send to.
    pub fn wish(&self, target: &Target, asker: IpAddr) -> Option<Wish> {
        let (wishes, _) = self.told.as_ref()?;
        let wish = wishes.get(target).copied()?;
        let heard = |target: &Target| self.seen.get(&(target.clone(), asker)).and_then(|asker| asker.heard);
        let mut serve = wishes.iter().filter(|(_, wish)| **wish != Wish::Drain).peekable();
        let covered = serve.peek().is_none() || serve.any(|(other, wish)| heard(other) == Some(*wish));
        if wish == Wish::Drain && !covered { heard(target).or(Some(wish)) } else { Some(wish) }
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
        for target in wishes.keys() {
            let of_target = self.seen.iter().filter(|((it, _), _)| it == target);
            let present: Vec<_> = of_target.filter(|(_, asker)| asker.last + GONE > now).collect();
            if present.is_empty() {
                let sentence = match now >= *since + settle {
                    true => "no HAProxy asks the agent-check port; is `agent-check agent-port` in its server line?",
                    false => "HAProxy to ask the agent-check port",
                };
                return unknown(BlockerKind::BalancerUnreachable, sentence.to_owned());
            }
            let wish = wishes.get(target).copied();
            if let Some(((_, address), _)) = present.iter().find(|(_, asker)| asker.heard != wish) {
                let sentence = format!("HAProxy at {address} to ask the agent-check port again");
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

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_secs(1);
    const ALL: Wish = Wish::Serve { percent: 100 };

    fn at(seconds: u64) -> Boot {
        Duration::from_secs(1000 + seconds)
    }

    fn one() -> (Target, IpAddr) {
        (Target::Host, IpAddr::from([10, 0, 0, 1]))
    }

    fn two() -> (Target, IpAddr) {
        (Target::Host, IpAddr::from([10, 0, 0, 2]))
    }

    fn host(wish: Wish) -> Wishes {
        Wishes::from([(Target::Host, wish)])
    }

    #[test]
    fn a_drain_is_known_once_everybody_who_asks_was_told_and_the_time_to_ask_is_over() {
        let mut askers = Askers::default();
        assert_eq!(askers.known(SETTLE, at(0)), Ok(None), "nothing is told before anything is assigned");
        askers.tell(&host(ALL), at(0));
        askers.answered(one(), ALL, false, SETTLE, at(0));
        askers.answered(two(), ALL, false, SETTLE, at(0));
        askers.tell(&host(Wish::Drain), at(5));
        assert!(askers.known(SETTLE, at(7)).is_err(), "they have not asked since");
        askers.answered(one(), Wish::Drain, false, SETTLE, at(5));
        let waits = askers.known(SETTLE, at(7)).expect_err("the second has not");
        assert!(waits.sentence.contains("10.0.0.2"), "{}", waits.sentence);
        askers.answered(two(), Wish::Drain, false, SETTLE, at(5));
        assert!(askers.known(SETTLE, at(5)).is_err(), "a third may be about to ask for the first time");
        assert_eq!(askers.known(SETTLE, at(6)), Ok(Some(host(Wish::Drain))));
    }

    #[test]
    fn nobody_who_asks_is_a_reason_of_its_own_and_one_who_is_gone_is_not_waited_for() {
        let mut askers = Askers::default();
        askers.tell(&host(Wish::Drain), at(0));
        let waits = askers.known(SETTLE, at(2)).expect_err("nobody asks");
        assert_eq!(waits.kind, BlockerKind::BalancerUnreachable);
        askers.answered(two(), ALL, false, SETTLE, at(0));
        askers.answered(one(), Wish::Drain, false, SETTLE, at(30));
        assert!(askers.known(SETTLE, at(59)).is_err(), "silent, perhaps only slow");
        assert!(askers.known(SETTLE, at(61)).is_ok());
    }

    #[test]
    fn nobody_is_drained_before_the_asker_knows_of_one_that_serves() {
        let slot = |name: &str| Target::Slot(name.parse().expect("slot"));
        let (a, b, asker) = (slot("a"), slot("b"), one().1);
        let mut askers = Askers::default();
        askers.tell(&[(a.clone(), ALL), (b.clone(), Wish::Drain)].into(), at(0));
        for target in [&a, &b] {
            let wish = askers.wish(target, asker).expect("a wish");
            askers.answered((target.clone(), asker), wish, false, SETTLE, at(0));
        }
        askers.tell(&[(a.clone(), Wish::Drain), (b.clone(), ALL)].into(), at(1));
        assert_eq!(askers.wish(&a, asker), Some(ALL), "b has not been asked for yet");
        assert_eq!(askers.wish(&a, two().1), Some(Wish::Drain), "one that was never told otherwise");
        askers.answered((b.clone(), asker), ALL, false, SETTLE, at(1));
        assert_eq!(askers.wish(&a, asker), Some(Wish::Drain));
        askers.tell(&[(a.clone(), Wish::Drain), (b, Wish::Drain)].into(), at(2));
        assert_eq!(askers.wish(&a, asker), Some(Wish::Drain), "where nobody is to serve, at once");
    }

    #[test]
    fn an_undo_is_said_for_a_while_and_then_forgotten() {
        let mut askers = Askers::default();
        assert!(!askers.answered(one(), Wish::Drain, true, SETTLE, at(0)), "a drain undoes nothing");
        assert!(!askers.answered(one(), ALL, true, SETTLE, at(1)));
        assert!(!askers.answered(two(), ALL, true, SETTLE, at(2)), "each for itself");
        assert!(askers.answered(one(), ALL, true, SETTLE, at(2)));
        assert!(!askers.answered(one(), ALL, false, SETTLE, at(9)), "nothing of ours is there");
    }

    #[test]
    fn many_addresses_are_not_remembered_without_end() {
        let mut askers = Askers::default();
        for n in 0..10_000_u32 {
            askers.answered((Target::Host, IpAddr::from(n.to_be_bytes())), ALL, false, SETTLE, at(0));
        }
        assert_eq!(askers.seen.len(), LIMIT);
        askers.answered(one(), ALL, false, SETTLE, at(100));
        assert_eq!(askers.seen.len(), 1);
    }
}
