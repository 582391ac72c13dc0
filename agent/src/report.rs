//! What the agent says of itself and its host, in the words of the protocol.

use handover_proto::blocker::Blocker;
use handover_proto::ids::Version;
use handover_proto::numbers::Serial;
use handover_proto::wire;

use crate::clock;
use crate::config::Config;
use crate::core::front::{BalancerSeen, Wishes};
use crate::core::observed::{Crashes, Instance, Observed, Process, Routes};
use crate::gate::control::{Admission, GateReport, Reason, UpstreamReport};
use crate::gate::counts::{ClassCounts, LATENCY_BOUNDS_MS};
use crate::host::Host;
use crate::lease::wanted::{KeeperStatus, LeaseState};

use crate::place::{Place, Running};

/// An error with its whole chain of causes, on one line, each said once: an outer sentence often has the inner one in it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

/// Everything that a report is made of.
pub struct Sources<'a> {
    /// The config.
    pub config: &'a Config,
    /// The host's boot.
    pub boot_id: &'a str,
    /// The host.
    pub host: &'a Host,
    /// As the last lap saw it.
    pub observed: &'a Observed,
    /// The gate's last word.
    pub gate: Option<&'a GateReport>,
    /// Without a gate: the routes that balancers were told.
    pub signalled: Option<&'a Routes>,
    /// What balancers are to do.
    pub wishes: &'a Wishes,
    /// The keeper's.
    pub keeper: Option<&'a KeeperStatus>,
    /// Why the assignment is not reached.
    pub blocker: Option<&'a Blocker>,
    /// What becomes of the version that is to be in place ahead of its window.
    pub staging: Option<wire::StagingReport>,
}

/// The report.
pub fn report(from: &Sources<'_>) -> wire::Report {
    let state = &from.host.file.state;
    wire::Report {
        agent: from.config.agent.to_string(),
        service: from.config.service.to_string(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        boot_id: from.boot_id.to_owned(),
        accepted: state.accepted.as_ref().map_or(0, |accepted| accepted.serial.0),
        reached: match state.reached {
            Serial(serial) => serial,
        },
        blocker: from.blocker.cloned().map(Into::into),
        slots: from.host.places.iter().map(|(id, place)| slot(from, id.as_str(), place)).collect(),
        gate: Some(match from.config.gate {
            Some(_) => gate(from.gate),
            None => signalled(from.signalled),
        }),
        lease: Some(lease(from.keeper)),
        hooks: Vec::new(),
        front: front(from),
        // Known when it is sent.
        sent_ms: 0,
        staging: from.staging.clone(),
    }
}

fn slot(from: &Sources<'_>, name: &str, place: &Place) -> wire::SlotReport {
    let seen =
        from.observed.slots.iter().find(|(id, _)| id.as_str() == name).and_then(|(_, slot)| slot.instance.as_ref());
    wire::SlotReport {
        slot: name.to_owned(),
        instance: place.running.as_ref().map(|running| instance(from, running, seen)),
        last_exit: place.last_exit.clone(),
        crashes: place.crashes.as_ref().map_or(0, |crashes| count_for(assigned(from.host, name), crashes)),
    }
}

fn assigned<'a>(host: &'a Host, slot: &str) -> Option<&'a Version> {
    let slots = &host.file.state.accepted.as_ref()?.parsed.as_ref()?.slots;
    slots.iter().find(|(id, _)| id.as_str() == slot).map(|(_, wish)| &wish.version)
}

/// What ended before it made room for the assigned version says nothing of that.
fn count_for(assigned: Option<&Version>, crashes: &Crashes) -> u32 {
    if assigned == Some(&crashes.version) { crashes.count } else { 0 }
}

