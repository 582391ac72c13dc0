//! What became of a request: classed once, without I/O.

use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::billing::http::{FAULT_HEADER, VERSION_HEADER};

/// The header by which the gate marks answers that it made itself.
pub const GATE_HEADER: &str = "handover-gate";
/// The header by which the gate names the version that answered.
pub const GATE_VERSION_HEADER: &str = "handover-version";

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// 2xx, with its whole body.
    Ok,
    /// A failure that billing makes on purpose.
    ServiceFault,
    /// Another 5xx of the service.
    ServiceError,
    /// A 5xx that the gate made.
    GateError,
    /// Anything else that is no 2xx.
    Unexpected,
    /// No connection was to be had.
    Refused,
    /// The connection broke before the whole answer was there.
    Reset,
    /// No whole answer in time.
    Timeout,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::ServiceFault,
        Self::ServiceError,
        Self::GateError,
        Self::Unexpected,
        Self::Refused,
        Self::Reset,
        Self::Timeout,
    ];

    /// The class of a whole answer.
    pub fn of_answer(status: StatusCode, headers: &HeaderMap) -> Self {
        match status {
            status if status.is_success() => Self::Ok,
            // First, since a gate may mark every answer that passes it.
            status if status.is_server_error() && headers.contains_key(FAULT_HEADER) => Self::ServiceFault,
            status if status.is_server_error() && headers.contains_key(GATE_HEADER) => Self::GateError,
            status if status.is_server_error() => Self::ServiceError,
            _ => Self::Unexpected,
        }
    }

    /// Lost: the client has no answer.
    pub fn is_lost(self) -> bool {
        matches!(self, Self::Refused | Self::Reset | Self::Timeout)
    }

    /// A failure that is not billing's own on purpose: the upgrade, or we, must answer for it.
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::Ok | Self::ServiceFault)
    }
}

/// The version that answered: the gate's word, else the service's own.
pub fn version(headers: &HeaderMap) -> Option<&str> {
    let named = |name| headers.get(name).and_then(|value| value.to_str().ok());
    named(GATE_VERSION_HEADER).or_else(|| named(VERSION_HEADER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[&'static str]) -> HeaderMap {
        names.iter().map(|name| ((*name).parse().expect("a name"), "1".parse().expect("a value"))).collect()
    }

    #[test]
    fn each_answer_has_one_class_and_a_fault_on_purpose_is_never_taken_for_ours() {
        let class = |status: u16, names: &[&'static str]| {
            Outcome::of_answer(StatusCode::from_u16(status).expect("status"), &headers(names))
        };
        assert_eq!(class(201, &[]), Outcome::Ok);
        assert_eq!(class(500, &[FAULT_HEADER]), Outcome::ServiceFault);
        assert_eq!(class(500, &[FAULT_HEADER, GATE_HEADER]), Outcome::ServiceFault);
        assert_eq!(class(503, &[GATE_HEADER]), Outcome::GateError);
        assert_eq!(class(503, &[]), Outcome::ServiceError);
        assert_eq!(class(404, &[FAULT_HEADER]), Outcome::Unexpected);
        assert_eq!(class(302, &[]), Outcome::Unexpected);
    }

    #[test]
    fn every_failure_but_the_one_on_purpose_is_ours() {
        let ours: Vec<_> = Outcome::ALL.into_iter().filter(|outcome| outcome.is_ours()).collect();
        assert_eq!(ours.len(), 6);
        assert!(Outcome::ALL.into_iter().all(|outcome| outcome.is_ours() || !outcome.is_lost()));
    }

    #[test]
    fn the_gates_word_on_the_version_comes_first() {
        let mut headers = headers(&[]);
        assert_eq!(version(&headers), None);
        headers.insert(VERSION_HEADER, "1.0.0".parse().expect("value"));
        assert_eq!(version(&headers), Some("1.0.0"));
        headers.insert(GATE_VERSION_HEADER, "2.0.0".parse().expect("value"));
        assert_eq!(version(&headers), Some("2.0.0"));
    }
}
