//! The world as Prometheus metrics (OpenMetrics text).

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;

use handover_proto::ids::Service;
use handover_proto::stored::StoredError;

use crate::core::turns;
use crate::world::World;

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Gauge<i64>>;
type Seconds = Family<Labels, Gauge<f64, AtomicU64>>;

#[derive(Default)]
struct Metrics {
    dark: Seconds,
    last_dark: Seconds,
    turn: Counts,
    held: Counts,
    frozen: Counts,
    orders: Counts,
    drained: Counts,
    leader: Counts,
    term: Counts,
    cut_off: Seconds,
    raft_term: Counts,
    alarms: Counts,
}

/// The page; `term` is ours if we lead, `now_ms` the wall clock in Unix milliseconds.
///
/// # Errors
/// Those of the formatter.
pub(crate) fn render(world: &World, term: Option<i64>, now_ms: u64) -> Result<Option<String>, std::fmt::Error> {
    let metrics = Metrics::default();
    metrics.fill_coordinator(world, term, now_ms);
    for service in world.services() {
        if let Err(error) = metrics.fill_service(world, &service, now_ms) {
            tracing::warn!(%error, %service, "left out of the metrics");
        }
    }
    let mut registry = Registry::with_prefix("handover");
    metrics.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(Some(text))
}

impl Metrics {
    fn register(&self, to: &mut Registry) {
        let seconds = [
            (
                "lease_dark_seconds",
                "For how long nobody has worked under the scheduler lease; 0: somebody does",
                &self.dark,
            ),
            ("lease_last_dark_seconds", "From stop to work at the last change of holder", &self.last_dark),
            ("store_cut_off_seconds", "For how long the store has not been followed; 0: it is", &self.cut_off),
        ];
        for (name, help, family) in seconds {
            to.register(name, help, family.clone());
        }
        let counts = [
            ("lease_turn", "The present turn of the scheduler lease: grows by one with each change", &self.turn),
            ("lease_held", "Whether the store believes in a holder", &self.held),
            ("lease_frozen", "Whether take-over is frozen", &self.frozen),
            ("orders_open", "Standing orders that are not over", &self.orders),
            ("hosts_drained", "Hosts that an order keeps out", &self.drained),
            ("leader", "Whether this coordinator leads", &self.leader),
            ("term", "This coordinator's term while it leads", &self.term),
            ("store_raft_term", "Raft term of a store member: grows with each election", &self.raft_term),
            ("store_alarms", "Alarms of a store member", &self.alarms),
        ];
        for (name, help, family) in counts {
            to.register(name, help, family.clone());
        }
    }

    fn fill_coordinator(&self, world: &World, term: Option<i64>, now_ms: u64) {
        let none = Vec::new;
        self.leader.get_or_create(&none()).set(i64::from(term.is_some()));
        self.term.get_or_create(&none()).set(term.unwrap_or(0));
        let cut_off = world.cut_off.as_ref().map_or(0, |(_, since)| now_ms.saturating_sub(*since));
        self.cut_off.get_or_create(&none()).set(seconds(cut_off));
        for member in &world.members {
            let Ok(said) = &member.answer else { continue };
            let labels = vec![("member", member.endpoint.clone())];
            self.raft_term.get_or_create(&labels).set(i64::try_from(said.raft_term).unwrap_or(i64::MAX));
            self.alarms.get_or_create(&labels).set(i64::try_from(said.alarms.len()).unwrap_or(i64::MAX));
        }
    }

    fn fill_service(&self, world: &World, service: &Service, now_ms: u64) -> Result<(), StoredError> {
        let labels: Labels = vec![("service", service.to_string())];
        let lease = world.lease(service)?;
        let records = world.turns(service)?;
        let since = turns::dark(&lease, records.last(), world.beat_gone(service)).map(|(since, _)| since);
        let dark = since.map_or(0, |since| now_ms.saturating_sub(since));
        self.dark.get_or_create(&labels).set(seconds(dark));
        let pairs = records.windows(2).rev().find_map(|pair| pair[1].dark_ms(Some(&pair[0])));
        if let Some(last) = pairs {
            self.last_dark.get_or_create(&labels).set(seconds(last));
        }
        let turn = lease.holder.as_ref().map_or(0, |seen| seen.value.turn);
        self.turn.get_or_create(&labels).set(i64::try_from(turn).unwrap_or(i64::MAX));
        let held = lease.holder.as_ref().is_some_and(|seen| seen.value.held().is_some()) && lease.beat.is_some();
        self.held.get_or_create(&labels).set(i64::from(held));
        self.frozen.get_or_create(&labels).set(i64::from(lease.frozen));
        let orders = world.orders(service);
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.orders.get_or_create(&labels).set(count(
            orders.iter().filter(|order| !order.is_over()).count() + world.unreadable_orders(service).len(),
        ));
        self.drained.get_or_create(&labels).set(count(orders.iter().filter(|order| order.drains().is_some()).count()));
        Ok(())
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
