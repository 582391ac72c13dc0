//! The report as Prometheus metrics (OpenMetrics text). Made from the report at each scrape: nothing is counted twice.

mod latency;

use std::sync::atomic::AtomicU64;

use handover_proto::wire::{InstanceReport, Report, Traffic};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Names and values of labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels(Vec<(&'static str, String)>);

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

type Gauges = Family<Labels, Gauge<i64>>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter<u64, AtomicU64>>;

#[derive(Default)]
struct Metrics {
    ready: Gauges,
    in_flight: Gauges,
    oldest: Seconds,
    weight: Gauges,
    resident: Gauges,
    crashes: Gauges,
    requests: Counters,
    errors: Counters,
    lost: Counters,
    answers: Counters,
    failures: Counters,
    latency: Family<Labels, latency::Latency>,
    gate: Gauges,
    held: Gauges,
    own_answers: Counters,
    refused: Counters,
    lease: Gauges,
    behind: Gauges,
}

/// The report as text.
///
/// # Errors
/// Those of the formatter.
pub fn render(report: &Report) -> Result<String, std::fmt::Error> {
    let metrics = Metrics::default();
    metrics.fill(report);
    let mut registry = Registry::with_prefix("handover");
    metrics.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Metrics {
    fn register(&self, to: &mut Registry) {
        let gauges = [
            ("instance_ready", "Whether every condition of readiness is met", &self.ready),
            ("instance_in_flight", "Work in hand, by kind", &self.in_flight),
            ("instance_weight", "Share in the gate, 0 to 100, by class", &self.weight),
            ("instance_resident_bytes", "Resident memory of the instance's main process", &self.resident),
            ("slot_crashes", "Ends in a row that nobody wanted", &self.crashes),
            ("gate_connected", "Whether the gate answers its agent", &self.gate),
            ("gate_held", "Requests that wait in the gate", &self.held),
            ("lease_held", "Whether an instance of this agent holds the scheduler lease", &self.lease),
            ("assignment_behind", "Whether the accepted assignment is not reached yet", &self.behind),
        ];
        for (name, help, family) in gauges {
            to.register(name, help, family.clone());
        }
        let counters = [
            ("requests", "Requests that the gate sent to the instance, by class", &self.requests),
            ("errors", "Answers of the instance with a status of 500 or more, by class", &self.errors),
            ("lost", "Requests that got no whole answer from the instance, by class", &self.lost),
            ("answers", "Answers of the instance, by class and by the first digit of their status", &self.answers),
            (
                "failures",
                "Requests without a whole answer, by class and kind; a client that left is one",
                &self.failures,
            ),
            ("gate_own_answers", "Requests that the gate answered itself, by reason", &self.own_answers),
            ("gate_refused_connections", "Connections closed because their address has too many", &self.refused),
        ];
        for (name, help, family) in counters {
            to.register(name, help, family.clone());
        }
        to.register("instance_oldest_seconds", "Age of the oldest work in hand, by kind", self.oldest.clone());
        let help = "From a request's admission to the head of its answer, by class";
        to.register("latency_seconds", help, self.latency.clone());
    }

    fn fill(&self, report: &Report) {
        let none = Labels(Vec::new());
        let gate = report.gate.clone().unwrap_or_default();
        self.gate.get_or_create(&none).set(i64::from(gate.connected));
        self.held.get_or_create(&none).set(gauge(gate.held));
        self.refused.get_or_create(&none).inc_by(gate.refused_connections);
        for one in &gate.own_answers {
            self.own_answers.get_or_create(&Labels(vec![("reason", one.reason.clone())])).inc_by(one.count);
        }
        let holds = report.lease.as_ref().is_some_and(|lease| !lease.token.is_empty());
        self.lease.get_or_create(&none).set(i64::from(holds));
        self.behind.get_or_create(&none).set(i64::from(report.accepted != report.reached));
        for slot in &report.slots {
            let labels = Labels(vec![("slot", slot.slot.clone())]);
            self.crashes.get_or_create(&labels).set(i64::from(slot.crashes));
            if let Some(instance) = &slot.instance {
                self.fill_instance(&slot.slot, instance);
            }
        }
    }

    fn fill_instance(&self, slot: &str, instance: &InstanceReport) {
        let labels = |more: Option<(&'static str, &str)>| {
            let mut labels = vec![("slot", slot.to_owned()), ("version", instance.version.clone())];
            labels.extend(more.map(|(name, value)| (name, value.to_owned())));
            Labels(labels)
        };
        self.ready.get_or_create(&labels(None)).set(i64::from(instance.ready));
        self.resident.get_or_create(&labels(None)).set(gauge(instance.resident_bytes));
        for line in instance.drain.iter().flat_map(|drain| &drain.lines) {
            let labels = labels(Some(("kind", &line.kind)));
            self.in_flight.get_or_create(&labels).set(gauge(line.count));
            self.oldest.get_or_create(&labels).set(line.oldest_ms as f64 / 1000.0);
        }
        let classes =
            [("read", instance.reads, &instance.read_traffic), ("write", instance.writes, &instance.write_traffic)];
        for (class, weight, traffic) in classes {
            let labels = labels(Some(("class", class)));
            self.weight.get_or_create(&labels).set(i64::from(weight));
            let traffic = traffic.clone().unwrap_or_default();
            self.requests.get_or_create(&labels).inc_by(traffic.requests);
            self.errors.get_or_create(&labels).inc_by(traffic.errors);
            self.lost.get_or_create(&labels).inc_by(traffic.lost);
            self.latency.get_or_create(&labels).set(&traffic);
            self.fill_kinds(&labels, &traffic);
        }
    }

    fn fill_kinds(&self, labels: &Labels, traffic: &Traffic) {
        let with = |name, value: &str| Labels([&labels.0[..], &[(name, value.to_owned())]].concat());
        for (status, count) in ["2xx", "3xx", "4xx", "5xx"].into_iter().zip(&traffic.answered) {
            self.answers.get_or_create(&with("status", status)).inc_by(*count);
        }
        let kinds = [
            ("connect", traffic.connect_errors),
            ("no-answer", traffic.no_answer),
            ("broken", traffic.broken),
            ("client-left", traffic.client_left),
            ("client-cut", traffic.client_cut),
        ];
        for (kind, count) in kinds {
            self.failures.get_or_create(&with("kind", kind)).inc_by(count);
        }
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_proto::wire::{Drain, DrainLine, GateReport, OwnAnswers, SlotReport};

    #[test]
    fn a_report_becomes_the_metrics_that_it_says() {
        let instance = InstanceReport {
            version: "1.4.2".into(),
            ready: true,
            reads: 75,
            read_traffic: Some(Traffic {
                requests: 12,
                errors: 3,
                answered: vec![7, 1, 0, 3],
                no_answer: 1,
                latency: vec![4, 6, 1],
                bounds_us: vec![1000, 2000],
                latency_sum_us: 9500,
                ..Default::default()
            }),
            drain: Some(Drain {
                lines: vec![DrainLine { kind: "requests".into(), count: 4, oldest_ms: 9000, unknown: String::new() }],
            }),
            ..Default::default()
        };
        let slot = SlotReport { slot: "a".into(), instance: Some(instance), ..Default::default() };
        let own_answers = vec![OwnAnswers { reason: "hold-expired".into(), count: 3 }];
        let gate = GateReport { refused_connections: 5, own_answers, ..Default::default() };
        let report = Report { slots: vec![slot], accepted: 2, gate: Some(gate), ..Default::default() };
        let text = render(&report).expect("text");
        for line in [
            "handover_instance_ready{slot=\"a\",version=\"1.4.2\"} 1",
            "handover_instance_in_flight{slot=\"a\",version=\"1.4.2\",kind=\"requests\"} 4",
            "handover_instance_weight{slot=\"a\",version=\"1.4.2\",class=\"read\"} 75",
            "handover_requests_total{slot=\"a\",version=\"1.4.2\",class=\"read\"} 12",
            "handover_errors_total{slot=\"a\",version=\"1.4.2\",class=\"read\"} 3",
            "handover_answers_total{slot=\"a\",version=\"1.4.2\",class=\"read\",status=\"2xx\"} 7",
            "handover_failures_total{slot=\"a\",version=\"1.4.2\",class=\"read\",kind=\"no-answer\"} 1",
            "handover_latency_seconds_sum{slot=\"a\",version=\"1.4.2\",class=\"read\"} 0.0095",
            "handover_latency_seconds_bucket{le=\"0.002\",slot=\"a\",version=\"1.4.2\",class=\"read\"} 10",
            "handover_latency_seconds_bucket{le=\"+Inf\",slot=\"a\",version=\"1.4.2\",class=\"read\"} 11",
            "handover_instance_oldest_seconds{slot=\"a\",version=\"1.4.2\",kind=\"requests\"} 9.0",
            "handover_assignment_behind{} 1",
            "handover_gate_own_answers_total{reason=\"hold-expired\"} 3",
            "handover_gate_refused_connections_total{} 5",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
