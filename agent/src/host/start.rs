//! Starting an instance: verified, recorded, then started.

use handover_proto::blocker::BlockerKind;
use handover_proto::ids::{InstanceId, SlotId, Version};
use tracing::{info, warn};

use super::Host;
use super::trouble::disk;
use crate::artifact::check::Stand;
use crate::clock;
use crate::core::next::Waiting;
use crate::core::observed::Crashes;
use crate::core::slot::retry_after;
use crate::driver::{DriverError, ProcessRecord};
use crate::ending::ended;
use crate::state::InstanceRecord;

impl Host {
    /// Records the id first, so that an agent that dies here knows that something may run under it.
    pub(super) async fn start(&mut self, slot: &SlotId, version: &Version) -> Option<Waiting> {
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
        let saved = self.file.change(|state| {
            state.note_start(version);
            state.instances.insert(slot.clone(), record.clone());
        });
        if let Err(error) = saved {
            return Some(disk(&error));
        }
        match self.order_start(slot, &record).await {
            Ok(process) => {
                info!(%slot, instance = %record.instance, %version, pid = process.pid, "started");
                let record = InstanceRecord { process: Some(process), ..record };
                let saved = self.file.change(|state| drop(state.instances.insert(slot.clone(), record.clone())));
                self.run(slot.clone(), record);
                saved.err().map(|error| disk(&error))
            }
            Err(error) => {
                let saved = self.file.change(|state| drop(state.instances.remove(slot)));
                self.not_started(slot, &record, crate::report::chain(&error));
                saved.err().map(|error| disk(&error))
            }
        }
    }

    fn verified(&self, slot: &SlotId, version: &Version) -> Stand {
        let Some(checker) = &self.checker else { return Stand::Passed };
        let others = self.places.iter().filter(|(other, _)| *other != slot);
        let running = others.filter_map(|(_, place)| Some(place.running.as_ref()?.record.version.clone()));
        checker.ask(version, &running.collect::<Vec<_>>())
    }

    fn not_started(&mut self, slot: &SlotId, record: &InstanceRecord, reason: String) {
        warn!(%slot, version = %record.version, %reason, "could not be started");
        if let Some(place) = self.places.get_mut(slot) {
            place.last_exit = Some(ended(record, reason.clone(), false, Vec::new()));
        }
        self.count_crash(slot, &record.version, reason);
    }

    async fn order_start(&self, slot: &SlotId, record: &InstanceRecord) -> Result<ProcessRecord, DriverError> {
        let place = crate::driver::Place {
            slot,
            port: self.places.get(slot).map_or(0, |place| place.address.port()),
            version: &record.version,
            instance: &record.instance,
            state_dir: &self.config.state_dir,
        };
        let lease =
            self.config.lease.as_ref().map(|_| crate::lease::files::for_children(&self.config.runtime_dir, slot));
        if lease.is_some() {
            self.forget_lease(slot, &record.instance).await?;
        }
        self.driver.start(&place, lease.into_iter().flatten().collect()).await
    }

    /// No record of another instance is left for the one that starts.
    async fn forget_lease(&self, slot: &SlotId, instance: &InstanceId) -> Result<(), DriverError> {
        let (dir, slot, instance) = (self.config.runtime_dir.clone(), slot.clone(), instance.clone());
        let operation = format!("remove the lease.json of an earlier instance of slot {slot}");
        let task = tokio::task::spawn_blocking(move || crate::lease::files::make_way(&dir, &slot, &instance));
        let done = task.await.map_err(std::io::Error::other).and_then(|done| done);
        done.map_err(|source| DriverError::System { operation, source })
    }

    pub(super) fn count_crash(&mut self, slot: &SlotId, version: &Version, reason: String) {
        let Some(place) = self.places.get_mut(slot) else { return };
        let before = place.crashes.as_ref().filter(|crashes| crashes.version == *version).map_or(0, |c| c.count);
        let count = before + 1;
        let retry_at = clock::boot() + retry_after(count);
        place.crashes = Some(Crashes { version: version.clone(), count, retry_at, reason });
    }
}
