//! Hears from the kernel that this virtual machine was copied or restored from a snapshot: the uevent `NEW_VMGENID=1`
//! (Linux 6.10 and later, on hypervisors with a VM generation id). Elsewhere nothing is heard.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket,
};
use nix::sys::time::TimeVal;

/// The kernel's own messages; udev's come in another group.
const KERNEL: u32 = 1;
/// A uevent is at most 2 KiB.
const MESSAGE_BYTES: usize = 8 << 10;
/// So often it is looked whether anybody still listens to us.
const LOOK_UP_S: i64 = 60;

/// Calls `found` at each copy, on a thread of its own, for as long as `wanted`.
///
/// # Errors
/// When the kernel gives no such socket or thread: copies are not noticed then.
pub(super) fn listen(wanted: impl Fn() -> bool + Send + 'static, found: impl Fn() + Send + 'static) -> io::Result<()> {
    let events = open()?;
    let work = move || {
        let mut buffer = vec![0; MESSAGE_BYTES];
        while wanted() {
            match recvfrom::<NetlinkAddr>(events.as_raw_fd(), &mut buffer) {
                // Only the kernel has no port.
                Ok((length, Some(from))) if from.pid() == 0 && tells_of_a_copy(&buffer[..length]) => found(),
                // Messages that were lost may have been the one.
                Err(Errno::ENOBUFS) => found(),
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return tracing::warn!(%error, "a copy of this virtual machine will not be noticed"),
            }
        }
    };
    std::thread::Builder::new().name("vm-copied".to_owned()).spawn(work).map(drop)
}

fn open() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkKObjectUEvent;
    let events = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&events, ReceiveTimeout, &TimeVal::new(LOOK_UP_S, 0))?;
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
    Ok(events)
}

/// `change@/devices/…`, then variables, each ended by a zero byte.
fn tells_of_a_copy(message: &[u8]) -> bool {
    message.split(|byte| *byte == 0).any(|variable| variable == b"NEW_VMGENID=1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_word_of_a_new_generation_tells_of_a_copy() {
        let head = "change@/devices/platform/vmgenid\0ACTION=change\0SUBSYSTEM=platform\0";
        assert!(tells_of_a_copy(format!("{head}NEW_VMGENID=1\0SEQNUM=7\0").as_bytes()));
        assert!(!tells_of_a_copy(format!("{head}SEQNUM=7\0").as_bytes()));
        assert!(!tells_of_a_copy(b"") && !tells_of_a_copy(b"SYNTH_ARG_NEW_VMGENID=1\0"));
    }

    #[test]
    fn the_kernel_gives_such_a_socket() {
        listen(|| false, || {}).expect("a socket and a thread");
    }
}
