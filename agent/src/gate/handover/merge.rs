//! One report out of those of several gates. Pure.
//!
//! While an older gate finishes its requests, an instance has work in two processes, and may be stopped only when both are
//! done with it: so counts are summed, and a state counts as applied when it is in force in all of them.

use std::collections::BTreeMap;

use handover_proto::ids::InstanceId;

use crate::gate::control::{Forerunner, GateReport, Reason, UpstreamReport};
use crate::gate::counts::ClassCounts;

/// The counters of one upstream.
#[derive(Debug, Default)]
struct Totals {
    reads: ClassCounts,
    writes: ClassCounts,
    upgraded: u64,
    upgraded_closed: u64,
}

/// What one gate has counted that has ended.
#[derive(Debug, Default)]
struct Ended {
    upstreams: BTreeMap<InstanceId, Totals>,
    own_answers: BTreeMap<Reason, u64>,
    refused_connections: u64,
}

/// What gates have counted that ended since, so that counters do not fall back when they end. By their start ids: the gate
/// from which this one takes over may have followed the same ones.
#[derive(Debug, Default)]
pub(super) struct Carried(BTreeMap<String, Ended>);

impl Carried {
    /// Keeps the counts of a gate that ended, and forgets instances that neither it nor `now` knows.
    pub(super) fn take(&mut self, ended: &GateReport, now: &GateReport) {
        let known = |id: &InstanceId| now.upstreams.iter().any(|upstream| upstream.instance == *id);
        self.0.retain(|id, _| !ended.carried_from.contains(id));
        self.0.values_mut().for_each(|one| one.upstreams.retain(|id, _| known(id)));
        let mut kept = Ended {
            own_answers: ended.own_answers.clone(),
            refused_connections: ended.refused_connections,
            ..Ended::default()
        };
        for upstream in &ended.upstreams {
            let totals = kept.upstreams.entry(upstream.instance.clone()).or_default();
            add(&mut totals.reads, &upstream.reads);
            add(&mut totals.writes, &upstream.writes);
            totals.upgraded += upstream.upgraded_total;
            totals.upgraded_closed += upstream.upgraded_closed;
        }
        self.0.insert(ended.gate_start_id.clone(), kept);
    }

    /// Adds them to what lives, but for those that are in the counts of one that lives `elsewhere`.
    pub(super) fn add_to(&self, report: &mut GateReport, elsewhere: impl Fn(&str) -> bool) {
        for (id, ended) in self.0.iter().filter(|(id, _)| !elsewhere(id)) {
            for upstream in &mut report.upstreams {
                if let Some(totals) = ended.upstreams.get(&upstream.instance) {
                    add(&mut upstream.reads, &totals.reads);
                    add(&mut upstream.writes, &totals.writes);
                    upstream.upgraded_total += totals.upgraded;
                    upstream.upgraded_closed += totals.upgraded_closed;
                }
            }
            add_answers(&mut report.own_answers, &ended.own_answers);
            report.refused_connections += ended.refused_connections;
            report.carried_from.push(id.clone());
        }
    }
}

/// Adds what an older gate says of itself. One that has not said anything yet may have anything in flight, under any state:
/// then nothing counts as applied.
pub(super) fn include(report: &mut GateReport, older: Option<&GateReport>) {
    let Some(older) = older else {
        report.applied = 0;
        return;
    };
    report.applied = report.applied.min(older.applied);
    report.in_flight += older.in_flight;
    report.held += older.held;
    report.connections += older.connections;
    report.refused_connections += older.refused_connections;
    add_answers(&mut report.own_answers, &older.own_answers);
    for upstream in &older.upstreams {
        match report.upstreams.iter_mut().find(|own| own.instance == upstream.instance) {
            Some(own) => add_upstream(own, upstream),
            None => report.upstreams.push(upstream.clone()),
        }
    }
    report.forerunners.push(Forerunner {
        start_id: older.gate_start_id.clone(),
        pid: older.pid,
        applied: older.applied,
        in_flight: older.in_flight,
        connections: older.connections,
    });
}

/// Every field is named, so that one that is added to the report is not forgotten here.
fn add_upstream(own: &mut UpstreamReport, older: &UpstreamReport) {
    let UpstreamReport {
        instance: _,
        version: _,
        listed,
        in_flight,
        oldest_ms,
        reads,
        writes,
        last_request_ms_ago,
        upgraded,
        oldest_upgraded_ms,
        upgraded_total,
        upgraded_closed,
    } = older;
    own.listed |= listed;
    own.in_flight += in_flight;
    own.oldest_ms = own.oldest_ms.max(*oldest_ms);
    own.last_request_ms_ago = own.last_request_ms_ago.into_iter().chain(*last_request_ms_ago).min();
    own.upgraded += upgraded;
    own.oldest_upgraded_ms = own.oldest_upgraded_ms.max(*oldest_upgraded_ms);
    own.upgraded_total += upgraded_total;
    own.upgraded_closed += upgraded_closed;
    add(&mut own.reads, reads);
    add(&mut own.writes, writes);
}

fn add(to: &mut ClassCounts, more: &ClassCounts) {
    let ClassCounts {
        requests,
        answered_2xx,
        answered_3xx,
        answered_4xx,
        answered_5xx,
        connect_errors,
        no_answer,
        client_left,
        lost,
        client_cut,
        latency,
        latency_sum_us,
    } = more;
    to.requests += requests;
    to.answered_2xx += answered_2xx;
    to.answered_3xx += answered_3xx;
    to.answered_4xx += answered_4xx;
    to.answered_5xx += answered_5xx;
    to.connect_errors += connect_errors;
    to.no_answer += no_answer;
    to.client_left += client_left;
    to.lost += lost;
    to.client_cut += client_cut;
    to.latency_sum_us += latency_sum_us;
    for (to, more) in to.latency.iter_mut().zip(latency) {
        *to += more;
    }
}

fn add_answers(to: &mut BTreeMap<Reason, u64>, more: &BTreeMap<Reason, u64>) {
    for (reason, count) in more {
        *to.entry(*reason).or_default() += count;
    }
}

#[cfg(test)]
mod tests;
