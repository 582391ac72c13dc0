//! What repeated measurements say: exact quantiles, since there are only some hundreds.

use std::time::Duration;

/// Nothing was measured, so nothing can be said.
#[derive(Debug, thiserror::Error)]
#[error("nothing was measured of {0}")]
pub struct NothingMeasured(String);

/// Spans of time that were measured, in their order of length; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Takes them in.
    ///
    /// # Errors
    /// [`NothingMeasured`] of `what`, if there are none.
    pub fn of(what: &str, spans: impl IntoIterator<Item = Duration>) -> Result<Self, NothingMeasured> {
        let mut spans: Vec<_> = spans.into_iter().collect();
        spans.sort_unstable();
        if spans.is_empty() { Err(NothingMeasured(what.to_owned())) } else { Ok(Self(spans)) }
    }

    /// The smallest measured span that a share `q` (0 to 1) of all do not exceed (nearest rank).
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = (q * self.0.len() as f64).ceil() as usize;
        self.0[rank.clamp(1, self.0.len()) - 1]
    }

    /// The median.
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// The longest.
    pub fn worst(&self) -> Duration {
        self.quantile(1.0)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(numbers: impl IntoIterator<Item = u64>) -> Spread {
        Spread::of("numbers", numbers.into_iter().map(Duration::from_millis)).expect("some")
    }

    #[test]
    fn quantiles_are_measured_values_by_nearest_rank() {
        let spread = ms((1..=200).rev());
        let quantile = |q| spread.quantile(q).as_millis();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(quantile), [1, 100, 198, 200]);
        assert_eq!((spread.median(), spread.worst()), (Duration::from_millis(100), Duration::from_millis(200)));
        assert_eq!(spread.count(), 200);
    }

    #[test]
    fn with_few_values_a_high_quantile_is_the_worst() {
        assert_eq!(ms([7]).quantile(0.99).as_millis(), 7);
        assert_eq!(ms([9, 3, 5]).quantile(0.99).as_millis(), 9);
        assert_eq!(ms([9, 3, 5]).median().as_millis(), 5);
    }

    #[test]
    fn of_nothing_nothing_is_said() {
        let error = Spread::of("the dark window", []).expect_err("none");
        assert!(error.to_string().contains("the dark window"));
    }
}
