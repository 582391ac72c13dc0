//! How many connections each client address has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections by address. An IPv6 client has a whole /64 to itself, so that counts as one.
#[derive(Debug)]
pub(super) struct Peers {
    counts: Mutex<HashMap<IpAddr, usize>>,
    limit: usize,
}

/// One connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), limit })
    }

    /// A place for one more connection; none if the address has as many as one may have.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = counted(address);
        let mut counts = self.lock();
        let count = counts.entry(address).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place { of: Arc::clone(self), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.of.lock();
        if let Some(count) = counts.get_mut(&self.address) {
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
    fn an_ipv6_network_is_one_client() {
        let peers = Peers::new(1);
        let _place = peers.enter("2001:db8::1".parse().expect("an address")).expect("a place");
        assert!(peers.enter("2001:db8::ffff:2".parse().expect("an address")).is_none());
        assert!(peers.enter("2001:db8:0:1::1".parse().expect("an address")).is_some());
    }
}
