//! The lease on three etcd members: planned hand-overs beside the floor, `etcdctl lock` and Patroni's switchover; each
//! kind of loss; and what an idle agent asks of the store.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::row::{Aim, Row, Unit, ms};
use super::site::Site;
use super::spread::Spread;
use super::{Found, Sizes, handover, lock, losses, patroni};
use crate::fleet::StoreKind;

const HOSTS: usize = 3;
/// Aims: the median beside so many floors and the service's answers; the slowest of a hundred, on one and on three members.
const FLOORS: f64 = 1.5;
const P99_ONE_MS: f64 = 50.0;
const P99_THREE_MS: f64 = 250.0;
/// Aim: so much of Patroni's gap.
const OF_PATRONI: f64 = 0.01;
/// Passing `etcdctl lock` on starts a process each time, so there are fewer of these.
const LOCKS: usize = 50;
/// Each takes a cluster of its own.
const SWITCHOVERS: usize = 3;

pub(super) fn measure(sizes: &Sizes) -> Result<Found> {
    let (etcd, name) = real_etcd()?;
    let heading = format!("lease: {} planned hand-overs on one and on three members of {name}", sizes.handovers);
    let mut rows =
        planned_rows(&Site::start(HOSTS, StoreKind::Etcd(etcd.clone()))?, sizes, "one member", P99_ONE_MS)?.1;
    let site = Site::start(HOSTS, StoreKind::Cluster(etcd))?;
    let (median, three) = planned_rows(&site, sizes, "three members", P99_THREE_MS)?;
    rows.extend(three);
    let dark = || Row::new("planned: dark p50, three members", median, Unit::Ms);
    progress("`etcdctl lock`");
    match lock::passes(&site, sizes.handovers.min(LOCKS))? {
        Some(passes) => {
            let lock = Spread::of("passes of the lock", passes)?;
            rows.push(dark().beside_span("`etcdctl lock`, passed on, p50", lock.median()).aim(Aim::Ratio(1.0)));
        }
        None => eprintln!("bench: not beside `etcdctl lock`, because there is no etcdctl in PATH"),
    }
    progress("Patroni's switchover");
    match patroni::gaps(&site, sizes.losses.min(SWITCHOVERS))? {
        Some(gaps) => {
            let gap = Spread::of("Patroni's switchovers", gaps)?;
            let what = format!("Patroni: no write accepted in a switchover, median of {}", gap.count());
            rows.push(dark().beside_span(what, gap.median()).aim(Aim::Ratio(OF_PATRONI)));
        }
        None => eprintln!("bench: not beside Patroni, which is not installed (apt-get install patroni postgresql)"),
    }
    rows.extend(losses::rows(site, sizes)?);
    Ok(Found { heading, rows })
}

/// Only what `measure` does last.
pub(super) fn losses(sizes: &Sizes) -> Result<Found> {
    let (etcd, name) = real_etcd()?;
    let rows = losses::rows(Site::start(HOSTS, StoreKind::Cluster(etcd))?, sizes)?;
    Ok(Found { heading: format!("losses: on three members of {name}"), rows })
}

fn real_etcd() -> Result<(PathBuf, &'static str)> {
    etcd().context("the lease is measured on real etcd: set HANDOVER_TEST_ETCD (tests/run --tools installs one)")
}

/// Minutes go by; who waits should see for what.
pub(super) fn progress(what: &str) {
    eprintln!("bench: measuring {what}");
}

/// The etcd to measure on: 3.5 if there is one, since 3.4 has known lease defects.
fn etcd() -> Option<(PathBuf, &'static str)> {
    let named = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    named("HANDOVER_TEST_ETCD35")
        .map(|program| (program, "etcd 3.5"))
        .or_else(|| named("HANDOVER_TEST_ETCD").map(|program| (program, "etcd")))
}

fn planned_rows(site: &Site, sizes: &Sizes, name: &str, p99_ms: f64) -> Result<(f64, Vec<Row>)> {
    progress(&format!("planned hand-overs, {name}"));
    let planned = handover::planned(site, sizes.handovers)?;
    let (floor, answers) = (planned.floor.median(), planned.answers.median());
    let allowed = floor.mul_f64(FLOORS) + answers;
    let dark = planned.dark.median();
    let rows = vec![
        Row::span(format!("planned: dark p50, {name}"), dark)
            .beside_span(format!("{FLOORS} × the floor + the service's answers, p50"), allowed)
            .aim(Aim::Ratio(1.0)),
        Row::span(format!("planned: dark p99, {name}"), planned.dark.quantile(0.99)).aim(Aim::AtMost(p99_ms)),
        Row::span(format!("planned: the floor p50, a transaction and its watch event, {name}"), floor),
        Row::span(format!("planned: the service's answers p50, {name}"), answers),
    ];
    Ok((ms(dark), rows))
}
