//! What is watched about a connection that speaks HTTP/2, beside what [`super::line`] watches about every one. Pure.
//!
//! Bytes say little here: a connection without streams may exchange pings and window updates for ever, and a stream that
//! its client does not read leaves the socket free. So the streams themselves are followed, and three floods are counted:
//! streams that are opened and reset (CVE-2023-44487), frames that belong to no stream, and answers that nobody takes.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds on one HTTP/2 connection, `[gate.http2]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http2Limits {
    /// Streams at one time; a stream above is refused (REFUSED_STREAM), which says that it may be sent again. RFC 9113
    /// recommends at least 100.
    pub streams: u32,
    /// Bytes of a request body that are taken before the service reads them, per stream.
    pub stream_window_bytes: u32,
    /// The same for all streams of a connection: what one client can make the gate hold at most.
    pub connection_window_bytes: u32,
    /// Bytes of an answer that are read from the service before the client takes them, per stream.
    pub send_buffer_bytes: usize,
    /// Streams that a client has opened and reset before the gate has looked at them; then GOAWAY (ENHANCE_YOUR_CALM).
    pub pending_resets: usize,
    /// Streams that broke the protocol and were reset by the gate, in the life of a connection; then GOAWAY. Bytes that were on
    /// their way to a stream that the gate has just reset may count, so it must not be small.
    pub faulty_streams: usize,
    /// Streams that a client may reset before their answers have ended, within ten seconds; then the connection is cut. A
    /// person who leaves a page cancels dozens of requests, an attack thousands in a second.
    pub resets: u32,
    /// Bytes that may arrive beside requests and their bodies: pings, settings, window updates. Without a stream: since the
    /// last one; with one: in ten seconds, less what window updates for the answers take. Ten thousand pings are 170 KB;
    /// keep-alive pings are one a second at most. `connection_window_bytes` come on top: so much of a body may be on its way to
    /// a stream that is over, be read together with the head that begins one, or wait for the service.
    pub stray_bytes: u64,
    /// How old a connection may get; then its client is told to make another one (GOAWAY), and what is in flight goes on. Off
    /// by default. For clients that would stay for ever where they are: on one gate of many, or in one stream.
    #[serde(with = "crate::duration::optional", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// How long an answer to a gRPC call may go on after that; then it ends with UNAVAILABLE. Half a minute, as a drain has.
    #[serde(with = "crate::duration")]
    pub max_age_grace: Duration,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams: 128,
            stream_window_bytes: 256 << 10,
            connection_window_bytes: 1 << 20,
            send_buffer_bytes: 64 << 10,
            pending_resets: 20,
            faulty_streams: 1024,
            resets: 500,
            stray_bytes: 256 << 10,
            max_age: None,
            max_age_grace: Duration::from_secs(30),
        }
    }
}

/// Over which time resets are counted.
const RESETS_OVER: Duration = Duration::from_secs(10);
/// The same for bytes beside bodies, while there is a stream.
const STRAY_OVER: Duration = Duration::from_secs(10);
/// Of a frame of a body: its head.
const FRAME_BYTES: u64 = 9;
/// What a client may send for a piece of an answer: two window updates of 13 bytes, for each 2 KiB of it.
const UPDATE_BYTES: u64 = 26;
const UPDATED_BYTES: u64 = 2 << 10;

/// What is known about the streams of one connection. All times are since the gate's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// When the connection was made.
    opened: Duration,
    /// Requests so far.
    served: u64,
    stray_bytes: u64,
    stray_since: Duration,
    resets: u32,
    resets_since: Duration,
    /// Answers of which the client has not taken what was ready for it.
    untaken: u32,
    /// When it last took something.
    taken_at: Duration,
}

impl Streams {
    /// Of a connection that was made just now.
    pub fn new(now: Duration) -> Self {
        Self { opened: now, ..Self::default() }
    }

    /// When the connection becomes too old, if it may.
    pub fn too_old_at(&self, limits: &Http2Limits) -> Option<Duration> {
        limits.max_age.map(|age| self.opened + age)
    }

    /// Bytes arrived while no stream was open.
    pub fn stray(&mut self, count: usize) {
        self.stray_bytes = self.stray_bytes.saturating_add(count as u64);
    }

    /// Bytes arrived while a stream was open: perhaps of a body, which shows when it is passed on.
    pub fn arrived(&mut self, count: usize, now: Duration) {
        if now.saturating_sub(self.stray_since) >= STRAY_OVER {
            (self.stray_bytes, self.stray_since) = (0, now);
        }
        self.stray(count);
    }

