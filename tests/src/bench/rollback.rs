//! Going back while the current version is still warm: from the journal's record of the decision to the moment at which
//! no request reaches the new version any more, and to the one at which the current version works under the lease again.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::Value;

use super::exchange;
use super::floor::Floor;
use super::row::{Aim, Row, Unit};
use super::site::{CANDIDATE, CURRENT, Site};
use super::spread::Spread;
use super::traffic::{Shot, Traffic, failed};
use super::{Found, Sizes};
use crate::billing::activity::{Event, Line};
use crate::clock::BootNs;
use crate::fleet::{Process, Spec, StoreKind, free_ports};
use crate::receipt::rows;

const HOSTS: usize = 2;
/// Aims.
const TRAFFIC_MS: f64 = 100.0;
const LEASE_MS: f64 = 1000.0;
/// Each gate is looked at a thousand times a second.
const EVERY: Duration = Duration::from_millis(1);
/// Transactions per round.
const FLOORS: usize = 10;
const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn measure(sizes: &Sizes) -> Result<Found> {
    let site = Site::start(HOSTS, StoreKind::Embedded)?;
    let traffic = Traffic::start(&site.fleet.gates(), EVERY)?;
    let mut floor = site.runtime.block_on(Floor::new(&site.fleet.stores()))?;
    let mut beside = Beside::default();
    let mut backs = Vec::new();
    for _ in 0..sizes.rollbacks {
        backs.push(go_back(&site)?);
        for _ in 0..FLOORS {
            beside.floor.push(site.runtime.block_on(floor.sample())?);
        }
        beside.cold.push(cold_start(&site)?);
    }
    let shots = traffic.stop()?;
    let lines = rows::activity(&[&site.fleet.activity()])?;
    let returns = backs.iter().map(|back| returned(back, &shots, &lines)).collect::<Result<Vec<_>>>()?;
    let heading = format!("rollback: {} times, {HOSTS} hosts, all traffic and the lease at the candidate", backs.len());
    Ok(Found { heading, rows: rows(&returns, beside, failed(&shots))? })
}

/// Measured between the rounds, under the same load.
#[derive(Debug, Default)]
struct Beside {
    floor: Vec<Duration>,
    cold: Vec<Duration>,
}

/// What the journal says of one way back, on our clock.
#[derive(Debug, Clone, Copy)]
struct Back {
    decided: BootNs,
    /// The step of the lease begins: every gate has its routes.
    routed: BootNs,
    ended: BootNs,
}

/// Lets the candidate have everything, then sends it back.
fn go_back(site: &Site) -> Result<Back> {
    let fleet = &site.fleet;
    let spec = Spec {
        wave_size: HOSTS,
        min_serving: HOSTS,
        shift: &["100%"],
        step_soak: "200ms",
        soak: "60s",
        ..Spec::to(CANDIDATE)
    };
    let rollout = fleet.cli().start(&spec)?;
    fleet.wait_within(LIMIT, "the candidate to have all traffic and the lease", |fleet| {
        let status = fleet.cli().status()?;
        let rows = status["fleet"].as_array().cloned().unwrap_or_default();
        let serves = |row: &&Value| row["version"] == CANDIDATE && row["reads"] == 100 && row["writes"] == 100;
        let soaks = status["rollout"]["step_what"].as_str().is_some_and(|what| what.contains("warm"));
        let works = status["lease"]["version"] == CANDIDATE && status["lease"]["beating"] == true;
        Ok(rows.iter().filter(serves).count() == HOSTS && works && soaks)
    })?;
    let outcome = fleet.cli().run(&["rollout", "rollback", "--reason", "measured"])?;
    if outcome.code != 0 {
        bail!("rollout rollback ended with {}: {}{}", outcome.code, outcome.out, outcome.err);
    }
    fleet.wait_within(LIMIT, "the rollout to be rolled back", |fleet| {
        Ok(fleet.cli().status()?["rollout"]["state"] == "rolled-back")
    })?;
    let listing = site.runtime.block_on(site.store.list(&site.keys.rollout(&rollout.parse()?).events()))?;
    let records: Vec<Value> =
        listing.entries.iter().map(|entry| serde_json::from_slice(&entry.value)).collect::<Result<_, _>>()?;
    read_back(&records, wall_ahead())
}

/// How far the wall clock is ahead of the boot clock, in nanoseconds.
fn wall_ahead() -> u64 {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX).saturating_sub(BootNs::now().0)
}

/// Journal times are whole milliseconds, rounded down: what is counted from the decision is up to one too long.
fn read_back(records: &[Value], wall_ahead_ns: u64) -> Result<Back> {
    let at = |what: &str, is: &dyn Fn(&Value) -> bool| {
        let record = records.iter().find(|record| is(&record["event"]));
        let ms = record.and_then(|record| record["at_ms"].as_u64());
        let ms = ms.with_context(|| format!("the journal has no record of {what}"))?;
        anyhow::Ok(BootNs((ms * 1_000_000).saturating_sub(wall_ahead_ns)))
    };
    Ok(Back {
        decided: at("going back", &|event| event["kind"] == "back")?,
        routed: at("the lease's step back", &|event| event["kind"] == "back-entered" && event["step"] == "lease")?,
        ended: at("the end", &|event| event["kind"] == "ended")?,
    })
}

/// Spans from the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Returned {
    traffic: Duration,
    routed: Duration,
    lease: Duration,
}

