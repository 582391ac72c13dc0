//! One direction of a tunnel: bytes from one socket to another, with back-pressure and half-close.
//!
//! Nothing is read before what was read has been written, and an idle direction holds no buffer: bytes are read into one that
//! the thread's tunnels share, and only what the other side does not take at once is kept.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::websocket::{CLOSE_RESTART, Frames};

/// How much is read at once: what makes large transfers fast, measured for bodies.
const BUFFER_BYTES: usize = 64 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// How far a direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes pass.
    Open,
    /// The reader is told to go as soon as a frame ends.
    Leaving,
    /// The reader was told: what still comes is read and thrown away.
    Told,
    /// There is nothing more to read; the writing side is to be closed once all is written.
    Ending,
    /// The writing side is closed.
    Ended,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Pipe {
    state: State,
    kept: Vec<u8>,
    written: usize,
    unflushed: bool,
    /// Who is written to takes no more.
    refused: bool,
    /// For a direction that may have to be told to leave, and speaks WebSocket.
    frames: Option<Frames>,
}

impl Pipe {
    /// Begins with bytes that were read already.
    pub(super) fn new(already: &[u8], frames: Option<Frames>) -> Self {
        let mut pipe =
            Self { state: State::Open, kept: already.to_vec(), written: 0, unflushed: false, refused: false, frames };
        if let Some(frames) = &mut pipe.frames {
            frames.pass(already);
        }
        pipe
    }

    /// Tells the reader to leave: a WebSocket by a Close frame at the end of the present frame, anything else by half-closing.
    pub(super) fn leave(&mut self) {
        if self.state != State::Open {
            return;
        }
        match &self.frames {
            None => self.state = State::Ending,
            Some(frames) if frames.at_boundary() => self.tell(),
            Some(_) => self.state = State::Leaving,
        }
    }

    fn tell(&mut self) {
        self.kept.extend_from_slice(&CLOSE_RESTART);
        self.state = State::Told;
    }

    /// After an error: if it was that who is written to takes no more, what comes is from now on read and thrown away. False:
    /// it was something else, or that was known.
    pub(super) fn discard(&mut self) -> bool {
        if !self.refused || self.state == State::Told {
            return false;
        }
        (self.state, self.kept, self.written, self.unflushed) = (State::Told, Vec::new(), 0, false);
        true
    }

    /// Notes when writing failed.
    fn wrote<T>(&mut self, written: io::Result<T>) -> io::Result<T> {
        self.refused |= written.is_err();
        written
    }

    /// Passes on what there is; ready once the direction has ended. `moved` is set if a byte passed.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &mut bool,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.poll_write_kept(cx, to, moved))?;
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    if !self.refused {
                        ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    }
                    self.state = State::Ended;
                    return Poll::Ready(Ok(()));
                }
                State::Open | State::Leaving | State::Told => {}
            }
            match self.poll_read_on(cx, from, to, moved) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    if self.unflushed {
                        let flushed = ready!(Pin::new(&mut *to).poll_flush(cx));
                        self.wrote(flushed)?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn poll_write_kept<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.kept.get(self.written..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut *to).poll_write(cx, rest));
            let count = self.wrote(written)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.unflushed = true;
            *moved = true;
        }
        // Not kept for the next time: most tunnels idle.
        self.kept = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads once, and writes as much of it as is taken at once.
    fn poll_read_on<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &mut bool,
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(buffer);
            ready!(Pin::new(from).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                self.state = State::Ending;
                return Poll::Ready(Ok(()));
            }
            let count = self.let_through(read.filled());
            let bytes = read.filled().get(..count).unwrap_or_default();
            let mut taken = 0;
            if !bytes.is_empty()
                && let Poll::Ready(written) = Pin::new(to).poll_write(cx, bytes)
            {
                taken = self.wrote(written)?;
                self.unflushed = true;
                *moved = true;
            }
            self.kept.extend_from_slice(bytes.get(taken..).unwrap_or_default());
            if self.state == State::Leaving && self.frames.as_ref().is_some_and(Frames::at_boundary) {
                self.tell();
            }
            Poll::Ready(Ok(()))
        })
    }

    /// How many of the bytes go on.
    fn let_through(&mut self, bytes: &[u8]) -> usize {
        match (self.state, &mut self.frames) {
            (State::Told, _) => 0,
            (State::Leaving, Some(frames)) => frames.finish(bytes),
            (_, Some(frames)) => {
                frames.pass(bytes);
                bytes.len()
            }
            (_, None) => bytes.len(),
        }
    }
}
