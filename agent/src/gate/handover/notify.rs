//! What the service manager is told, by `sd_notify(3)`'s protocol: ready, stopping, which process is the main one, and a
//! copy of the listener to keep, so that the kernel's queue of connections outlives this process.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The name under which the manager keeps the listener.
pub(super) const KEPT: &str = "kept";

/// The manager's ear; without `NOTIFY_SOCKET` nobody listens, and nothing is said.
#[derive(Debug, Default)]
pub(in crate::gate) struct ServiceManager(Option<UnixDatagram>);

impl ServiceManager {
    /// As the environment says.
    pub(in crate::gate) fn of_environment() -> Self {
        let Ok(socket) = std::env::var("NOTIFY_SOCKET") else { return Self(None) };
        let ear = connect(&socket).inspect_err(|error| tracing::warn!(%error, socket, "cannot reach NOTIFY_SOCKET"));
        Self(ear.ok())
    }

    /// Clients are accepted, by this process.
    pub(in crate::gate) fn ready(&self) {
        self.say(&format!("READY=1\nMAINPID={}\nSTATUS=accepts clients", std::process::id()), &[]);
    }

    /// It was told to stop.
    pub(in crate::gate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=finishes what is in flight", &[]);
    }

    /// Gives it the listener to keep. One that it has already it keeps once.
    pub(in crate::gate) fn keep(&self, listener: BorrowedFd<'_>) {
        self.say(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={KEPT}"), &[listener]);
    }

    /// What it kept is of no use any more.
    pub(in crate::gate) fn forget(&self) {
        self.say(&format!("FDSTOREREMOVE=1\nFDNAME={KEPT}"), &[]);
    }

    fn say(&self, text: &str, descriptors: &[BorrowedFd<'_>]) {
        let Some(ear) = &self.0 else { return };
        if let Err(error) = tell(ear, text, descriptors) {
            tracing::warn!(%error, text, "the service manager cannot be told");
        }
    }
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

fn tell(ear: &UnixDatagram, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
    }
    sendmsg(ear, &[IoSlice::new(text.as_bytes())], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}