fn instance(from: &Sources<'_>, running: &Running, seen: Option<&Instance>) -> wire::InstanceReport {
    let record = &running.record;
    let upstream = from.gate.and_then(|gate| gate.upstreams.iter().find(|u| u.instance == record.instance));
    // Without a gate `/ready` must say what is wished: balancers that ask it do what it says.
    let routes = from.signalled.or(from.observed.gate.applied.as_ref());
    let route = routes.and_then(|routes| routes.of(&record.instance));
    let traffic = |counts: fn(&UpstreamReport) -> &ClassCounts| upstream.map(|u| traffic(counts(u)));
    let conditions = running.readiness().conditions.into_iter().map(|condition| wire::Condition {
        name: condition.name,
        met: condition.met,
        reading: condition.reading,
        since_ms: clock::wall_of(condition.since),
    });
    wire::InstanceReport {
        instance: record.instance.to_string(),
        version: record.version.to_string(),
        lifecycle: record.lifecycle.map_or(wire::Lifecycle::Unspecified, Into::into).into(),
        process: process(running).into(),
        ready: running.ready(),
        conditions: conditions.collect(),
        since_ms: running.since_ms,
        reads: route.map_or(0, |route| route.reads),
        writes: route.map_or(0, |route| route.writes),
        drain: seen.map(drain),
        read_traffic: traffic(|upstream| &upstream.reads),
        write_traffic: traffic(|upstream| &upstream.writes),
        resident_bytes: record
            .process
            .as_ref()
            .map_or(0, |process| crate::driver::resident_bytes(process.pid).unwrap_or_default()),
    }
}

fn process(running: &Running) -> wire::ProcessState {
    match (running.process, running.record.lifecycle) {
        (Process::Stopping { .. } | Process::Lingering, _) => wire::ProcessState::Stopping,
        (Process::Starting, _) | (Process::Running, None) => wire::ProcessState::Starting,
        (Process::Running, Some(_)) => wire::ProcessState::Running,
    }
}

fn drain(instance: &Instance) -> wire::Drain {
    let lines = instance.ledger.lines.iter().map(|line| wire::DrainLine {
        kind: line.kind.as_str().to_owned(),
        count: line.count,
        oldest_ms: millis(line.oldest),
        unknown: line.unknown.clone().unwrap_or_default(),
    });
    wire::Drain { lines: lines.collect() }
}

fn traffic(counts: &ClassCounts) -> wire::Traffic {
    wire::Traffic {
        requests: counts.requests,
        errors: counts.answered_5xx,
        lost: counts.errors().saturating_sub(counts.answered_5xx),
        latency: counts.latency.to_vec(),
        bounds_us: LATENCY_BOUNDS_MS.iter().map(|ms| ms * 1000).collect(),
        latency_sum_us: counts.latency_sum_us,
        answered: vec![counts.answered_2xx, counts.answered_3xx, counts.answered_4xx, counts.answered_5xx],
        connect_errors: counts.connect_errors,
        no_answer: counts.no_answer,
        broken: counts.lost,
        client_left: counts.client_left,
        client_cut: counts.client_cut,
    }
}

fn gate(report: Option<&GateReport>) -> wire::GateReport {
    let admission = report.map_or("", |report| match report.admission {
        Admission::Open => "open",
        Admission::LameDuck => "lame-duck",
        Admission::Hold => "hold",
        Admission::Shut => "shut",
    });
    let tls = report.and_then(|report| report.tls.as_ref());
    wire::GateReport {
        connected: report.is_some(),
        admission: admission.to_owned(),
        held: report.map_or(0, |report| report.held),
        connections: report.map_or(0, |report| report.connections),
        start_id: report.map_or_else(String::new, |report| report.gate_start_id.clone()),
        pid: report.map_or(0, |report| report.pid),
        older: report.map_or(0, |report| u32::try_from(report.forerunners.len()).unwrap_or(u32::MAX)),
        refused_connections: report.map_or(0, |report| report.refused_connections),
        own_answers: report.map_or_else(Vec::new, own_answers),
        save_error: report.and_then(|report| report.save_error.clone()).unwrap_or_default(),
        tls_error: tls.and_then(|tls| tls.error.clone()).unwrap_or_default(),
        tls_not_after_unix_s: tls.and_then(|tls| tls.not_after_unix_s).unwrap_or_default(),
    }
}

fn own_answers(report: &GateReport) -> Vec<wire::OwnAnswers> {
    let one = |(reason, count): (&Reason, &u64)| wire::OwnAnswers { reason: reason.name().to_owned(), count: *count };
    report.own_answers.iter().map(one).collect()
}

/// In mode `signal` the agent itself stands where the gate would.
fn signalled(routes: Option<&Routes>) -> wire::GateReport {
    let admission = match routes.map(|routes| (routes.open, routes.leaving)) {
        None => "",
        Some((false, _)) => "shut",
        Some((true, true)) => "lame-duck",
        Some((true, false)) => "open",
    };
    wire::GateReport { connected: true, admission: admission.to_owned(), ..Default::default() }
}

