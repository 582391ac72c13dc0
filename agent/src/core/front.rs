//! The balancers in front of a host: what they are to do, and what they have confirmed.
//!
//! A drain counts as begun only when every balancer says so (`SAFETY.md` R5). Until then the host serves on as a lame
//! duck (R6), and the reason is what the agent waits for.

use std::collections::BTreeMap;

use handover_proto::blocker::BlockerKind;
use handover_proto::ids::SlotId;

use super::next::Waiting;
use super::observed::{LocalRoute, Routes};

/// What a balancer sends requests to: one line of its server list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The host's gate.
    Host,
    /// The instance in a slot, where no gate is in between (mode `signal`).
    Slot(SlotId),
}

/// What a balancer is to do with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Send requests, this share of what the target would get at most.
    Serve {
        /// 1 to 100.
        percent: u8,
    },
    /// Send nothing new.
    Drain,
}

/// What balancers are to do with everything here.
pub type Wishes = BTreeMap<Target, Wish>;

/// Between what a host's balancers choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// Hosts: the gate chooses the instance.
    #[default]
    Host,
    /// Instances.
    Slot,
}

/// What is known of the balancers. None in the list: nobody is told and nobody is waited for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrontSeen {
    /// Between what they choose.
    pub by: By,
    /// Each of them.
    pub balancers: Vec<BalancerSeen>,
}

/// What is known of one balancer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BalancerSeen {
    /// Its name, for people.
    pub name: String,
    /// What it does, in its own words; none: it has not said so, or says something else.
    pub confirmed: Option<Wishes>,
    /// Why that is not what it was told.
    pub trouble: Option<Waiting>,
}

impl FrontSeen {
    /// Why these wishes are not true yet; none: every balancer has confirmed them.
    pub fn pending(&self, wishes: &Wishes) -> Option<Waiting> {
        let open = self.balancers.iter().find(|balancer| balancer.confirmed.as_ref() != Some(wishes))?;
        Some(open.trouble.clone().unwrap_or_else(|| Waiting {
            kind: BlockerKind::BalancerNotConfirmed,
            sentence: format!("{} to say that it {}", open.name, said(wishes)),
        }))
    }

    /// Whether the host must go on serving although it is to serve nothing: a balancer may still send here.
    pub(super) fn keeps(&self) -> Option<Waiting> {
        if self.by == By::Slot {
            return None;
        }
        self.pending(&Wishes::from([(Target::Host, Wish::Drain)]))
    }
}

fn said(wishes: &Wishes) -> &'static str {
    if wishes.values().all(|wish| *wish == Wish::Drain) { "sends nothing more here" } else { "sends as it was told" }
}

/// What balancers are to do, so that requests go where the routes say.
///
/// A balancer cannot tell reads from writes. Where it chooses between instances, the weights for writes count, since what
/// may take a write may take a read; those for reads count where nothing takes writes.
pub fn wishes(routes: &Routes, by: By, slots: &mut dyn Iterator<Item = &SlotId>) -> Wishes {
    let away = routes.leaving || !routes.open;
    let takes = |route: &&LocalRoute| route.ready && route.reads + route.writes > 0;
    match by {
        By::Host => {
            let served = routes.local.iter().any(|route| takes(&route));
            let wish = if away || !served { Wish::Drain } else { Wish::Serve { percent: 100 } };
            Wishes::from([(Target::Host, wish)])
        }
        By::Slot => {
            let writes = routes.local.iter().any(|route| route.writes > 0);
            let wish = |slot: &SlotId| {
                let route = routes.local.iter().find(|route| route.slot == *slot).filter(takes);
                let weight = route.map_or(0, |route| if writes { route.writes } else { route.reads });
                match u8::try_from(weight.min(100)) {
                    Ok(percent) if percent > 0 && !away => Wish::Serve { percent },
                    _ => Wish::Drain,
                }
            };
            slots.map(|slot| (Target::Slot(slot.clone()), wish(slot))).collect()
        }
    }
}

#[cfg(test)]
mod tests;
