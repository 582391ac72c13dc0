//! Questions to parts of the state.

use super::{Etcd, Instance, Intent, Lease, LeaseNo, Phase, Rev, Service, Told, Unit};

impl Unit {
    /// A process is executing it.
    pub fn runs(&self) -> bool {
        matches!(self.phase, Phase::Begun | Phase::Checked | Phase::Doomed)
    }

    /// It holds a lock on the fence row.
    pub fn locks(&self) -> bool {
        matches!(self.phase, Phase::Checked | Phase::Orphan)
    }
}

impl Service {
    /// It could acknowledge QUIESCED: told to stop, and no unit runs, in no process.
    pub fn is_idle(&self) -> bool {
        self.up && self.told != Told::Active && !self.unit.runs() && !self.rest.runs()
    }

    /// No process is left.
    pub fn is_gone(&self) -> bool {
        !self.up && !self.rest.runs()
    }
}

impl Etcd {
    /// The lease's remaining time; none: dead.
    pub fn lease(&self, host: u8, no: LeaseNo) -> Lease {
        match no {
            0 => Lease::Dead,
            no => self.leases[usize::from(host)][usize::from(no) - 1],
        }
    }

    /// Changes a lease.
    pub fn set_lease(&mut self, host: u8, no: LeaseNo, lease: Lease) {
        self.leases[usize::from(host)][usize::from(no) - 1] = lease;
    }

    /// The intent, unless the holder key shows that it is done, or that somebody else has held since.
    pub fn open_intent(&self) -> Option<Intent> {
        self.intent.filter(|intent| intent.op != self.holder.op && intent.from == self.holder.who)
    }

    /// Revision of the beat; 0: absent.
    pub fn beat_rev(&self) -> Rev {
        self.beat.map_or(0, |beat| beat.rev)
    }

    /// Whether `who` holds.
    pub fn is_held_by(&self, who: Instance) -> bool {
        self.holder.held && self.holder.who == who
    }
}
