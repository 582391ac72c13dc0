//! Connections to a port, from the kernel's tables, in the network namespace of a process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::diag::{Family, piece, question};

/// Datagrams of an answer have at most 32 KiB.
const DATAGRAM_BYTES: usize = 64 << 10;
/// The kernel answers at once.
const ANSWER_SECONDS: i64 = 1;
/// Tables that change while they are read are read again this often.
const TRIES: u32 = 5;

/// Connections that could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    /// The process is gone, or its namespace may not be entered.
    #[error(
        "sockets: the network namespace of process {pid} cannot be entered (another one than the agent's needs CAP_SYS_ADMIN)"
    )]
    Namespace {
        /// Whose.
        pid: i32,
        /// Why not.
        source: io::Error,
    },
    /// The kernel did not answer.
    #[error("sockets: the kernel does not tell them (NETLINK_SOCK_DIAG)")]
    Netlink(#[source] io::Error),
    /// The kernel's tables changed whenever they were read.
    #[error("sockets: the kernel's tables change faster than they can be read")]
    Restless,
    /// It answered something else.
    #[error("sockets: the kernel's answer cannot be read")]
    Garbled,
}

/// The way to the kernel's tables: one socket per namespace, which stays in the one in which it was opened.
#[derive(Debug, Default)]
pub struct Kernel {
    ways: BTreeMap<(u64, u64), OwnedFd>,
    seq: u32,
}

impl Kernel {
    /// Who is connected to this port, in the namespace of this process. Blocks for a few milliseconds.
    ///
    /// # Errors
    /// [`SocketsError`]; then nothing is known.
    pub fn connections(&mut self, pid: i32, port: u16) -> Result<BTreeSet<SocketAddr>, SocketsError> {
        let at = self.way(pid)?;
        let mut all = BTreeSet::new();
        for family in Family::ALL {
            let found = (0..TRIES).find_map(|_| self.ask(at, family, port).transpose());
            match found {
                Some(Ok(peers)) => all.extend(peers),
                Some(Err(error)) => {
                    // A socket with an answer half read would mix it with the next one.
                    self.ways.remove(&at);
                    return Err(error);
                }
                None => return Err(SocketsError::Restless),
            }
        }
        Ok(all)
    }

    fn way(&mut self, pid: i32) -> Result<(u64, u64), SocketsError> {
        let unknown = |source| SocketsError::Namespace { pid, source };
        let theirs = format!("/proc/{pid}/ns/net");
        let of = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
        let at = of(&theirs).map_err(unknown)?;
        if !self.ways.contains_key(&at) {
            let way = if of("/proc/thread-self/ns/net").map_err(unknown)? == at {
                open().map_err(SocketsError::Netlink)?
            } else {
                open_in(&File::open(&theirs).map_err(unknown)?).map_err(unknown)?
            };
            // Namespaces of processes that are gone go with them.
            self.ways.clear();
            self.ways.insert(at, way);
        }
        Ok(at)
    }

    /// None: the tables changed meanwhile.
    fn ask(&mut self, at: (u64, u64), family: Family, port: u16) -> Result<Option<Vec<SocketAddr>>, SocketsError> {
        let netlink = |errno: nix::Error| SocketsError::Netlink(errno.into());
        self.seq = self.seq.wrapping_add(1);
        let Some(way) = self.ways.get(&at) else { return Err(SocketsError::Garbled) };
        let bytes = question(family, port, self.seq);
        sendto(way.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty()).map_err(netlink)?;
        let (mut peers, mut interrupted) = (Vec::new(), false);
        let mut datagram = vec![0; DATAGRAM_BYTES];
        loop {
            let count = recv(way.as_raw_fd(), &mut datagram, MsgFlags::empty()).map_err(netlink)?;
            let read = datagram.get(..count).and_then(|bytes| piece(bytes, self.seq));
            let read = read.ok_or(SocketsError::Garbled)?;
            if let Some(errno) = read.errno {
                return Err(SocketsError::Netlink(io::Error::from_raw_os_error(errno)));
            }
            interrupted |= read.interrupted;
            peers.extend(read.peers);
            if read.done {
                return Ok((!interrupted).then_some(peers));
            }
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkSockDiag;
    let way = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&way, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
    Ok(way)
}

/// On a thread that ends with it: a thread that has entered a namespace stays there.
fn open_in(namespace: &File) -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        // The builder says that there is no thread to be had; `scope.spawn` would panic.
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            open()
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that enters it ended")))
    })
}
