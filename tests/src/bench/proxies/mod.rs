//! The gate beside the proxies that people trust: HAProxy and nginx, and no proxy at all, in front of the same backend, on
//! the same two cores, in rounds whose order turns round, all in one run.
//!
//! CPU per request is the figure that holds when a machine's speed drifts, so it carries the aims; requests per second and
//! latencies stand beside it.

mod configs;
mod idle;
mod load;
mod peers;
mod routes;
mod switch;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::row::{Aim, Row, Unit};
use super::spread::Spread;
use super::{Found, Sizes};
use load::{Got, Scenario};
use peers::{Peer, Site};

/// One scenario through one peer: medians over the rounds.
#[derive(Debug, Clone, Copy)]
struct Median {
    /// CPU per request, all processes of the peer.
    cpu: Duration,
    per_second: f64,
    p50: Duration,
    p99: Duration,
}

/// Connections that are opened and left idle.
const IDLE: usize = 1000;

pub(super) fn measure(sizes: &Sizes) -> Result<Found> {
    let mut site = Site::start()?;
    // First: a proxy that has been under load has the memory of a thousand connections already.
    let mut rows = memory(&site)?;
    for scenario in Scenario::ALL {
        let medians = through_each(&site, scenario, sizes)?;
        rows.extend(of_scenario(scenario, &medians)?);
    }
    rows.extend(switch::measure(&mut site, sizes.switches)?);
    let heading = format!(
        "gate: beside HAProxy and nginx, same backend, {} rounds of {:.0} s each way, medians; {} switches",
        sizes.rounds,
        sizes.round.as_secs_f64(),
        sizes.switches,
    );
    Ok(Found { heading, rows })
}

fn through_each(site: &Site, scenario: Scenario, sizes: &Sizes) -> Result<BTreeMap<Peer, Median>> {
    let mut all: BTreeMap<Peer, Vec<(Got, Duration)>> = BTreeMap::new();
    for round in 0..sizes.rounds {
        let mut order = Peer::ALL;
        if round % 2 == 1 {
            order.reverse();
        }
        for peer in order {
            let before = site.cpu(peer, scenario.variant())?;
            let got = scenario.run(&site.url(peer, scenario)?, sizes.round)?;
            let spent = site.cpu(peer, scenario.variant())?.saturating_sub(before);
            anyhow::ensure!(
                got.failed == 0,
                "{} through {}: {} requests failed",
                scenario.name(),
                peer.name(),
                got.failed
            );
            all.entry(peer).or_default().push((got, spent));
        }
    }
    all.into_iter().map(|(peer, rounds)| Ok((peer, median(peer, &rounds)?))).collect()
}

fn median(peer: Peer, rounds: &[(Got, Duration)]) -> Result<Median> {
    let of =
        |what: fn(&(Got, Duration)) -> Duration| Spread::of(peer.name(), rounds.iter().map(what)).map(|s| s.median());
    let mut speeds: Vec<f64> = rounds.iter().map(|(got, _)| got.per_second).collect();
    speeds.sort_by(f64::total_cmp);
    Ok(Median {
        cpu: of(|(got, spent)| spent.div_f64(got.requests.max(1) as f64))?,
        per_second: speeds[speeds.len() / 2],
        p50: of(|(got, _)| got.p50)?,
        p99: of(|(got, _)| got.p99)?,
    })
}

fn of_scenario(scenario: Scenario, medians: &BTreeMap<Peer, Median>) -> Result<Vec<Row>> {
    let of = |peer| medians.get(&peer).copied().ok_or_else(|| anyhow::anyhow!("nothing measured"));
    let (direct, gate) = (of(Peer::Direct)?, of(Peer::Gate)?);
    let (haproxy, nginx) = (of(Peer::Haproxy)?, of(Peer::Nginx)?);
    let name = scenario.name();
    let cpu =
        Row::new(format!("{name}: CPU per request"), micros(gate.cpu), Unit::Us).beside("HAProxy", micros(haproxy.cpu));
    let mut rows = vec![
        match scenario.cpu_aim() {
            Some(aim) => cpu.aim(Aim::Ratio(aim)),
            None => cpu,
        },
        Row::new(format!("{name}: CPU per request"), micros(gate.cpu), Unit::Us).beside("nginx", micros(nginx.cpu)),
        Row::new(format!("{name}: requests per second"), gate.per_second, Unit::Count)
            .beside("HAProxy", haproxy.per_second),
        Row::new(format!("{name}: requests per second"), gate.per_second, Unit::Count)
            .beside("nginx", nginx.per_second),
        Row::new(format!("{name}: requests per second"), gate.per_second, Unit::Count)
            .beside("no proxy", direct.per_second),
    ];
    if scenario == Scenario::Unhurried {
        let added = |median: Median, at: fn(&Median) -> Duration| at(&median).saturating_sub(at(&direct));
        for (what, at) in [("p50", (|m| m.p50) as fn(&Median) -> Duration), ("p99", |m| m.p99)] {
            let row = |peer, median| {
                let row = Row::span(format!("{name}: added {what}"), added(gate, at));
                row.beside_span(peer, added(median, at))
            };
            rows.push(row("HAProxy", haproxy));
            let beside_nginx = row("nginx", nginx);
            rows.push(if what == "p99" { beside_nginx.aim(Aim::Ratio(1.0)) } else { beside_nginx });
        }
    }
    Ok(rows)
}

fn memory(site: &Site) -> Result<Vec<Row>> {
    let of = |peer| -> Result<f64> { idle::memory(site, peer, IDLE) };
    let (gate, haproxy, nginx) = (of(Peer::Gate)?, of(Peer::Haproxy)?, of(Peer::Nginx)?);
    let name = format!("memory of {IDLE} idle connections");
    Ok(vec![
        Row::new(name.clone(), gate, Unit::MiB).beside("HAProxy", haproxy),
        Row::new(name, gate, Unit::MiB).beside("nginx", nginx),
    ])
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
