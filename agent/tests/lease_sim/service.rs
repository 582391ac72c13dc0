//! A service that keeps its obligations A1, A2, A4, A5 and A8, as far as its nature allows.

use handover_agent::lease::record::{Ack, AckState, LeaseRecord, Told};
use handover_proto::ids::InstanceId;

use super::host::Act;
use super::{MS, World};

pub(crate) struct Service {
    pub(crate) host: usize,
    /// Until when it may begin units, on its host's clock in nanoseconds; 0: not at all.
    soft_ns: u64,
    seq: u64,
    /// End of the unit under way, in true microseconds.
    pub(crate) unit_end: Option<u64>,
    /// Does not acknowledge a stop, and its unit ends only with its process.
    pub(crate) stubborn: bool,
    pub(crate) alive: bool,
    pub(crate) units: u64,
}

impl Service {
    pub(crate) fn new(host: usize, stubborn: bool) -> Self {
        Self { host, soft_ns: 0, seq: 0, unit_end: None, stubborn, alive: true, units: 0 }
    }
}

impl World {
    /// The service takes in a record, by call or by its own question.
    pub(crate) fn told(&mut self, id: &InstanceId, record: &LeaseRecord) {
        let Some(service) = self.services.get_mut(id).filter(|service| service.alive && record.seq >= service.seq)
        else {
            return;
        };
        service.seq = record.seq;
        match record.state {
            Told::Active => service.soft_ns = record.soft_deadline_boot_ns,
            Told::Quiesce | Told::Stopped | Told::Fenced => service.soft_ns = 0,
            Told::Unknown => {}
        }
        let pause = self.random.within(0, 20) * MS;
        self.at(pause, Act::Unit { id: id.clone() });
    }

    /// The answer to `record`, if it can be given now. A stop is acknowledged when the unit has ended (A4).
    pub(crate) fn ack(&self, id: &InstanceId, record: &LeaseRecord) -> Option<Ack> {
        let service = self.services.get(id).filter(|service| service.alive)?;
        let active = record.state == Told::Active;
        if !active && (service.stubborn || service.unit_end.is_some()) {
            return None;
        }
        let state = match (record.seq < service.seq, active) {
            (true, _) => AckState::Failed,
            (false, true) => AckState::Started,
            (false, false) => AckState::Quiesced,
        };
        Some(Ack::new(record.token.clone(), record.seq, state))
    }

    /// A1: a unit begins only with the right to it, checked immediately before. A2: it ends in time.
    pub(crate) fn unit(&mut self, id: &InstanceId) {
        let (now, seed, c_unit) = (self.now, self.seed, self.c_unit());
        let Some(service) = self.services.get_mut(id).filter(|service| service.alive) else { return };
        if service.unit_end.is_some_and(|end| end > now) {
            return;
        }
        service.unit_end = None;
        let host = &self.hosts[service.host];
        if host.clock_ns(now) >= service.soft_ns {
            return;
        }
        let longest = (c_unit.as_micros() as f64 / host.rate) as u64;
        let length = if self.random.once_in(5) { longest } else { self.random.within(MS, longest) };
        let length = if service.stubborn { u64::MAX / 4 } else { length };
        service.unit_end = Some(now + length);
        service.units += 1;
        self.counts.add("units");
        let others = self.services.iter().filter(|(other, s)| *other != id && s.unit_end.is_some_and(|end| end > now));
        let others: Vec<_> = others.map(|(other, _)| other.clone()).collect();
        assert!(others.is_empty(), "seed {seed}, {now} us: {id} begins a unit while {others:?} works (I3)");
        self.at(length + 1, Act::Unit { id: id.clone() });
    }

    /// The process ends, with whatever it was doing.
    pub(crate) fn die(&mut self, id: &InstanceId) {
        if let Some(service) = self.services.get_mut(id) {
            service.alive = false;
            service.unit_end = None;
        }
    }
}
