//! Free ports on loopback.

use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Mutex, PoisonError};

/// Below the range from which Linux takes the ports of outgoing connections (32768 on): a slot's port is named long before
/// its instance starts, and the load's own connections would take it meanwhile.
const RANGE: std::ops::Range<u16> = 10_000..32_000;
/// Tries per port; more than this many are never taken.
const TRIES: usize = 1000;

/// Ports that this process has named, each with a socket whose name nobody else can take until this process ends: they are
/// bound only later, and two tests at a time would now and then name the same one. Such names belong to the network
/// namespace, as ports do.
static NAMED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());

/// So many different ports that were free a moment ago, and that no other test names while this process lives.
///
/// # Errors
/// If the range is full.
#[allow(unreachable_pub, reason = "tests of other crates include this file")]
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut ports = Vec::new();
    for _ in 0..TRIES * count.max(1) {
        if ports.len() == count {
            return Ok(ports);
        }
        let port = rand::random_range(RANGE);
        let name = SocketAddr::from_abstract_name(format!("handover-test-port-{port}"))?;
        let Ok(named) = UnixListener::bind_addr(&name) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            NAMED.lock().unwrap_or_else(PoisonError::into_inner).push(named);
            ports.push(port);
        }
    }
    Err(io::Error::other(format!("no {count} free ports on loopback in {RANGE:?}")))
}
