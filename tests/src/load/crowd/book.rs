//! What the crowd counted, by kind of client. No I/O.
//!
//! A request is *lost* when it got no whole and valid answer, and nothing told its client beforehand. It was *returned* when
//! the protocol itself says that it was not processed, or that no answer will come (GOAWAY, REFUSED_STREAM, a stream that
//! ended in good order): its client may say it again and knows that.
//!
//! A connection that the other side ends was *announced* (`Connection: close`, GOAWAY, a closing frame or the orderly end of
//! a stream), or closed *idle* (in good order, with nothing under way, and without a word), or *dropped*: all else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::load::histogram::Histogram;
use crate::span;

/// Losses that are kept one by one; the rest is only counted.
const KEPT: usize = 200;

/// A kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// HTTP/1.1, one request after the other on one connection.
    KeepAlive,
    /// The same, but idle for seconds between requests.
    Idle,
    /// HTTP/1.1 requests with long, slow bodies; the answer has their digest.
    Upload,
    /// HTTP/1.1 answers with long, slow bodies; a header has their digest.
    Download,
    /// One HTTP/2 connection with many streams.
    Http2,
    /// gRPC calls.
    GrpcUnary,
    /// One gRPC stream both ways for as long as it lasts.
    GrpcStream,
    /// One WebSocket for as long as it lasts.
    WebSocket,
    /// One stream of server-sent events for as long as it lasts.
    Events,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::KeepAlive,
        Self::Idle,
        Self::Upload,
        Self::Download,
        Self::Http2,
        Self::GrpcUnary,
        Self::GrpcStream,
        Self::WebSocket,
        Self::Events,
    ];

    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive",
            Self::Idle => "idle",
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Http2 => "http2",
            Self::GrpcUnary => "grpc-unary",
            Self::GrpcStream => "grpc-stream",
            Self::WebSocket => "websocket",
            Self::Events => "events",
        }
    }
}

/// How the other side ended a connection or a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum End {
    /// It had said so.
    Announced,
    /// In good order with nothing under way, without a word before.
    Idle,
    /// In the middle of something, or by a reset.
    Dropped,
}

/// The numbers of one kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Requests, and messages on streams, that left.
    pub sent: u64,
    /// Those with a whole and valid answer.
    pub answered: u64,
    /// Those that came back unprocessed, by the protocol's word.
    pub returned: u64,
    /// All others that ended.
    pub lost: u64,
    /// What came without being asked for: events.
    pub pushed: u64,
    /// Connections that were opened.
    pub opened: u64,
    /// Ends by the other side that it had announced.
    pub announced: u64,
    /// Ends by the other side in good order, with nothing under way, without a word.
    pub idle: u64,
    /// Ends by the other side in the middle of something, or by a reset.
    pub dropped: u64,
    /// How long answers took.
    pub latency: Histogram,
}

/// One loss.
#[derive(Debug, Clone, Serialize)]
pub struct Loss {
    /// Since the crowd's start.
    #[serde(rename = "at_ms", serialize_with = "span::as_ms")]
    pub at: Duration,
    /// Whose.
    pub kind: Kind,
    /// What was seen.
    pub detail: String,
}

/// Everything that the crowd saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CrowdReceipt {
    /// By kind.
    pub kinds: BTreeMap<Kind, Counts>,
    /// Losses and dropped connections, the first two hundred.
    pub losses: Vec<Loss>,
}

impl CrowdReceipt {
    /// The numbers of one kind.
    pub fn of(&self, kind: Kind) -> Counts {
        self.kinds.get(&kind).cloned().unwrap_or_default()
    }

    /// A sum over all kinds.
    pub fn sum(&self, what: impl Fn(&Counts) -> u64) -> u64 {
        self.kinds.values().map(what).sum()
    }

    /// Nothing was lost, and no connection was dropped.
    pub fn is_clean(&self) -> bool {
        self.sum(|counts| counts.lost + counts.dropped) == 0
    }
}

impl fmt::Display for CrowdReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<12}{:>9}{:>10}{:>9}{:>6}{:>8}{:>8}{:>10}{:>6}{:>8}{:>9}{:>9}",
            "KIND",
            "SENT",
            "ANSWERED",
            "RETURNED",
            "LOST",
            "PUSHED",
            "OPENED",
            "ANNOUNCED",
            "IDLE",
            "DROPPED",
            "p50",
            "p99"
        )?;
        for (kind, c) in &self.kinds {
            let ms = |q| format!("{:.1}ms", c.latency.quantile(q).as_secs_f64() * 1e3);
            writeln!(
                f,
                "{:<12}{:>9}{:>10}{:>9}{:>6}{:>8}{:>8}{:>10}{:>6}{:>8}{:>9}{:>9}",
                kind.as_str(),
                c.sent,
                c.answered,
                c.returned,
                c.lost,
                c.pushed,
                c.opened,
                c.announced,
                c.idle,
                c.dropped,
                ms(0.5),
                ms(0.99)
            )?;
        }
        for loss in self.losses.iter().take(20) {
            writeln!(f, "  at {:.3} s, {}: {}", loss.at.as_secs_f64(), loss.kind.as_str(), loss.detail)?;
        }
        Ok(())
    }
}

/// Where clients book.
#[derive(Debug)]
pub struct Book {
    began: Instant,
    receipt: Mutex<CrowdReceipt>,
}

impl Default for Book {
    fn default() -> Self {
        Self { began: Instant::now(), receipt: Mutex::default() }
    }
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, CrowdReceipt> {
        self.receipt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something of a kind.
    pub(super) fn note(&self, kind: Kind, count: impl FnOnce(&mut Counts)) {
        count(self.lock().kinds.entry(kind).or_default());
    }

    /// A request was answered well.
    pub(super) fn answered(&self, kind: Kind, took: Duration) {
        self.note(kind, |counts| {
            counts.answered += 1;
            counts.latency.add(took);
        });
    }

    /// A request was lost.
    pub(super) fn lost(&self, kind: Kind, detail: impl Into<String>) {
        self.note(kind, |counts| counts.lost += 1);
        self.keep(kind, detail.into());
    }

    /// The other side ended a connection.
    pub(super) fn ended(&self, kind: Kind, end: End, detail: impl fmt::Display) {
        self.note(kind, |counts| match end {
            End::Announced => counts.announced += 1,
            End::Idle => counts.idle += 1,
            End::Dropped => counts.dropped += 1,
        });
        if end == End::Dropped {
            self.keep(kind, format!("connection dropped: {detail}"));
        }
    }

    fn keep(&self, kind: Kind, detail: String) {
        let at = self.began.elapsed();
        let mut receipt = self.lock();
        if receipt.losses.len() < KEPT {
            receipt.losses.push(Loss { at, kind, detail });
        }
    }

    pub(super) fn receipt(&self) -> CrowdReceipt {
        self.lock().clone()
    }
}
