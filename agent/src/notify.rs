//! What the service manager is told, by `sd_notify(3)`'s protocol: ready, alive, what is awaited, stopping, which process is
//! the main one, and a copy of the gate's listener to keep, so that the kernel's queue of connections outlives the gate.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The name under which the manager keeps the listener.
pub(crate) const KEPT: &str = "kept";

/// The manager's ear; without `NOTIFY_SOCKET` nobody listens, and nothing is said.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager(Option<UnixDatagram>);

impl ServiceManager {
    /// As the environment says.
    pub(crate) fn of_environment() -> Self {
        let Ok(socket) = std::env::var("NOTIFY_SOCKET") else { return Self(None) };
        let ear = connect(&socket).inspect_err(|error| tracing::warn!(%error, socket, "cannot reach NOTIFY_SOCKET"));
        Self(ear.ok())
    }

    /// This process does what it is for: what that is, or is waited for, in a sentence.
    pub(crate) fn ready(&self, sentence: &str) {
        self.say(&format!("READY=1\nMAINPID={}\nSTATUS={}", std::process::id(), line(sentence)), &[]);
    }

    /// What is awaited now.
    pub(crate) fn status(&self, sentence: &str) {
        self.murmur(&format!("STATUS={}", line(sentence)));
    }

    /// The watchdog is told that this process gets on.
    pub(crate) fn alive(&self) {
        self.murmur("WATCHDOG=1");
    }

    /// It was told to stop.
    pub(crate) fn stopping(&self, sentence: &str) {
        self.say(&format!("STOPPING=1\nSTATUS={}", line(sentence)), &[]);
    }

    /// Gives it the listener to keep. One that it has already it keeps once.
    pub(crate) fn keep(&self, listener: BorrowedFd<'_>) {
        self.say(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={KEPT}"), &[listener]);
    }

    /// What it kept is of no use any more.
    pub(crate) fn forget(&self) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={KEPT}"), &[]);
    }

    fn say(&self, text: &str, descriptors: &[BorrowedFd<'_>]) {
        let told = self.0.as_ref().map_or(Ok(()), |ear| tell(ear, text, descriptors, SendFlags::NOSIGNAL));
        complain(told, text);
    }

    /// What may be lost: a manager that does not listen must not stop us.
    fn murmur(&self, text: &str) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        complain(self.0.as_ref().map_or(Ok(()), |ear| tell(ear, text, &[], flags)), text);
    }
}

fn complain(told: io::Result<()>, text: &str) {
    if let Err(error) = told {
        tracing::warn!(%error, text, "the service manager cannot be told");
    }
}

/// A line of the protocol ends where it ends.
fn line(sentence: &str) -> String {
    sentence.replace(['\n', '\r'], " ")
}

fn connect(socket: &str) -> io::Result<UnixDatagram> {
    let address = match socket.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let ear = UnixDatagram::unbound()?;
    ear.connect_addr(&address)?;
    Ok(ear)
}

fn tell(ear: &UnixDatagram, text: &str, descriptors: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    sendmsg(ear, &[IoSlice::new(text.as_bytes())], &mut beside, flags)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("heard");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn each_word_is_one_datagram_and_a_sentence_stays_on_its_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let manager = ServiceManager(Some(connect(path.to_str().expect("text")).expect("connected")));
        manager.ready("as assigned");
        assert_eq!(heard(&socket), format!("READY=1\nMAINPID={}\nSTATUS=as assigned", std::process::id()));
        manager.status("waiting for\nFDSTOREREMOVE=1");
        assert_eq!(heard(&socket), "STATUS=waiting for FDSTOREREMOVE=1");
        manager.alive();
        assert_eq!(heard(&socket), "WATCHDOG=1");
    }

    #[test]
    fn a_manager_that_does_not_listen_stops_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).expect("a socket");
        let manager = ServiceManager(Some(connect(path.to_str().expect("text")).expect("connected")));
        // Far more than a socket's queue takes; with a send that waits this would never end.
        (0..10_000).for_each(|_| manager.status("waiting"));
    }
}
