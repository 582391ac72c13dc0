//! What a drain, or the gate's own end, cuts off: a line in the log for each request, as long as they are few, and the sum
//! of all (`SAFETY.md` §2.2, "in-flight at deadline").

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::{Method, Uri};

/// Lines for one upstream's drain. What an operator looks into one by one; thousands would drive the rest out of the log.
const LINES: u64 = 50;
/// Of a path. Enough to know it by; it is kept for every request in flight.
const PATH_BYTES: usize = 200;

/// What the log says of a request, should it be cut off.
#[derive(Debug, Clone)]
pub(super) struct About {
    /// None in mode `tcp`, where nobody knows what a connection asks for.
    request: Option<(Method, Box<str>)>,
    /// Who is connected: behind a balancer, the balancer.
    pub(super) client: SocketAddr,
}

impl About {
    /// A request. Its query is left out, since queries carry secrets.
    pub(super) fn request(method: &Method, uri: &Uri, client: SocketAddr) -> Self {
        let path = uri.path();
        let end = (0..=PATH_BYTES.min(path.len())).rev().find(|end| path.is_char_boundary(*end)).unwrap_or(0);
        Self { request: Some((method.clone(), path.get(..end).unwrap_or_default().into())), client }
    }

    /// A connection.
    pub(super) fn connection(client: SocketAddr) -> Self {
        Self { request: None, client }
    }

    /// Whether its bytes are counted.
    pub(super) fn counts(&self) -> bool {
        self.request.is_some()
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.request {
            // What a client sent must not steer a terminal.
            Some((method, path)) => write!(f, "{method} {}", path.escape_debug()),
            None => f.write_str("a connection"),
        }
    }
}

/// How many bytes of a request have passed.
#[derive(Debug, Default)]
pub(super) struct Passed {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Passed {
    /// So many of its body went to the upstream.
    pub(super) fn received(&self, count: usize) {
        self.received.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// So many of the answer's body went to the client.
    pub(super) fn sent(&self, count: usize) {
        self.sent.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Received and sent.
    pub(super) fn both(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }
}

/// What was cut off of one upstream since its last sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// All of it.
    pub(super) requests: u64,
    /// What had no line of its own.
    pub(super) unnamed: u64,
    /// The longest that one had been in flight.
    pub(super) oldest: Duration,
}

impl Tally {
    /// To the log.
    pub(super) fn say(self, why: &str) {
        let (Self { requests, unnamed, .. }, oldest_ms) = (self, millis(self.oldest));
        tracing::warn!(requests, unnamed, oldest_ms, why, "requests were cut off; `unnamed` have no line of their own");
    }
}

/// For the log.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What has been cut off, by upstream.
#[derive(Debug, Default)]
pub(super) struct CutLog {
    tallies: Mutex<BTreeMap<u64, Tally>>,
    ending: AtomicBool,
}

impl CutLog {
    /// Takes one more in. True: it is to have a line of its own.
    pub(super) fn take(&self, upstream: u64, age: Duration) -> bool {
        let mut tallies = self.lock();
        let tally = tallies.entry(upstream).or_default();
        let named = tally.requests < LINES;
        tally.requests += 1;
        tally.unnamed += u64::from(!named);
        tally.oldest = tally.oldest.max(age);
        named
    }

    /// The sum for an upstream, if something of it was cut off; it begins anew after that.
    pub(super) fn sum(&self, upstream: u64) -> Option<Tally> {
        self.lock().remove(&upstream)
    }

    /// The sums of all that have one.
    pub(super) fn sums(&self) -> BTreeMap<u64, Tally> {
        std::mem::take(&mut *self.lock())
    }

    /// From now on whatever ends is cut off: the process ends.
    pub(super) fn begin_end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether the process is cutting off what is left.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(uri: &str) -> String {
        let uri: Uri = uri.parse().expect("a target");
        About::request(&Method::POST, &uri, ([192, 0, 2, 1], 7).into()).to_string()
    }

    #[test]
    fn a_request_is_named_by_method_and_path_without_its_query_and_in_bounds() {
        assert_eq!(about("/pay?card=4711"), "POST /pay");
        assert_eq!(about("http://a/pay?card=4711"), "POST /pay");
        assert_eq!(about(&format!("/{}", "x".repeat(5000))).len(), "POST ".len() + PATH_BYTES);
        let long = format!("/{}", "ü".repeat(200));
        let cut = About::request(&Method::GET, &long.parse().expect("a target"), ([192, 0, 2, 1], 7).into());
        assert!(cut.to_string().ends_with('ü'), "{cut}");
    }

    #[test]
    fn the_first_have_a_line_each_and_the_sum_counts_all_once() {
        let log = CutLog::default();
        let named = (0..60).filter(|age| log.take(1, Duration::from_secs(*age))).count();
        assert_eq!(named, 50);
        assert!(log.take(2, Duration::ZERO), "another upstream has lines of its own");
        let sum = Tally { requests: 60, unnamed: 10, oldest: Duration::from_secs(59) };
        assert_eq!((log.sum(1), log.sum(1)), (Some(sum), None));
        assert!(log.take(1, Duration::ZERO), "the next drain begins anew");
        assert_eq!(log.sums().len(), 2);
    }
}
