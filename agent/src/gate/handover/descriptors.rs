//! Lines with descriptors beside them (SCM_RIGHTS), over a Unix stream.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, WriteHalf};

/// No gate hands over more at one time.
const MOST: usize = 8;

/// Writes one message as a line, with descriptors. The first byte carries them.
pub(super) async fn write<T: Serialize>(
    writer: &mut WriteHalf<'_>,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let stream: &UnixStream = (*writer).as_ref();
    let sent = loop {
        stream.writable().await?;
        match stream.try_io(Interest::WRITABLE, || send(stream, &line, descriptors)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => break other?,
        }
    };
    writer.write_all(&line[sent..]).await
}

fn send(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)?)
}

/// Descriptors that have arrived, in order.
pub(super) type Arrived = Arc<Mutex<Vec<OwnedFd>>>;

/// Reads a stream and keeps the descriptors that come along.
pub(super) struct WithDescriptors {
    half: OwnedReadHalf,
    arrived: Arrived,
}

impl WithDescriptors {
    pub(super) fn new(half: OwnedReadHalf) -> (Self, Arrived) {
        let arrived = Arrived::default();
        (Self { half, arrived: Arc::clone(&arrived) }, arrived)
    }

    fn receive(&self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let stream: &UnixStream = self.half.as_ref();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let into = buf.initialize_unfilled();
        let got = recvmsg(stream, &mut [IoSliceMut::new(into)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.arrived.lock().unwrap_or_else(PoisonError::into_inner).extend(descriptors);
            }
        }
        buf.advance(got.bytes);
        Ok(())
    }
}

impl AsyncRead for WithDescriptors {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let stream: &UnixStream = self.half.as_ref();
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_io(Interest::READABLE, || self.receive(buf)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}
