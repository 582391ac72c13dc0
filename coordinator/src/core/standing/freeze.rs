//! What an order does to the key that freezes the lease.

use super::{Freeze, Outcome, Phase, StandingOrder, What};

/// What happens to the key, as long as it is as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FreezeAsk {
    /// Written.
    Put(Freeze),
    /// Deleted.
    Delete,
    /// It stays: the order rests on a freeze that somebody else has given.
    Keep,
}

impl StandingOrder {
    /// What writing the order in its present phase does to the freeze; `present`: as it stands.
    ///
    /// A freeze and its end are done with their record. One that belongs to a release comes with the request to the
    /// holder, and goes again if he does not follow it; that of somebody else is neither replaced nor taken away.
    pub fn freezes(&self, present: Option<&Freeze>) -> Option<FreezeAsk> {
        let Self { v, by, because, at_ms, .. } = self;
        let own = Freeze { v: *v, by: by.clone(), because: because.clone(), at_ms: *at_ms };
        match (&self.what, &self.phase) {
            (What::Freeze, Phase::Ended { outcome: Outcome::Done, .. }) => Some(FreezeAsk::Put(own)),
            (What::Unfreeze, Phase::Ended { outcome: Outcome::Done, .. }) => Some(FreezeAsk::Delete),
            (What::Release { freeze: true }, Phase::Moving { .. }) => {
                Some(if present.is_none() { FreezeAsk::Put(own) } else { FreezeAsk::Keep })
            }
            (What::Release { freeze: true }, Phase::Ended { outcome: Outcome::Undone, .. }) => {
                (present == Some(&own)).then_some(FreezeAsk::Delete)
            }
            _ => None,
        }
    }
}
