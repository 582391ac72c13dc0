//! A response body that comes in pieces over a given time, for tests that need a request in flight.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior, interval};

const PIECE: &[u8] = b"a piece of a slow answer\n";
/// Pieces are this far apart: often enough that a reader sees a broken body soon.
const APART: Duration = Duration::from_millis(20);

/// The body.
pub(super) struct Pieces {
    left: VecDeque<Bytes>,
    pace: Interval,
}

impl Pieces {
    /// A body that ends after about `span`. Its length is announced, so that a cut body cannot pass for a whole one.
    pub(super) fn over(span: Duration) -> Self {
        Self::paced((0..count(span)).map(|_| Bytes::from_static(PIECE)).collect())
    }

    /// These bytes, over about `span`.
    pub(super) fn of(mut bytes: Bytes, span: Duration) -> Self {
        let each = bytes.len().div_ceil(count(span)).max(1);
        let mut pieces = VecDeque::new();
        while !bytes.is_empty() {
            pieces.push_back(bytes.split_to(each.min(bytes.len())));
        }
        Self::paced(pieces)
    }

    fn paced(left: VecDeque<Bytes>) -> Self {
        let mut pace = interval(APART);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { left, pace }
    }

    /// What is left to send.
    pub(super) fn content(&self) -> impl Iterator<Item = &Bytes> {
        self.left.iter()
    }

    /// As every answer's body is given.
    pub(super) fn boxed_unsync(self) -> super::http::Body {
        self.map_err(|never| match never {}).boxed_unsync()
    }
}

fn count(span: Duration) -> usize {
    usize::try_from(span.as_millis() / APART.as_millis()).unwrap_or(usize::MAX - 1) + 1
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.pace.poll_tick(cx));
        Poll::Ready(self.left.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.iter().map(|piece| piece.len() as u64).sum())
    }
}
