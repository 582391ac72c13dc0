//! What request number n is: computed, not drawn, so that a check afterwards can compute it again.

use std::time::Duration;

use serde::Serialize;

/// Accounts that requests are about; enough that writers rarely meet on one balance.
const ACCOUNTS: u64 = 1000;
/// Clients that requests come from.
const CLIENTS: u64 = 64;

/// The mixture of requests. What is neither write nor slow is a read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    /// Part of writes, 0 to 1.
    pub write_share: f64,
    /// Part of slow reads, 0 to 1.
    pub slow_share: f64,
    /// How long a slow read's body takes.
    pub slow: Duration,
}

/// What kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `GET /balance/{account}`.
    Read,
    /// `POST /charges`.
    Write,
    /// `GET /slow?ms=N`.
    Slow,
}

impl Mix {
    /// The kind of request `n`. Spread evenly: of any k in a row, a share s of writes has s·k, give or take one.
    pub fn kind(&self, n: u64) -> Kind {
        if crosses(n, self.write_share) {
            Kind::Write
        } else if crosses(n, self.write_share + self.slow_share) {
            Kind::Slow
        } else {
            Kind::Read
        }
    }
}

/// True for a share of all n, evenly spread: the golden ratio's multiples fill 0..1 without clusters (a Weyl sequence).
/// What is true for a share is true for a larger one. Precise enough for 2^40 requests.
fn crosses(n: u64, share: f64) -> bool {
    (n as f64 * 0.618_033_988_749_894_9).fract() < share
}

/// A number without order for each n (the finaliser of SplitMix64), so that clients, accounts and kinds are unrelated.
fn scramble(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Which of `gates` request `n`'s client is at.
pub fn gate(n: u64, gates: usize) -> usize {
    let client = scramble(n) % CLIENTS;
    usize::try_from(client).unwrap_or(0) % gates.max(1)
}

/// The account of request `n`.
pub fn account(n: u64) -> String {
    format!("acct-{}", (scramble(n) >> 32) % ACCOUNTS)
}

/// What write `n` charges, in cents.
pub fn cents(n: u64) -> i64 {
    i64::try_from(n % 997).unwrap_or(0) + 1
}

/// The idempotency key of write `n` in this run.
pub fn key(run: &str, n: u64) -> String {
    format!("{run}-{n}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(write_share: f64, slow_share: f64) -> Mix {
        Mix { write_share, slow_share, slow: Duration::from_millis(1) }
    }

    #[test]
    fn the_mixture_holds_its_shares_in_every_thousand() {
        let mix = mix(0.2, 0.05);
        for start in [0, 777, 1_000_000] {
            let count = |kind| (start..start + 1000).filter(|n| mix.kind(*n) == kind).count();
            assert!(count(Kind::Write).abs_diff(200) <= 3, "{}", count(Kind::Write));
            assert!(count(Kind::Slow).abs_diff(50) <= 3, "{}", count(Kind::Slow));
        }
        assert_eq!((mix.kind(3), mix.kind(3)), (mix.kind(3), mix.kind(3)), "computed, not drawn");
    }

    #[test]
    fn a_share_of_one_or_none_is_exact() {
        assert!((0..5000).all(|n| mix(1.0, 0.0).kind(n) == Kind::Write));
        assert!((0..5000).all(|n| mix(0.0, 0.0).kind(n) == Kind::Read));
    }

    #[test]
    fn every_gate_gets_its_part_of_reads_and_of_writes() {
        let mix = mix(0.5, 0.0);
        for wanted in 0..3 {
            for kind in [Kind::Read, Kind::Write] {
                let count = (0..6000).filter(|n| gate(*n, 3) == wanted && mix.kind(*n) == kind).count();
                assert!((850..1150).contains(&count), "gate {wanted} got {count} of {kind:?}");
            }
        }
    }
}
