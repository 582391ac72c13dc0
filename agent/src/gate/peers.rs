//! How much of the gate each client address has: connections, requests in hand, and places to wait.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections by address. An IPv6 client has a whole /64 to itself, so that counts as one.
#[derive(Debug)]
pub(super) struct Peers {
    counts: Mutex<HashMap<IpAddr, (usize, Arc<Share>)>>,
    limit: usize,
}

/// What the requests of one address have of the gate, over all its connections.
#[derive(Debug, Default)]
pub(super) struct Share {
    running: AtomicU64,
    waiting: AtomicU64,
}

impl Share {
    /// One more request is in hand.
    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// One of them has ended.
    pub(super) fn end(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether no more are in hand than may be.
    pub(super) fn is_within(&self, limit: u64) -> bool {
        self.running.load(Ordering::Relaxed) <= limit
    }

    /// A place to wait; none if as many wait as may.
    pub(super) fn wait(self: &Arc<Self>, limit: u64) -> Option<Waiting> {
        let waiting = Waiting(Arc::clone(self));
        (self.waiting.fetch_add(1, Ordering::Relaxed) < limit).then_some(waiting)
    }
}

/// One waiting request's place in its address's share; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Waiting(Arc<Share>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Peers>,
    address: IpAddr,
    /// What its address has beside connections.
    pub(super) share: Arc<Share>,
}

impl Peers {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), limit })
    }

    /// A place for one more connection; none if the address has as many as one may have.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = counted(address);
        let mut counts = self.lock();
        let (count, share) = counts.entry(address).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        let share = Arc::clone(share);
        drop(counts);
        Some(Place { of: Arc::clone(self), address, share })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, (usize, Arc<Share>)>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of.lock();
        if let Some((count, _)) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_places_and_a_place_given_up_can_be_taken() {
        let peers = Peers::new(2);
        let enter = |address: &str| peers.enter(address.parse().expect("an address"));
        let first = (enter("192.0.2.1"), enter("::ffff:192.0.2.1"));
        assert!(first.0.is_some() && first.1.is_some());
        assert!(enter("192.0.2.1").is_none(), "the same address, however it is written");
        let _other = enter("192.0.2.2").expect("another address");
        drop(first);
        let _again = enter("192.0.2.1").expect("a place");
        assert_eq!(peers.lock().len(), 2, "an address without connections is forgotten");
    }

    #[test]
    fn the_connections_of_an_address_share_its_requests_and_its_places_to_wait() {
        let peers = Peers::new(9);
        let enter = |address: &str| peers.enter(address.parse().expect("an address")).expect("a place");
        let (first, second, other) = (enter("192.0.2.1"), enter("192.0.2.1"), enter("192.0.2.2"));
        first.share.begin();
        assert!(second.share.is_within(1));
        second.share.begin();
        assert!(!first.share.is_within(1) && other.share.is_within(1));
        first.share.end();
        assert!(second.share.is_within(1));
        let waits = first.share.wait(1).expect("a place");
        assert!(second.share.wait(1).is_none() && other.share.wait(1).is_some());
        drop(waits);
        assert!(second.share.wait(1).is_some(), "one that was refused takes no place");
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let peers = Peers::new(1);
        let _place = peers.enter("2001:db8::1".parse().expect("an address")).expect("a place");
        assert!(peers.enter("2001:db8::ffff:2".parse().expect("an address")).is_none());
        assert!(peers.enter("2001:db8:0:1::1".parse().expect("an address")).is_some());
    }
}
