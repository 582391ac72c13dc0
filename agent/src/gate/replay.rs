//! Sending a request body once more: by HTTP/2 an upstream may say that it has not processed a request of which a part, or
//! all, has been written. A service that closes its connections in good order does that to whatever it crosses.

use std::collections::VecDeque;

use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::oneshot;

use super::upload::RequestBody;

/// The most that is kept of a body: what one stream's first window lets pass before the upstream has said anything.
const KEPT_BYTES: usize = 64 << 10;

/// What has been passed on of a body.
pub(super) struct Replay {
    kept: VecDeque<Bytes>,
    bytes: usize,
    /// None: more has passed than is kept, so there is no way back.
    back: Option<oneshot::Sender<RequestBody>>,
}

/// What is to be passed on before the rest of a body.
#[derive(Default)]
pub(super) struct Again(VecDeque<Bytes>);

impl Again {
    pub(super) fn next(&mut self) -> Option<Bytes> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Replay {
    pub(super) fn new() -> (Self, oneshot::Receiver<RequestBody>) {
        let (back, receiver) = oneshot::channel();
        (Self { kept: VecDeque::new(), bytes: 0, back: Some(back) }, receiver)
    }

    /// Keeps what is passed on, as long as it is little and somebody may ask for it.
    pub(super) fn keep(&mut self, bytes: &Bytes) {
        self.bytes += bytes.len();
        if self.bytes > KEPT_BYTES || self.back.as_ref().is_some_and(oneshot::Sender::is_closed) {
            self.give_up();
        } else if self.back.is_some() {
            self.kept.push_back(bytes.clone());
        }
    }

    /// The same for a frame; trailers come after everything, and are not kept.
    pub(super) fn keep_frame(&mut self, frame: &Frame<Bytes>) {
        match frame.data_ref() {
            Some(bytes) => self.keep(bytes),
            None => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        self.back = None;
        self.kept = VecDeque::new();
    }

    /// What was kept, and where the body is to go with it.
    pub(super) fn hand_back(self) -> Option<(Again, oneshot::Sender<RequestBody>)> {
        let back = self.back.filter(|back| !back.is_closed())?;
        Some((Again(self.kept), back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_kept_in_order_and_much_not_at_all() {
        let (mut replay, _receiver) = Replay::new();
        for part in ["one", "two"] {
            replay.keep(&Bytes::from(part));
        }
        let (mut again, _) = replay.hand_back().expect("a way back");
        assert_eq!((again.next(), again.next(), again.next()), (Some("one".into()), Some("two".into()), None));
        let (mut replay, _receiver) = Replay::new();
        for _ in 0..3 {
            replay.keep(&Bytes::from(vec![0; KEPT_BYTES / 2]));
        }
        assert!(replay.hand_back().is_none(), "more than is kept");
    }

    #[test]
    fn trailers_and_an_answer_end_the_way_back() {
        let (mut replay, _receiver) = Replay::new();
        replay.keep_frame(&Frame::trailers(hyper::HeaderMap::new()));
        assert!(replay.hand_back().is_none());
        let (mut replay, receiver) = Replay::new();
        drop(receiver);
        replay.keep(&Bytes::from("late"));
        assert!(replay.kept.is_empty() && replay.hand_back().is_none());
    }
}
