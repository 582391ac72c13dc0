//! What the gate counts for one upstream and one class of requests. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of the latency buckets in milliseconds; one more bucket takes everything above. Fixed, so that counts of
/// two gates and of two versions can be added: 1-2-5 steps cover a loopback answer up to a client's usual patience.
pub const LATENCY_BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

/// Buckets of the latency histogram.
pub const LATENCY_BUCKETS: usize = LATENCY_BOUNDS_MS.len() + 1;

/// How one request through an upstream went on. At most one of the first four kinds happens to a request, and `Lost` or
/// `ClientCut` only after `Answered`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The head of the answer arrived, so long after the request was let in.
    Answered {
        /// The answer's status code.
        status: u16,
        /// From admission to the head of the answer.
        after: Duration,
    },
    /// No connection could be made; the upstream received no byte.
    ConnectFailed,
    /// The request was written, but the connection ended or the time was up before an answer began.
    NoAnswer,
    /// The client went away before an answer began.
    ClientLeft,
    /// The upstream broke off in the middle of its answer.
    Lost,
    /// The client went away in the middle of the answer.
    ClientCut,
}

/// Cumulative counts since the gate first saw the upstream. Always:
/// `requests = answered() + connect_errors + no_answer + client_left + those still waiting for an answer`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassCounts {
    /// Requests let in to this upstream.
    pub requests: u64,
    /// Answers with status 200 to 299 (and 1xx that ended a request).
    pub answered_2xx: u64,
    /// Answers with status 300 to 399.
    pub answered_3xx: u64,
    /// Answers with status 400 to 499.
    pub answered_4xx: u64,
    /// Answers with status 500 and above, made by the service.
    pub answered_5xx: u64,
    /// See [`Event::ConnectFailed`]. The request may have been answered by another upstream.
    pub connect_errors: u64,
    /// See [`Event::NoAnswer`].
    pub no_answer: u64,
    /// See [`Event::ClientLeft`].
    pub client_left: u64,
    /// See [`Event::Lost`]; these are among the answered.
    pub lost: u64,
    /// See [`Event::ClientCut`]; these are among the answered.
    pub client_cut: u64,
    /// Answers by time to the head of the answer, see [`LATENCY_BOUNDS_MS`]; not cumulative over buckets.
    pub latency: [u64; LATENCY_BUCKETS],
    /// All these times together, in microseconds.
    pub latency_sum_us: u64,
}

impl ClassCounts {
    /// Counts one event.
    pub fn record(&mut self, event: Event) {
        match event {
            Event::Answered { status, after } => {
                match status {
                    ..300 => self.answered_2xx += 1,
                    300..400 => self.answered_3xx += 1,
                    400..500 => self.answered_4xx += 1,
                    500.. => self.answered_5xx += 1,
                }
                self.latency[bucket(after)] += 1;
                self.latency_sum_us += u64::try_from(after.as_micros()).unwrap_or(u64::MAX / 2);
            }
            Event::ConnectFailed => self.connect_errors += 1,
            Event::NoAnswer => self.no_answer += 1,
            Event::ClientLeft => self.client_left += 1,
            Event::Lost => self.lost += 1,
            Event::ClientCut => self.client_cut += 1,
        }
    }

    /// Requests of which the head of the answer arrived.
    pub fn answered(&self) -> u64 {
        self.answered_2xx + self.answered_3xx + self.answered_4xx + self.answered_5xx
    }

    /// What the service did wrong: 5xx, no connection, no answer, broken answers. A client that left is not among them.
    pub fn errors(&self) -> u64 {
        self.answered_5xx + self.connect_errors + self.no_answer + self.lost
    }
}

fn bucket(after: Duration) -> usize {
    LATENCY_BOUNDS_MS.iter().position(|bound| after <= Duration::from_millis(*bound)).unwrap_or(LATENCY_BOUNDS_MS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lands_in_the_bucket_whose_bound_it_does_not_pass() {
        let mut counts = ClassCounts::default();
        for ms in [0, 1, 2, 3, 10_000, 10_001, 1_000_000] {
            counts.record(Event::Answered { status: 200, after: Duration::from_millis(ms) });
        }
        assert_eq!(counts.latency[..3], [2, 1, 1]);
        assert_eq!(counts.latency[LATENCY_BUCKETS - 2..], [1, 2]);
        assert_eq!(counts.latency.iter().sum::<u64>(), counts.answered());
        assert_eq!(counts.latency_sum_us, 1_020_007_000);
    }

    #[test]
    fn a_client_that_leaves_is_no_error_of_the_service() {
        let mut counts = ClassCounts::default();
        counts.record(Event::ClientLeft);
        counts.record(Event::ClientCut);
        counts.record(Event::Answered { status: 404, after: Duration::ZERO });
        assert_eq!(counts.errors(), 0);
        for event in [Event::ConnectFailed, Event::NoAnswer, Event::Lost] {
            counts.record(event);
        }
        counts.record(Event::Answered { status: 500, after: Duration::ZERO });
        assert_eq!(counts.errors(), 4);
    }
}
