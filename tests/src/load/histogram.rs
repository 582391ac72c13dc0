//! Latencies in buckets that are 1/32 of their value wide: a quantile is right to about 3 %, at any number of requests.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::span::ms;

/// Buckets per doubling.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.ilog2();

/// Counts of microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// Values below 32 have a bucket each; above, the leading bit and the five after it name the bucket.
fn bucket(micros: u64) -> usize {
    let index = if micros < STEPS {
        micros
    } else {
        let doubling = u64::from(micros.ilog2() - STEP_BITS);
        (doubling + 1) * STEPS + ((micros >> doubling) - STEPS)
    };
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The highest value of a bucket.
fn highest(bucket: usize) -> u64 {
    let index = bucket as u64;
    if index < STEPS {
        return index;
    }
    let (doubling, step) = (index / STEPS - 1, index % STEPS);
    ((STEPS + step + 1) << doubling) - 1
}

impl Histogram {
    /// Counts one latency.
    pub fn add(&mut self, latency: Duration) {
        // Nobody waits for 2^47 µs (four years); the cap keeps the table small.
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(1 << 47);
        let bucket = bucket(micros);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
    }

    /// The latency that a share `q` (0 to 1) of all did not exceed, rounded up to its bucket; zero if there is none.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = ((q * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_micros(highest(bucket));
            }
        }
        Duration::ZERO
    }
}

/// As JSON only the quantiles that people ask for.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        let quantiles = [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)];
        output.collect_map(quantiles.map(|(name, q)| (name, ms(self.quantile(q)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_buckets_are_narrow() {
        for micros in (0..5000).chain([123_456, 7_654_321, 1 << 40, (1 << 47) - 1]) {
            let top = highest(bucket(micros));
            assert!(micros <= top && (top - micros) * STEPS <= micros, "{micros} in a bucket up to {top}");
            assert_eq!(bucket(top + 1), bucket(micros) + 1, "buckets have no holes at {micros}");
        }
    }

    #[test]
    fn quantiles_are_right_to_a_bucket() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        for ms in 1..=100 {
            histogram.add(Duration::from_millis(ms));
        }
        for (q, ms) in [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)] {
            let (found, exact) = (histogram.quantile(q), Duration::from_millis(ms));
            assert!(found >= exact && found <= exact + exact / 16, "{q}: {found:?} for {exact:?}");
        }
    }

    #[test]
    fn merged_is_as_if_counted_together() {
        let (mut a, mut b, mut both) = (Histogram::default(), Histogram::default(), Histogram::default());
        for ms in 1..200 {
            let latency = Duration::from_millis(ms);
            if ms % 3 == 0 {
                a.add(latency)
            } else {
                b.add(latency)
            }
            both.add(latency);
        }
        a.merge(&b);
        assert_eq!(a, both);
    }
}
