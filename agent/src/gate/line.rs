//! When to close a client's connection. Pure.
//!
//! A connection on which a request is running is never closed for its age. One with the first bytes of a request is given
//! the time for a head. One without a byte is idle: it is closed after the idle time, or, once the gate is leaving, after a
//! grace, because a request may be on its way (`SAFETY.md` §2.2).

use std::time::Duration;

use super::settings::Limits;
use super::streams::{Http2Limits, Streams};

/// What is known about one connection. All times are since the gate's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Line {
    /// Requests of which a body has not ended, 0 or 1 unless a client pipelines.
    pub running: u32,
    /// When the first byte of a head that is not complete yet arrived.
    pub head_since: Option<Duration>,
    /// Since when the client does not take what we want to write.
    pub blocked_since: Option<Duration>,
    /// When the connection was made or its last answer ended.
    pub idle_since: Duration,
    /// The head of the answer to the request that runs is on its way. Not of HTTP/2.
    pub answering: bool,
    /// When the time for the request that runs is over, which its answer's body sees to unless the client takes nothing of it.
    pub deadline: Option<Duration>,
    /// Since when nothing was taken by a client that has ended its side, while its answer is on its way.
    pub ended_since: Option<Duration>,
    /// For a connection that speaks HTTP/2.
    pub streams: Option<Streams>,
}

/// What to do with the connection now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Leave it alone and look again then.
    KeepUntil(Duration),
    /// It has been idle long enough: close it in good order.
    Close,
    /// The client is too slow: cut it off.
    Cut(&'static str),
}

impl Line {
    /// So many bytes arrived. Those of HTTP/2 do not tell whether they begin a request.
    pub fn bytes_read(&mut self, count: usize, now: Duration) {
        match &mut self.streams {
            Some(streams) if self.running > 0 => streams.arrived(count, now),
            Some(streams) => streams.stray(count),
            None if self.running > 0 => {}
            None => self.head_since = self.head_since.or(Some(now)),
        }
    }

    /// The client turned out to speak HTTP/2.
    pub fn speaks_http2(&mut self, now: Duration) {
        self.streams = Some(Streams::new(now));
        self.head_since = None;
        self.idle_since = now;
    }

    /// Whether [`Line::wrote`] would change anything: not for a client that takes all that it is told.
    pub fn heeds_write(&self, taken: bool) -> bool {
        if taken { self.blocked_since.is_some() || self.ended_since.is_some() } else { self.blocked_since.is_none() }
    }

    /// A write was taken, or was refused for now.
    pub fn wrote(&mut self, taken: bool, now: Duration) {
        if taken && self.ended_since.is_some() {
            self.ended_since = Some(now);
        }
        match (taken, self.blocked_since) {
            (true, Some(_)) => {
                self.blocked_since = None;
                self.idle_since = now;
            }
            (false, None) => self.blocked_since = Some(now),
            _ => {}
        }
    }

    /// A request's head is complete.
    pub fn begin(&mut self) {
        self.running += 1;
        self.head_since = None;
        (self.answering, self.deadline, self.ended_since) = (false, None, None);
        if let Some(streams) = &mut self.streams {
            streams.begin();
        }
    }

    /// The head of an answer is on its way, and when the time for all of it is over.
    pub fn answers(&mut self, deadline: Option<Duration>) {
        // By HTTP/2 there are others on the connection.
        (self.answering, self.deadline) = (true, deadline.filter(|_| self.streams.is_none()));
    }

    /// Time to look whether the client has ended its side. Before the head of its answer that says nothing: it may wait for
    /// it, and for that there is a limit. After it there is none, and who has ended its side and is told nothing mostly is gone.
    pub fn look(&mut self, now: Duration, has_ended: impl FnOnce() -> bool) {
        if self.running > 0 && self.answering && self.streams.is_none() && self.ended_since.is_none() && has_ended() {
            self.ended_since = Some(now);
        }
    }

    /// Both bodies of a request ended, or were given up; `whole` if the answer had ended well.
    pub fn end(&mut self, whole: bool, now: Duration) {
        self.running = self.running.saturating_sub(1);
        self.idle_since = now;
        if let (Some(streams), false) = (&mut self.streams, whole) {
            streams.reset(now);
        }
    }

    /// Whether a client that should leave is to be told now, by GOAWAY; one that speaks HTTP/1.1 is told by an answer.
    pub fn wants_notice(&self) -> bool {
        self.streams.is_some_and(|streams| streams.can_be_dismissed())
    }

    /// When its client is to be told to make another connection, because this one has become old.
    pub fn too_old_at(&self, http2: &Http2Limits) -> Option<Duration> {
        self.streams.and_then(|streams| streams.too_old_at(http2))
    }

