//! A histogram that was counted elsewhere, as a metric: prometheus-client's own can only observe.

use std::sync::{Arc, Mutex, PoisonError};

use handover_proto::wire::Traffic;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Counts by upper bound, and the sum of what was counted.
#[derive(Debug, Default, Clone)]
pub(super) struct Latency(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    sum_seconds: f64,
    /// Upper bound in seconds, the last one open; counts are not cumulative.
    buckets: Vec<(f64, u64)>,
}

impl Latency {
    /// As the gate counted it.
    pub(super) fn set(&self, traffic: &Traffic) {
        let bounds = traffic.bounds_us.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        let buckets = bounds.zip(traffic.latency.iter().copied()).collect();
        let counted = Counted { sum_seconds: traffic.latency_sum_us as f64 / 1e6, buckets };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Latency {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counted.buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(counted.sum_seconds, count, &counted.buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
