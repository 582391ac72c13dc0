//! Starting an instance: verified, recorded, then started.

use handover_proto::blocker::BlockerKind;
use handover_proto::ids::{InstanceId, SlotId, Version};
use tracing::warn;

use super::Host;
use super::trouble::disk;
use crate::artifact::check::Stand;
use crate::clock;
use crate::core::next::Waiting;
use crate::core::observed::Crashes;
use crate::core::slot::retry_after;
use crate::driver::Start;
use crate::ending::ended;
use crate::state::InstanceRecord;

impl Host {
    /// Records the id first, so that an agent that dies here knows that something may run under it.
    pub(super) fn start(&mut self, slot: &SlotId, version: &Version) -> Option<Waiting> {
        let instance = InstanceId::random();
        let record =
            InstanceRecord { instance, version: version.clone(), process: None, lifecycle: None, ready: false };
        match self.verified(slot, version) {
            Stand::Passed => {}
            Stand::Underway => {
                let sentence = format!("slot {slot}: the files of {version} to be verified");
                return Some(Waiting { kind: BlockerKind::Start, sentence });
            }
            Stand::Refused(error) => {
                self.not_started(slot, &record, crate::report::chain(&error));
                return None;
            }
        }
        if let Err(why) = self.forget_lease(slot, &record.instance) {
            self.not_started(slot, &record, why);
            return None;
        }
        let saved = self.file.change(|state| {
            state.note_start(version);
            state.instances.insert(slot.clone(), record.clone());
        });
        if let Err(error) = saved {
            return Some(disk(&error));
        }
        self.order_start(slot, &record);
        self.run(slot.clone(), record);
        None
    }

    fn verified(&self, slot: &SlotId, version: &Version) -> Stand {
        let Some(checker) = &self.checker else { return Stand::Passed };
        let others = self.places.iter().filter(|(other, _)| *other != slot);
        let running = others.filter_map(|(_, place)| Some(place.running.as_ref()?.record.version.clone()));
        checker.ask(version, &running.collect::<Vec<_>>())
    }

    pub(super) fn not_started(&mut self, slot: &SlotId, record: &InstanceRecord, reason: String) {
        warn!(%slot, version = %record.version, %reason, "could not be started");
        if let Some(place) = self.places.get_mut(slot) {
            place.last_exit = Some(ended(record, reason.clone(), false, Vec::new()));
        }
        self.count_crash(slot, &record.version, reason);
    }

    fn order_start(&self, slot: &SlotId, record: &InstanceRecord) {
        let lease =
            self.config.lease.as_ref().map(|_| crate::lease::files::for_children(&self.config.runtime_dir, slot));
        self.driver.order_start(Start {
            slot: slot.clone(),
            port: self.places.get(slot).map_or(0, |place| place.address.port()),
            version: record.version.clone(),
            instance: record.instance.clone(),
            state_dir: self.config.state_dir.clone(),
            env: lease.into_iter().flatten().collect(),
        });
    }

    /// No record of another instance is left for the one that starts: one small file in memory.
    fn forget_lease(&self, slot: &SlotId, instance: &InstanceId) -> Result<(), String> {
        let dir = &self.config.runtime_dir;
        let way = self.config.lease.as_ref().map_or(Ok(()), |_| crate::lease::files::make_way(dir, slot, instance));
        way.map_err(|error| format!("cannot remove the lease.json of an earlier instance of slot {slot}: {error}"))
    }

    pub(super) fn count_crash(&mut self, slot: &SlotId, version: &Version, reason: String) {
        let Some(place) = self.places.get_mut(slot) else { return };
        let before = place.crashes.as_ref().filter(|crashes| crashes.version == *version).map_or(0, |c| c.count);
        let count = before + 1;
        let retry_at = clock::boot() + retry_after(count);
        place.crashes = Some(Crashes { version: version.clone(), count, retry_at, reason });
    }
}