fn front(from: &Sources<'_>) -> Option<wire::FrontReport> {
    let front = &from.observed.front;
    let one = |balancer: &BalancerSeen| wire::BalancerReport {
        name: balancer.name.clone(),
        confirmed: balancer.confirmed.as_ref() == Some(from.wishes),
        reason: balancer.trouble.as_ref().map(|waiting| waiting.sentence.clone()).unwrap_or_default(),
    };
    let balancers: Vec<_> = front.balancers.iter().map(one).collect();
    (!balancers.is_empty()).then(|| wire::FrontReport { confirmed: front.pending(from.wishes).is_none(), balancers })
}

fn lease(keeper: Option<&KeeperStatus>) -> wire::LeaseReport {
    let Some(keeper) = keeper else {
        return wire::LeaseReport {
            state: "none".into(),
            reason: "no [lease] in the config".into(),
            ..Default::default()
        };
    };
    let (quarantine, store_versions) = (keeper.quarantine.clone(), keeper.store_versions.clone());
    let holder = keeper.instances.iter().find(|(_, lease)| lease.token.is_some());
    match holder.or_else(|| keeper.instances.iter().next()) {
        None => wire::LeaseReport { state: "none".into(), quarantine, store_versions, ..Default::default() },
        Some((instance, lease)) => wire::LeaseReport {
            state: lease_state(lease.state).to_owned(),
            instance: instance.to_string(),
            token: lease.token.map(|token| token.get().to_string()).unwrap_or_default(),
            remaining_soft_ms: lease.remaining_soft.map_or(0, |soft| i64::try_from(millis(soft)).unwrap_or(i64::MAX)),
            reason: lease.reason.clone(),
            quarantine,
            store_versions,
        },
    }
}

fn lease_state(state: LeaseState) -> &'static str {
    match state {
        LeaseState::None => "none",
        LeaseState::Candidate => "candidate",
        LeaseState::Starting => "starting",
        LeaseState::Holder => "holder",
        LeaseState::Quiescing => "quiescing",
        LeaseState::Stopped => "stopped",
        LeaseState::Fenced => "fenced",
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gate::admission::{Bounds, Core};
    use crate::gate::control::TlsReport;

    #[test]
    fn only_crashes_of_the_assigned_version_are_reported() {
        let [old, new] = ["1.0.0", "1.1.0"].map(|text| text.parse::<Version>().expect("a version"));
        let reason = "signal 11".to_owned();
        let crashes = Crashes { version: old.clone(), count: 2, retry_at: Duration::ZERO, reason };
        assert_eq!(count_for(Some(&old), &crashes), 2);
        assert_eq!(count_for(Some(&new), &crashes), 0, "the old one ended while it drained");
        assert_eq!(count_for(None, &crashes), 0);
    }

    #[test]
    fn a_cause_that_its_error_names_already_is_not_said_again() {
        let path = std::path::Path::new("/nowhere/x.json").to_owned();
        let source = std::io::Error::other("the disk is full");
        let error = crate::durable::DurableError::Io { operation: "write", path, source };
        let error = anyhow::Error::new(error).context("cannot start");
        assert_eq!(chain(error.as_ref()), "cannot start: cannot write /nowhere/x.json: the disk is full");
    }

    #[test]
    fn what_a_gate_refuses_and_what_it_cannot_do_stands_in_the_report() {
        let mut core = Core::new(Bounds { held: 1, in_flight: 1 });
        core.own_answer(Reason::HoldExpired);
        core.own_answer(Reason::HoldExpired);
        let tls = TlsReport { not_after_unix_s: Some(7), error: Some("no key".into()) };
        let save_error = Some("the disk is full".to_owned());
        let report = GateReport { refused_connections: 3, tls: Some(tls), save_error, ..core.report(Duration::ZERO) };
        let told = gate(Some(&report));
        assert_eq!(told.own_answers, [wire::OwnAnswers { reason: "hold-expired".into(), count: 2 }]);
        assert_eq!((told.refused_connections, told.tls_not_after_unix_s), (3, 7));
        assert_eq!((told.save_error.as_str(), told.tls_error.as_str()), ("the disk is full", "no key"));
        assert_eq!(gate(None), wire::GateReport::default());
    }
}
