//! Free ports on loopback.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;

/// Below the range from which Linux takes the ports of outgoing connections (32768 on): a slot's port is named long before
/// its instance starts, and the load's own connections would take it meanwhile.
const RANGE: std::ops::Range<u16> = 10_000..32_000;
/// Tries per port; more than this many are never taken.
const TRIES: usize = 1000;

/// So many different ports that were free a moment ago. They are bound all at once, so that none is named twice.
///
/// # Errors
/// If the range is full.
#[allow(unreachable_pub, reason = "tests of other crates include this file")]
pub fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let mut bound = BTreeMap::new();
    for _ in 0..TRIES * count.max(1) {
        if bound.len() == count {
            return Ok(bound.into_keys().collect());
        }
        let port = rand::random_range(RANGE);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            bound.insert(port, listener);
        }
    }
    Err(io::Error::other(format!("no {count} free ports on loopback in {RANGE:?}")))
}
