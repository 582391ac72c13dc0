//! Whether the store that answers is the one that answered before (F23 of `SAFETY.md` §1.13).
//!
//! A store that was restored from a backup, or replaced, shows lower revisions, so tokens would go back and a proof of
//! stop may date from before the loss. Nobody acts on such a store until two people have raised the era in it:
//!
//! ```text
//! believed --(another cluster | revisions went back)--> refused --(an era above the known one)--> believed anew
//! ```

use std::time::Duration;

use handover_proto::numbers::Era;
use handover_proto::txn::Revision;

use super::deadline::Boot;

/// A single low answer is no proof: versions 3.4.20 to 3.4.41 and 3.5.0 to 3.5.27 can answer one stale read after a
/// pause of their leader. All answers over this time are.
const PROOF: Duration = Duration::from_secs(2);

/// What is known of the store as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Belief {
    cluster: Option<u64>,
    era: Era,
    /// The newest turn that it has shown.
    last_turn: Revision,
    /// The newest turn that an earlier process of this agent saw: whatever is asked for from now on, no intact store
    /// answers with less.
    least: Revision,
    /// Since when every answer has shown a revision lower than one that was known when it was asked for.
    low: Option<(Boot, Revision, Revision)>,
    refused: Option<Refused>,
}

/// Why the store is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// Another cluster id.
    OtherCluster,
    /// A lower revision than was known before.
    WentBack { shown: Revision, known: Revision },
}

/// One answer, as far as belief depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Who answered.
    pub cluster: u64,
    /// Its revision.
    pub revision: Revision,
    /// What this process knew when it asked for it; 0: nothing, or not to be compared.
    pub floor: Revision,
    /// No intact store answers below that; 0: not to be compared.
    pub least: Revision,
    /// The era key, if the answer shows it (absent: 0).
    pub era: Option<Era>,
    /// The holder key's revision went back, though the answer is not older: no intact store does that.
    pub rewritten: Option<(Revision, Revision)>,
}

/// What an answer is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    /// It counts.
    Counts,
    /// It counts, and nothing that was known before does: the era was raised in a restored store.
    Anew,
    /// It is to be dropped.
    Nothing,
}

impl Belief {
    /// As an earlier process of this agent left it.
    pub fn remembered(cluster: Option<u64>, era: Era, last_turn: Revision, went_back: bool) -> Self {
        let refused = went_back.then_some(Refused::WentBack { shown: 0, known: 0 });
        Self { cluster, era, last_turn, least: last_turn, low: None, refused }
    }

    /// The newest turn that an earlier process of this agent saw.
    pub fn least(&self) -> Revision {
        self.least
    }

    /// The newest turn that it has shown: a lower one, later, is of a restored store.
    pub fn last_turn(&self) -> Revision {
        self.last_turn
    }

    /// It shows this turn.
    pub fn note_turn(&mut self, turn: Revision) {
        self.last_turn = self.last_turn.max(turn);
    }

    /// Which cluster is believed.
    pub fn cluster(&self) -> Option<u64> {
        self.cluster
    }

    /// The highest era that it has shown.
    pub fn era(&self) -> Era {
        self.era
    }

    /// Whether revisions went back: to be remembered, since they grow past the known ones again by themselves.
    pub fn went_back(&self) -> bool {
        matches!(self.refused, Some(Refused::WentBack { .. }))
    }

    /// Judges one answer.
    pub fn judge(&mut self, shown: &Shown, now: Boot) -> Worth {
        // A raised era may be seen first in an answer whose revision says nothing, or in the middle of a doubt: it may follow
        // a restore that no answer has proved yet, and the raise was for that one. Whoever has never heard from a store has
        // nothing to forget.
        let blind = self.cluster.is_some() && (shown.floor == 0 || self.low.is_some());
        let other = *self.cluster.get_or_insert(shown.cluster) != shown.cluster;
        if (other || blind || self.refused.is_some()) && shown.era.is_some_and(|era| era > self.era) {
            *self = Self { cluster: Some(shown.cluster), era: shown.era.unwrap_or_default(), ..Self::default() };
            return Worth::Anew;
        }
        if other {
            self.refused = self.refused.or(Some(Refused::OtherCluster));
            return Worth::Nothing;
        }
        if self.refused == Some(Refused::OtherCluster) {
            self.refused = None;
        }
        if let Some((shown, known)) = shown.rewritten {
            self.refused = Some(Refused::WentBack { shown, known });
        } else if shown.revision < shown.least {
            let low = *self.low.get_or_insert((now, shown.revision, shown.least));
            if now.since(low.0) >= PROOF {
                self.refused = Some(Refused::WentBack { shown: shown.revision, known: shown.least });
            }
            return Worth::Nothing;
        } else if shown.least > 0 {
            self.low = None;
        }
        if self.refused.is_some() {
            return Worth::Nothing;
        }
        self.era = self.era.max(shown.era.unwrap_or_default());
        Worth::Counts
    }

    /// Why nothing may be moved yet, though it may turn out to be nothing.
    pub fn doubt(&self) -> Option<String> {
        let (_, shown, known) = self.low?;
        Some(format!("it answers with revision {shown}, older than the known {known}; asking again"))
    }

    /// Why nobody may act, and what to do.
    pub fn trouble(&self) -> Option<String> {
        let what = match self.refused? {
            Refused::OtherCluster => {
                "another cluster answers than before: the store was replaced or restored".to_owned()
            }
            Refused::WentBack { known: 0, .. } => {
                "the store went back to an older revision: it was restored from a backup".to_owned()
            }
            Refused::WentBack { shown, known } => {
                format!("the store went back from revision {known} to {shown}: it was restored from a backup")
            }
        };
        Some(format!("{what}; {}", command(self.era)))
    }
}

/// What two people do about it.
pub(super) fn command(known: Era) -> String {
    format!(
        "make sure that nothing is left of the old one, then two people raise the era above {}: `handover lease era \
         --raise --by NAME --second NAME --because \"store restored\"`",
        known.0
    )
}

/// The era key says what fits no token, or nothing at all: what two people do about it.
pub(super) fn unreadable_era(why: &str) -> String {
    format!(
        "the era cannot be read ({why}); two people replace it by the one after the last turn's: `handover lease era \
         --raise --by NAME --second NAME --because \"the era could not be read\"`"
    )
}

#[cfg(test)]
mod tests;
