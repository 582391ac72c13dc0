//! The recent past, for watches that resume. Bounded: whoever comes later is told to list again.

use std::collections::VecDeque;

use handover_proto::txn::Revision;

use super::{Event, Refusal};

/// So many revisions are kept at least a good while: at ten writes a second this is a quarter of an hour.
const MOST_REVISIONS: usize = 10_000;
/// And no more than this, counted in keys and values.
const MOST_BYTES: usize = 16 << 20;

/// What happened, oldest first.
pub(crate) type Past<'a> = std::collections::vec_deque::Iter<'a, (Revision, Vec<Event>)>;

/// The past that was asked for is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// The oldest revision that can still be asked for.
    pub(crate) floor: Revision,
}

#[derive(Debug, Clone)]
pub(super) struct History {
    floor: Revision,
    revisions: VecDeque<(Revision, Vec<Event>)>,
    bytes: usize,
}

impl History {
    pub(super) fn new(floor: Revision, stored: Vec<(Revision, Vec<Event>)>) -> Self {
        let bytes = stored.iter().map(|(_, events)| size(events)).sum();
        Self { floor, revisions: stored.into(), bytes }
    }

    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    pub(super) fn past(&self, from: Revision) -> Result<Past<'_>, Compacted> {
        if from < self.floor {
            return Err(Compacted { floor: self.floor });
        }
        let start = self.revisions.partition_point(|(revision, _)| *revision < from);
        Ok(self.revisions.range(start..))
    }

    /// The floor that a compaction at `revision` sets.
    pub(super) fn compact(&self, revision: Revision, now: Revision) -> Result<Revision, Refusal> {
        if revision > now {
            return Err(Refusal::Future);
        }
        if revision <= self.floor {
            return Err(Refusal::Compacted);
        }
        Ok(revision)
    }

    /// The floor that keeps the limits once these events are added.
    pub(super) fn floor_after(&self, added: &[Event]) -> Revision {
        let (mut count, mut bytes) = (self.revisions.len() + 1, self.bytes + size(added));
        let mut floor = self.floor;
        for (revision, events) in &self.revisions {
            if count <= MOST_REVISIONS && bytes <= MOST_BYTES {
                break;
            }
            count -= 1;
            bytes -= size(events);
            floor = revision + 1;
        }
        floor
    }

    pub(super) fn push(&mut self, revision: Revision, events: Vec<Event>, floor: Revision) {
        if !events.is_empty() {
            self.bytes += size(&events);
            self.revisions.push_back((revision, events));
        }
        self.floor = floor;
        while let Some((_, events)) = self.revisions.pop_front_if(|(revision, _)| *revision < floor) {
            self.bytes -= size(&events);
        }
    }
}

fn size(events: &[Event]) -> usize {
    let previous = |event: &Event| event.previous.as_ref().map_or(0, |kv| kv.value.len());
    events.iter().map(|event| event.kv.key.len() + event.kv.value.len() + previous(event)).sum()
}
