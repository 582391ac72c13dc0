//! The operations port: the answers that balancers, monitoring and people read over plain HTTP (`DESIGN.md` §7).
//!
//! `/health` the agent lives · `/ready`, `/ready/read`, `/ready/write` somebody here takes such requests: 200 or 503 with
//! the reasons · `/status` the report · `/metrics` for Prometheus. A lost scheduler lease takes no traffic away
//! (`SAFETY.md` R7).

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use handover_proto::wire::{InstanceReport, Report};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::debug;

use crate::metrics;

/// A handful of balancers and scrapers; more would be a mistake somewhere, and must not cost memory.
const CONNECTIONS: usize = 64;
const HEADER_TIME: Duration = Duration::from_secs(5);
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What one readiness path answers.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Ready {
    ready: bool,
    /// Why not, one sentence each.
    reasons: Vec<String>,
}

/// Serves until the listener fails.
pub async fn serve(listener: TcpListener, reports: watch::Receiver<Report>) {
    let slots = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = slots.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "accept failed on the operations port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let reports = reports.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let answer = service_fn(|request| {
                let answer = answer(&request, &reports.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
                debug!(%error, "a connection on the operations port broke");
            }
        });
    }
}

fn answer(request: &Request<Incoming>, report: &Report) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return json(StatusCode::METHOD_NOT_ALLOWED, &"GET or HEAD");
    }
    page(request.uri().path(), report)
}

fn page(path: &str, report: &Report) -> Response<Full<Bytes>> {
    match path {
        "/health" => json(StatusCode::OK, &serde_json::json!({"alive": true})),
        "/ready" => readiness(report, &[Class::Read, Class::Write]),
        "/ready/read" => readiness(report, &[Class::Read]),
        "/ready/write" => readiness(report, &[Class::Write]),
        "/status" => json(StatusCode::OK, report),
        "/metrics" => text(metrics::render(report)),
        _ => json(StatusCode::NOT_FOUND, &"/health /ready /ready/read /ready/write /status /metrics"),
    }
}

#[derive(Debug, Clone, Copy)]
enum Class {
    Read,
    Write,
}

impl Class {
    fn weight(self, instance: &InstanceReport) -> u32 {
        match self {
            Self::Read => instance.reads,
            Self::Write => instance.writes,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Write => "writes",
        }
    }
}

fn readiness(report: &Report, classes: &[Class]) -> Response<Full<Bytes>> {
    let answer = ready(report, classes);
    json(if answer.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &answer)
}

fn ready(report: &Report, classes: &[Class]) -> Ready {
    let mut reasons = Vec::new();
    if !report.gate.as_ref().is_some_and(|gate| gate.connected) {
        reasons.push("the gate does not answer its agent".to_owned());
    }
    if report.gate.as_ref().is_some_and(|gate| gate.admission == "lame-duck") {
        reasons.push("the host is being drained: what comes is still served, but nothing more should".to_owned());
    }
    let instances: Vec<_> =
        report.slots.iter().filter_map(|slot| Some((&slot.slot, slot.instance.as_ref()?))).collect();
    for class in classes {
        if instances.iter().any(|(_, instance)| class.weight(instance) > 0 && instance.ready) {
            continue;
        }
        reasons.push(format!("no ready instance takes {}", class.name()));
        for (slot, instance) in instances.iter().filter(|(_, instance)| !instance.ready) {
            let unmet = instance.conditions.iter().filter(|c| !c.met).map(|c| format!("{}: {}", c.name, c.reading));
            reasons.extend(unmet.map(|unmet| format!("slot {slot}: {unmet}")));
        }
    }
    Ready { ready: reasons.is_empty(), reasons }
}

fn json<T: Serialize + ?Sized>(status: StatusCode, value: &T) -> Response<Full<Bytes>> {
    match serde_json::to_vec(value) {
        Ok(body) => respond(status, "application/json", body),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into_bytes()),
    }
}

fn text(rendered: Result<String, std::fmt::Error>) -> Response<Full<Bytes>> {
    match rendered {
        Ok(body) => respond(StatusCode::OK, METRICS_TYPE, body.into_bytes()),
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string().into_bytes()),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_proto::wire::{Condition, GateReport, SlotReport};

    fn report(reads: u32, writes: u32, ready: bool) -> Report {
        let condition = Condition { name: "schema_gate".into(), met: ready, reading: "inactive".into(), since_ms: 1 };
        let instance = InstanceReport { reads, writes, ready, conditions: vec![condition], ..Default::default() };
        let slot = SlotReport { slot: "a".into(), instance: Some(instance), ..Default::default() };
        let gate = GateReport { connected: true, ..Default::default() };
        Report { agent: "app-01".into(), slots: vec![slot], gate: Some(gate), ..Default::default() }
    }

    fn status(path: &str, report: &Report) -> u16 {
        page(path, report).status().as_u16()
    }

    #[test]
    fn reads_and_writes_are_ready_apart() {
        let report = report(100, 0, true);
        assert_eq!((status("/ready/read", &report), status("/ready/write", &report)), (200, 503));
        assert_eq!(status("/ready", &report), 503);
    }

    #[test]
    fn a_host_that_leaves_is_not_ready_although_it_still_serves() {
        let mut report = report(100, 100, true);
        report.gate.as_mut().expect("a gate").admission = "lame-duck".into();
        assert_eq!((status("/ready", &report), status("/ready/read", &report)), (503, 503));
        let answer = ready(&report, &[Class::Read]);
        assert!(answer.reasons.iter().any(|reason| reason.contains("being drained")), "{answer:?}");
    }

    #[test]
    fn the_unmet_condition_is_named() {
        let answer = ready(&report(100, 100, false), &[Class::Read]);
        assert!(!answer.ready);
        assert!(answer.reasons.iter().any(|reason| reason.contains("schema_gate: inactive")), "{answer:?}");
    }

    #[test]
    fn without_a_gate_nothing_is_ready_but_the_agent_is_healthy() {
        let mut report = report(100, 100, true);
        assert_eq!(status("/ready", &report), 200);
        report.gate = None;
        assert_eq!((status("/ready", &report), status("/health", &report), status("/x", &report)), (503, 200, 404));
    }
}