    /// The decision; `leaving_since` is when the gate was shut or told to stop.
    pub fn fate(&self, limits: &Limits, http2: &Http2Limits, leaving_since: Option<Duration>, now: Duration) -> Fate {
        if let Some(why) = self.streams.and_then(|streams| streams.excess(http2)) {
            return Fate::Cut(why);
        }
        let stalled = self.streams.and_then(|streams| streams.stalled_since());
        let (until, overdue) = if let Some(since) = self.blocked_since.or(stalled) {
            let until = since + limits.stall_time;
            match self.deadline.filter(|deadline| self.running > 0 && *deadline < until) {
                Some(deadline) => (deadline, Fate::Cut("the time for its request is over, and it reads nothing")),
                None => (until, Fate::Cut("the client reads nothing")),
            }
        } else if let (Some(since), true) = (self.ended_since, self.running > 0) {
            (since + limits.stall_time, Fate::Cut("the client has ended its side, and nothing is said to it"))
        } else if self.running > 0 {
            return Fate::KeepUntil(now + limits.stall_time);
        } else if let Some(since) = self.head_since {
            (since + limits.header_time, Fate::Cut("the client sends its request too slowly"))
        } else {
            let idle = self.idle_since + limits.idle_time;
            let leave = leaving_since.map(|since| since.max(self.idle_since) + limits.leave_grace);
            (leave.map_or(idle, |leave| leave.min(idle)), Fate::Close)
        };
        if now < until { Fate::KeepUntil(until) } else { overdue }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn limits() -> Limits {
        Limits { header_time: S(10), idle_time: S(75), stall_time: S(60), leave_grace: S(1), ..Limits::default() }
    }

    #[test]
    fn an_idle_connection_is_closed_after_the_idle_time_and_sooner_when_the_gate_leaves() {
        let line = Line { idle_since: S(100), ..Line::default() };
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), None, S(174)), Fate::KeepUntil(S(175)));
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), None, S(175)), Fate::Close);
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), Some(S(110)), S(110)), Fate::KeepUntil(S(111)));
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), Some(S(110)), S(111)), Fate::Close);
    }

    #[test]
    fn a_connection_whose_answer_ended_while_leaving_gets_the_whole_grace() {
        let line = Line { idle_since: S(120), ..Line::default() };
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), Some(S(110)), S(120)), Fate::KeepUntil(S(121)));
    }

    #[test]
    fn a_connection_with_the_first_bytes_of_a_request_is_not_idle_even_when_the_gate_leaves() {
        let mut line = Line::default();
        line.bytes_read(1, S(80));
        line.bytes_read(1, S(85));
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), Some(S(1)), S(85)), Fate::KeepUntil(S(90)));
        assert_eq!(
            line.fate(&limits(), &Http2Limits::default(), Some(S(1)), S(90)),
            Fate::Cut("the client sends its request too slowly")
        );
        line.begin();
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), Some(S(1)), S(500)), Fate::KeepUntil(S(560)));
        line.end(true, S(500));
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), None, S(501)), Fate::KeepUntil(S(575)));
    }

    #[test]
    fn a_client_that_reads_nothing_is_cut_off_but_one_that_reads_slowly_is_not() {
        let mut line = Line::default();
        line.begin();
        line.wrote(false, S(10));
        line.wrote(false, S(60));
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), None, S(70)), Fate::Cut("the client reads nothing"));
        line.wrote(true, S(69));
        line.wrote(false, S(69));
        assert_eq!(line.fate(&limits(), &Http2Limits::default(), None, S(70)), Fate::KeepUntil(S(129)));
    }

    #[test]
    fn a_write_that_is_not_heeded_would_change_nothing() {
        for (blocked_since, ended_since) in
            [(None, None), (Some(S(1)), None), (None, Some(S(2))), (Some(S(1)), Some(S(2)))]
        {
            let before = Line { blocked_since, ended_since, ..Line::default() };
            for taken in [true, false] {
                let mut after = before;
                after.wrote(taken, S(3));
                assert_eq!(before.heeds_write(taken), after != before, "{before:?} {taken}");
            }
        }
    }

    #[test]
    fn a_client_that_reads_nothing_is_cut_off_when_the_time_for_its_request_is_over() {
        let mut line = Line::default();
        let fate = |line: &Line, now| line.fate(&limits(), &Http2Limits::default(), None, now);
        line.begin();
        line.answers(Some(S(30)));
        assert_eq!(fate(&line, S(40)), Fate::KeepUntil(S(100)), "the answer's body sees to that");
        line.wrote(false, S(10));
        assert_eq!(fate(&line, S(20)), Fate::KeepUntil(S(30)));
        assert!(matches!(fate(&line, S(30)), Fate::Cut(_)));
        line.end(false, S(31));
        line.begin();
        assert_eq!(fate(&line, S(31)), Fate::KeepUntil(S(70)), "another request");
    }

    #[test]
    fn a_client_that_has_ended_its_side_is_cut_off_once_it_is_told_nothing_for_long_after_the_head_of_its_answer() {
        let mut line = Line::default();
        let fate = |line: &Line, now| line.fate(&limits(), &Http2Limits::default(), None, now);
        line.begin();
        line.look(S(1), || true);
        assert_eq!(fate(&line, S(400)), Fate::KeepUntil(S(460)), "it waits for its answer");
        line.answers(None);
        line.look(S(400), || false);
        assert_eq!(fate(&line, S(500)), Fate::KeepUntil(S(560)), "it has not ended its side");
        line.look(S(500), || true);
        line.wrote(true, S(530));
        line.look(S(535), || true);
        assert_eq!(fate(&line, S(589)), Fate::KeepUntil(S(590)), "what it is told shows whether it is there");
        assert!(matches!(fate(&line, S(590)), Fate::Cut(_)));
        line.end(true, S(591));
        line.begin();
        assert_eq!(fate(&line, S(592)), Fate::KeepUntil(S(652)), "another request");
    }

    #[test]
    fn an_http2_connection_is_idle_without_streams_whatever_bytes_arrive() {
        let mut line = Line::default();
        line.bytes_read(24, S(1));
        line.speaks_http2(S(1));
        line.bytes_read(17, S(70));
        let fate = |line: &Line, now| line.fate(&limits(), &Http2Limits::default(), None, now);
        assert_eq!(fate(&line, S(75)), Fate::KeepUntil(S(76)));
        assert_eq!(fate(&line, S(76)), Fate::Close);
        assert!(!line.wants_notice(), "it has not been served yet");
        line.begin();
        assert_eq!(fate(&line, S(76)), Fate::KeepUntil(S(136)));
        assert!(line.wants_notice());
    }
}
