//! Each bench, with tiny counts: it runs, measures every row, and what must not happen does not happen.

#![allow(clippy::expect_used, clippy::panic)]

use handover_tests::bench::{Name, Sizes, measure, row::Row, row::Unit};
use handover_tests::booted::Booted;

fn rows(name: Name) -> Vec<Row> {
    let rows = measure(name, &Sizes::tiny()).expect("a measurement").rows;
    for row in rows.iter().filter(|row| row.unit != Unit::Count) {
        assert!(row.value.is_finite() && row.value >= 0.0, "{row:?}");
        // CPU times of a process that only waits may be nothing, and so may a difference of two tiny measurements.
        // A store that is back before anybody's deadline costs nothing at all.
        let small = [": added ", "memory of ", " frozen for "];
        let may_be_nothing = row.unit == Unit::Percent || small.iter().any(|part| row.name.contains(part));
        let beside = row.beside.as_ref().filter(|_| !may_be_nothing);
        assert!(beside.is_none_or(|(_, value)| *value > 0.0), "{row:?}");
        assert_eq!(row.met().is_some(), row.aim.is_some(), "{row:?}");
    }
    rows
}

fn value(rows: &[Row], name: &str) -> f64 {
    rows.iter().find(|row| row.name.contains(name)).unwrap_or_else(|| panic!("no row {name}: {rows:?}")).value
}

#[test]
fn the_handover_bench_measures_dark_windows_beside_their_floor() {
    let rows = rows(Name::Handover);
    let dark = value(&rows, "dark window p50, embedded store");
    assert!(dark > 0.0 && value(&rows, "dark window p99, embedded store") >= dark, "{rows:?}");
    let etcd = rows.iter().any(|row| row.name.contains("etcd"));
    assert_eq!(etcd, std::env::var_os("HANDOVER_TEST_ETCD").is_some(), "on etcd too where there is one");
}

#[test]
fn the_shift_bench_moves_all_traffic_and_loses_no_request() {
    let rows = rows(Name::Shift);
    assert_eq!(value(&rows, "failed requests"), 0.0);
    assert!(value(&rows, "sent → shifted, p99") > 0.0, "{rows:?}");
}

#[test]
fn the_rollback_bench_gets_traffic_and_lease_back_and_loses_no_request() {
    let rows = rows(Name::Rollback);
    assert_eq!(value(&rows, "failed requests"), 0.0);
    assert!(value(&rows, "works under the lease, worst") > 0.0, "{rows:?}");
}

#[test]
fn the_agent_bench_reads_memory_and_cpu_of_both_processes() {
    let rows = rows(Name::Agent);
    for name in ["agent: resident", "gate: resident"] {
        assert!(value(&rows, name) > 0.5, "{rows:?}");
    }
    let waits = |row: &&Row| row.name.contains("only waits");
    let busiest = rows.iter().filter(|row| row.unit == Unit::Percent && !waits(row)).map(|row| row.value);
    assert!(busiest.fold(0.0, f64::max) > 0.0, "an agent that renews a lease works: {rows:?}");
}

#[test]
fn the_gate_bench_measures_each_scenario_through_each_proxy() {
    let rows = rows(Name::Gate);
    for scenario in ["small bodies", "1 MiB bodies", "a connection each", "HTTP/2", "TLS"] {
        assert!(value(&rows, &format!("{scenario}: CPU per request")) > 1.0, "{rows:?}");
    }
    assert_eq!(value(&rows, "switch, gate: requests lost"), 0.0);
}

#[test]
fn the_losses_bench_sees_a_lost_host_missed_until_its_lease_has_expired() {
    let rows = rows(Name::Losses);
    // Ten seconds of lease, the last renewal of which was a second and a half old at most.
    let dark = value(&rows, "host is lost: dark");
    assert!(dark > 8_000.0, "nobody can have followed so soon: {rows:?}");
    assert_eq!(value(&rows, "two at once"), 0.0);
}

#[test]
fn the_hosts_bench_restarts_and_upgrades_on_booted_hosts_and_loses_no_request() {
    if !Booted::can_or_skip() {
        return;
    }
    let rows = rows(Name::Hosts);
    for what in ["restarts", "stop-first", "start-first"] {
        assert_eq!(value(&rows, &format!("{what}: failed requests")), 0.0);
    }
    let starts = ["own start in these", "own start, by `systemctl start` alone"].map(|name| value(&rows, name));
    // Only the fleet's units are made slow, by a tenth of a second.
    assert!(starts[0] > 0.0 && starts[1] > 100.0, "{rows:?}");
    let inherent = |way: &str| {
        let total = rows.iter().find(|row| row.name.contains(&format!("{way}, 2 hosts: total"))).expect("a total");
        (total.value, total.beside.as_ref().expect("what is inherent").1)
    };
    for way in ["stop-first", "start-first"] {
        let (total, inherent) = inherent(way);
        assert!(
            total > inherent && inherent > 2.0 * starts[1],
            "nothing is quicker than what it consists of: {rows:?}"
        );
    }
}