fn returned(back: &Back, shots: &[Shot], lines: &[Line]) -> Result<Returned> {
    let strays = shots.iter().filter(|shot| shot.sent >= back.decided && shot.sent < back.ended);
    let strays = strays.filter(|shot| shot.version.as_deref() == Some(CANDIDATE)).map(|shot| shot.sent);
    let works = |line: &&Line| {
        line.event == Event::Active && line.version.as_str() == CURRENT && line.at_boot_ns >= back.decided
    };
    let works = lines.iter().find(works).context("the lease did not come back to the current version")?;
    Ok(Returned {
        traffic: strays.max().unwrap_or(back.decided).since(back.decided),
        routed: back.routed.since(back.decided),
        lease: works.at_boot_ns.since(back.decided),
    })
}

/// From the start of a process to its first good answer on `/ready`: what going back costs at least without a warm
/// current version.
fn cold_start(site: &Site) -> Result<Duration> {
    let fleet = &site.fleet;
    let port = *free_ports(1)?.first().context("a port")?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let path = |name: &str| fleet.dir().join(name).display().to_string();
    let words = ["--version-name", CURRENT, "--port", &port.to_string(), "--ledger", &fleet.ledger().to_string()];
    let args: Vec<String> =
        words.into_iter().map(str::to_owned).chain(["--lease-socket".into(), path("nobody.sock")]).collect();
    let began = Instant::now();
    let mut process = Process::spawn("cold", &fleet.binaries().path("billing"), &args, fleet.dir(), &[])?;
    let ready = site.runtime.block_on(async {
        while began.elapsed() < LIMIT {
            match exchange::once(address, Method::GET, "/ready", Vec::new()).await {
                Ok(answer) if answer.status.is_success() => return Ok(began.elapsed()),
                // It does not listen yet.
                Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
        bail!("a cold start took more than {} s", LIMIT.as_secs())
    });
    process.kill()?;
    ready
}

fn rows(returns: &[Returned], beside: Beside, lost: usize) -> Result<Vec<Row>> {
    let spread = |of: fn(&Returned) -> Duration| Spread::of("the way back", returns.iter().map(of));
    let traffic = (spread(|back| back.traffic)?, "decision → all traffic back", Some(TRAFFIC_MS));
    let routed = (spread(|back| back.routed)?, "decision → every gate has said so", None);
    let lease = (spread(|back| back.lease)?, "decision → current works under the lease", Some(LEASE_MS));
    let floor = Spread::of("transactions", beside.floor)?;
    let raw = "a transaction and its watch event";
    let mut rows = Vec::new();
    for (spread, name, aim) in [traffic, routed, lease] {
        for (q, label) in [(0.5, "median"), (1.0, "worst")] {
            let row = Row::span(format!("{name}, {label}"), spread.quantile(q));
            let row = row.beside_span(format!("{raw}, {label}"), floor.quantile(q));
            rows.push(Row { aim: aim.map(Aim::AtMost), ..row });
        }
    }
    let cold =
        Row::span("a cold start, which a warm current saves, median", Spread::of("cold starts", beside.cold)?.median());
    rows.push(cold.beside_span(format!("{raw}, median"), floor.median()));
    rows.push(Row::new("failed requests", lost as f64, Unit::Count).aim(Aim::AtMost(0.0)));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const BACK: Back = Back { decided: BootNs(1000), routed: BootNs(1100), ended: BootNs(2000) };

    fn shot(sent: u64, version: &str) -> Shot {
        Shot { sent: BootNs(sent), answered: BootNs(sent + 10), version: Some(version.to_owned()) }
    }

    fn active(at: u64, version: &str) -> Line {
        Line {
            at_boot_ns: BootNs(at),
            instance: "00000000000000aa".parse().expect("id"),
            version: version.parse().expect("version"),
            token: 7.try_into().expect("token"),
            event: Event::Active,
        }
    }

    #[test]
    fn the_way_back_ends_with_the_last_request_at_the_candidate_and_the_first_work_of_the_current() {
        let shots = [shot(900, CANDIDATE), shot(1050, CANDIDATE), shot(1040, CURRENT), shot(2100, CANDIDATE)];
        let lines = [active(800, CURRENT), active(1200, CANDIDATE), active(1300, CURRENT), active(1900, CURRENT)];
        let expected = Returned {
            traffic: Duration::from_nanos(50),
            routed: Duration::from_nanos(100),
            lease: Duration::from_nanos(300),
        };
        assert_eq!(returned(&BACK, &shots, &lines).expect("back"), expected);
        assert!(returned(&BACK, &shots, &lines[..2]).is_err(), "the lease never came back");
    }

    #[test]
    fn the_journal_s_wall_times_are_read_on_the_boot_clock() {
        let record = |ms: u64, event: Value| json!({ "at_ms": ms, "event": event });
        let records = [
            record(10, json!({ "kind": "started" })),
            record(20, json!({ "kind": "back", "by": "us", "reason": "" })),
            record(21, json!({ "kind": "back-entered", "step": "routes" })),
            record(25, json!({ "kind": "back-entered", "step": "lease" })),
            record(40, json!({ "kind": "ended" })),
        ];
        let back = read_back(&records, 5_000_000).expect("a whole journal");
        let ms = |moment: BootNs| moment.0 / 1_000_000;
        assert_eq!([ms(back.decided), ms(back.routed), ms(back.ended)], [15, 20, 35]);
        let error = read_back(&records[..3], 0).expect_err("not over").to_string();
        assert!(error.contains("lease"), "{error}");
    }
}
