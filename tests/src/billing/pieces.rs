//! A response body that comes in pieces over a given time, for tests that need a request in flight.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Interval, MissedTickBehavior, interval};

const PIECE: &[u8] = b"a piece of a slow answer\n";
/// Pieces are this far apart: often enough that a reader sees a broken body soon.
const APART: Duration = Duration::from_millis(20);

/// The body.
pub(super) struct Pieces {
    left: u64,
    pace: Interval,
}

impl Pieces {
    /// A body that ends after about `span`. Its length is announced, so that a cut body cannot pass for a whole one.
    pub(super) fn over(span: Duration) -> Self {
        let count = u64::try_from(span.as_millis() / APART.as_millis()).unwrap_or(u64::MAX / 1024) + 1;
        let mut pace = interval(APART);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { left: count, pace }
    }

    fn bytes_left(&self) -> u64 {
        self.left * PIECE.len() as u64
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        ready!(self.pace.poll_tick(cx));
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(PIECE)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes_left())
    }
}