    /// So many of the bytes that arrived were a piece of a body.
    pub fn delivered(&mut self, count: usize) {
        self.stray_bytes = self.stray_bytes.saturating_sub(count as u64 + FRAME_BYTES);
    }

    /// A piece of an answer goes out, for which its client may make room again.
    pub fn passed(&mut self, count: usize) {
        self.stray_bytes = self.stray_bytes.saturating_sub((count as u64 / UPDATED_BYTES + 1) * UPDATE_BYTES);
    }

    /// A stream was opened.
    pub fn begin(&mut self) {
        self.served += 1;
        self.stray_bytes = 0;
    }

    /// A stream ended before its answer had: its client reset it.
    pub fn reset(&mut self, now: Duration) {
        if now.saturating_sub(self.resets_since) >= RESETS_OVER {
            (self.resets, self.resets_since) = (0, now);
        }
        self.resets += 1;
    }

    /// Something is ready for the client.
    pub fn offered(&mut self, now: Duration) {
        if self.untaken == 0 {
            self.taken_at = now;
        }
        self.untaken += 1;
    }

    /// The client took it, or went away.
    pub fn taken(&mut self, now: Duration) {
        self.untaken = self.untaken.saturating_sub(1);
        self.taken_at = now;
    }

    /// Since when the client takes nothing although something is ready for it.
    pub fn stalled_since(&self) -> Option<Duration> {
        (self.untaken > 0).then_some(self.taken_at)
    }

    /// Whether the client should be told to leave, once, when the gate wants its clients to go: not before its first
    /// request, because it could then connect again for ever without being served.
    pub fn can_be_dismissed(&self) -> bool {
        self.served > 0
    }

    /// Which limit it has passed.
    pub fn excess(&self, limits: &Http2Limits) -> Option<&'static str> {
        if self.resets > limits.resets {
            Some("the client resets too many streams")
        } else if self.stray_bytes > limits.stray_bytes + u64::from(limits.connection_window_bytes) {
            Some("the client sends too much that belongs to no request")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn resets_are_counted_over_ten_seconds() {
        let limits = Http2Limits { resets: 3, ..Http2Limits::default() };
        let mut streams = Streams::default();
        for n in 0..30 {
            streams.reset(S(100 + 4 * n));
            assert_eq!(streams.excess(&limits), None, "three in ten seconds, again and again");
        }
        for _ in 0..4 {
            streams.reset(S(300));
        }
        assert!(streams.excess(&limits).is_some_and(|why| why.contains("resets")));
    }

    #[test]
    fn bytes_between_requests_are_counted_since_the_last_one() {
        let limits = Http2Limits { stray_bytes: 900, connection_window_bytes: 100, ..Http2Limits::default() };
        let mut streams = Streams::default();
        streams.stray(1000);
        streams.begin();
        streams.stray(1000);
        assert_eq!(streams.excess(&limits), None);
        streams.stray(1);
        assert!(streams.excess(&limits).is_some());
    }

    #[test]
    fn beside_a_stream_bytes_are_counted_over_ten_seconds_without_bodies_and_what_answers_cost() {
        let limits = Http2Limits { stray_bytes: 9000, connection_window_bytes: 1000, ..Http2Limits::default() };
        let mut streams = Streams::default();
        streams.begin();
        for n in 0..1000 {
            streams.arrived(1009, S(100));
            streams.delivered(1000);
            streams.arrived(26 * 8, S(100));
            streams.passed(16 << 10);
            streams.arrived(500, S(100 + 10 * n));
        }
        assert_eq!(streams.excess(&limits), None, "an upload, a download, and some pings, all the time");
        streams.arrived(5000, S(20_000));
        streams.arrived(5000, S(20_009));
        assert_eq!(streams.excess(&limits), None);
        streams.arrived(1, S(20_009));
        assert!(streams.excess(&limits).is_some());
    }

    #[test]
    fn a_client_that_takes_from_one_answer_is_not_stalled_and_one_that_takes_from_none_is() {
        let mut streams = Streams::default();
        assert_eq!(streams.stalled_since(), None);
        streams.offered(S(10));
        streams.offered(S(20));
        assert_eq!(streams.stalled_since(), Some(S(10)));
        streams.taken(S(30));
        assert_eq!(streams.stalled_since(), Some(S(30)));
        streams.taken(S(40));
        assert_eq!(streams.stalled_since(), None);
    }
}
