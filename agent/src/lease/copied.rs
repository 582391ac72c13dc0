//! Hears from the kernel that this virtual machine was copied or restored from a snapshot: the uevent `NEW_VMGENID=1`
//! (Linux 6.10 and later, on hypervisors with a VM generation id). Elsewhere nothing is heard.
//!
//! Every other device speaks on the same socket. What arrives faster than it is read is lost, and may have been the one:
//! where there is a generation id, that is taken for a copy, the safe side. Where there is none, nothing of it can have
//! been lost, and a burst of other devices' events must not end this host's part in the lease.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, ReceiveTimeout};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket,
};
use nix::sys::time::TimeVal;

/// The kernel's own messages; udev's come in another group.
const KERNEL: u32 = 1;
/// A uevent is at most 2 KiB.
const MESSAGE_BYTES: usize = 8 << 10;
/// Room for thousands of them. The kernel gives what `net.core.rmem_max` allows; usually that is double the default.
const BUFFER_BYTES: usize = 4 << 20;
/// Where the kernel shows its drivers.
const BUSES: &str = "/sys/bus";
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
            match hear(&events, &mut buffer) {
                Ok(Heard::Copy) => found(),
                Ok(Heard::Lost) if may_tell(Path::new(BUSES)) => {
                    tracing::warn!(
                        "more kernel events than could be read in time: one may have said that this virtual machine was \
                         copied, so it counts as copied"
                    );
                    found();
                }
                Ok(Heard::Lost | Heard::Nothing) => {}
                Err(error) => return tracing::warn!(%error, "a copy of this virtual machine will not be noticed"),
            }
        }
    };
    std::thread::Builder::new().name("vm-copied".to_owned()).spawn(work).map(drop)
}

/// What one look at the socket brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// This virtual machine was copied.
    Copy,
    /// More was sent than there was room for.
    Lost,
    /// Something else, or nothing for a while.
    Nothing,
}

/// Waits for the next message, or until it is time to look up.
fn hear(events: &OwnedFd, buffer: &mut [u8]) -> nix::Result<Heard> {
    match recvfrom::<NetlinkAddr>(events.as_raw_fd(), buffer) {
        // Only the kernel has no port.
        Ok((length, Some(from))) if from.pid() == 0 && tells_of_a_copy(&buffer[..length]) => Ok(Heard::Copy),
        Err(Errno::ENOBUFS) => Ok(Heard::Lost),
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(Heard::Nothing),
        Err(error) => Err(error),
    }
}

/// Whether this host has a VM generation id: its driver is bound to a device, on the one bus or, before Linux 6.10, the
/// other. A host that does not show its drivers may have one.
fn may_tell(buses: &Path) -> bool {
    let bound = |bus: &str| {
        let entries = std::fs::read_dir(buses.join(bus).join("drivers/vmgenid")).into_iter().flatten().flatten();
        let mut devices = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        // The driver's own module is linked there, too.
        devices.any(|entry| entry.file_name() != "module")
    };
    !buses.is_dir() || ["platform", "acpi"].into_iter().any(bound)
}

fn open() -> nix::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkKObjectUEvent;
    let events = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    setsockopt(&events, ReceiveTimeout, &TimeVal::new(LOOK_UP_S, 0))?;
    setsockopt(&events, RcvBuf, &BUFFER_BYTES)?;
    bind(events.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
    Ok(events)
}

/// `change@/devices/…`, then variables, each ended by a zero byte.
fn tells_of_a_copy(message: &[u8]) -> bool {
    message.split(|byte| *byte == 0).any(|variable| variable == b"NEW_VMGENID=1")
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{MsgFlags, sendto};

    use super::*;

    #[test]
    fn only_the_kernels_word_of_a_new_generation_tells_of_a_copy() {
        let head = "change@/devices/platform/vmgenid\0ACTION=change\0SUBSYSTEM=platform\0";
        assert!(tells_of_a_copy(format!("{head}NEW_VMGENID=1\0SEQNUM=7\0").as_bytes()));
        assert!(!tells_of_a_copy(format!("{head}SEQNUM=7\0").as_bytes()));
        assert!(!tells_of_a_copy(b"") && !tells_of_a_copy(b"SYNTH_ARG_NEW_VMGENID=1\0"));
    }

    /// A real burst: somebody with the right to fills the socket's room, as devices do.
    #[test]
    fn a_burst_of_other_events_is_heard_as_a_loss_and_never_as_a_copy() {
        let events = open().expect("a socket");
        // The least that the kernel gives: three messages or so, so that nobody else's socket overflows with ours.
        setsockopt(&events, RcvBuf, &1).expect("a small buffer");
        setsockopt(&events, ReceiveTimeout, &TimeVal::new(0, 1000)).expect("a short limit");
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let device = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol).expect("one");
        let all = NetlinkAddr::new(0, KERNEL);
        for _ in 0..16 {
            match sendto(device.as_raw_fd(), b"add@/devices/x\0NEW_VMGENID=1\0", &all, MsgFlags::empty()) {
                Err(Errno::EPERM) => return eprintln!("SKIPPED: only root may send kernel events"),
                // Who has no room for it is told so; we are not.
                sent => drop(sent.expect("sent")),
            }
        }
        let mut buffer = vec![0; MESSAGE_BYTES];
        let heard: Vec<_> = (0..17).map(|_| hear(&events, &mut buffer).expect("read")).collect();
        assert!(heard.contains(&Heard::Lost), "nothing was lost, so nothing is proved: {heard:?}");
        assert!(!heard.contains(&Heard::Copy), "another process's word counts for nothing: {heard:?}");
    }

    #[test]
    fn a_loss_counts_only_where_there_is_a_generation_id() {
        let dir = tempfile::tempdir().expect("dir");
        let buses = dir.path().join("bus");
        assert!(may_tell(&buses), "nothing is known of its drivers");
        let driver = buses.join("platform/drivers/vmgenid");
        std::fs::create_dir_all(&driver).expect("a driver");
        std::fs::write(driver.join("bind"), "").expect("a file of its own");
        std::os::unix::fs::symlink("../../module", driver.join("module")).expect("its module");
        assert!(!may_tell(&buses), "a driver without a device");
        std::os::unix::fs::symlink("../../devices/VMGENCTR:00", driver.join("VMGENCTR:00")).expect("a device");
        assert!(may_tell(&buses));
    }

    #[test]
    fn the_kernel_gives_such_a_socket() {
        listen(|| false, || {}).expect("a socket and a thread");
    }
}
