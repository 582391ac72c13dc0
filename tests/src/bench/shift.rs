//! From an accepted assignment to the traffic's new route: all requests of a host go from one slot to the other and back.
//!
//! There is no coordinator meanwhile: assignments go straight to the agent, as a coordinator would deliver them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use handover_proto::assignment::{Assignment, LeaseWish, Route, SlotWish, Upstream};
use handover_proto::ids::{SlotId, Version};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Serial;
use handover_proto::stored::{decode, encode};
use handover_proto::wire::AssignRequest;
use handover_proto::wire::agent_client::AgentClient;
use tonic::transport::Channel;

use super::row::{Aim, Row, Unit};
use super::site::{CANDIDATE, CURRENT, Site};
use super::spread::Spread;
use super::traffic::{Shot, Traffic, failed};
use super::{Found, Sizes};
use crate::clock::BootNs;
use crate::fleet::StoreKind;

/// Aim for the 99th percentile.
const SHIFTED_MS: f64 = 5.0;
/// Two connections with this pace look at the route every quarter of a millisecond.
const EVERY: Duration = Duration::from_micros(500);
/// A shift is over when so many requests in a row went the new way.
const IN_A_ROW: usize = 20;
/// One that takes longer does not come.
const LIMIT: Duration = Duration::from_secs(10);

/// One shift of all traffic.
#[derive(Debug, Clone)]
struct Shift {
    to: &'static str,
    /// When the assignment was sent.
    sent: BootNs,
    /// When the agent's answer was there: it is recorded and acted on.
    accepted: BootNs,
}

pub(super) fn measure(sizes: &Sizes) -> Result<Found> {
    let mut site = Site::start(1, StoreKind::Embedded)?;
    for coordinator in &mut site.fleet.coordinators {
        coordinator.kill()?;
    }
    let gate = site.fleet.gates()[0];
    let (shifts, shots) = site.runtime.block_on(async {
        let mut hand = Hand::new(&site).await?;
        hand.assign(CURRENT).await?;
        site.fleet.wait_for("the candidate to be ready beside the current version", |fleet| {
            let reached = fleet.hosts[0].status()?["reached"].as_i64();
            Ok(reached == Some(hand.serial.0))
        })?;
        let traffic = Traffic::start(&[gate, gate], EVERY)?;
        wait_for(&traffic, CURRENT)?;
        let mut shifts = Vec::new();
        for (_, to) in (0..sizes.shifts).zip([CANDIDATE, CURRENT].into_iter().cycle()) {
            let sent = BootNs::now();
            hand.assign(to).await?;
            shifts.push(Shift { to, sent, accepted: BootNs::now() });
            wait_for(&traffic, to)?;
            // So that shifts do not fall into step with anything that happens at fixed times.
            std::thread::sleep(Duration::from_micros(rand::random_range(0..20_000)));
        }
        anyhow::Ok((shifts, traffic.stop()?))
    })?;
    let rate = shots.len() as f64
        / shots.last().zip(shots.first()).map_or(1.0, |(last, first)| last.sent.since(first.sent).as_secs_f64());
    let heading =
        format!("shift: all traffic of a host moved {} times, under {rate:.0} requests a second", shifts.len());
    Ok(Found { heading, rows: rows(&shifts, &shots)? })
}

fn wait_for(traffic: &Traffic, version: &str) -> Result<()> {
    let end = Instant::now() + LIMIT;
    while !traffic.all_go_to(version, IN_A_ROW) {
        if Instant::now() > end {
            bail!("waited {} s for all traffic to go to {version}", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The coordinator's hand: it delivers assignments of the same term with growing serials.
struct Hand {
    client: AgentClient<Channel>,
    assignment: Assignment,
    serial: Serial,
}

impl Hand {
    /// Begins with the assignment that stands in the store, with [`CANDIDATE`] in the slot beside.
    async fn new(site: &Site) -> Result<Self> {
        let host = &site.fleet.hosts[0];
        let client = AgentClient::connect(format!("http://{}", host.agent_listen)).await?;
        let key = site.service.assigned(&host.name.parse()?);
        let entry = site.store.get(&key).await?.context("the host has no assignment")?;
        let mut assignment: Assignment = decode(&key, &entry.value)?;
        let free = ["a", "b"].map(str::parse::<SlotId>).into_iter().flatten();
        let free = free.into_iter().find(|slot| !assignment.slots.contains_key(slot)).context("no free slot")?;
        let wish = SlotWish { version: CANDIDATE.parse()?, lifecycle: Lifecycle::Serving, lease: LeaseWish::Never };
        assignment.slots.insert(free, wish);
        Ok(Self { client, assignment, serial: Serial(entry.mod_revision) })
    }

    /// All traffic to `version`; returns when the agent has accepted it.
    async fn assign(&mut self, version: &str) -> Result<()> {
        let version: Version = version.parse()?;
        for wish in self.assignment.slots.values_mut() {
            wish.lifecycle = if wish.version == version { Lifecycle::Serving } else { Lifecycle::Ready };
        }
        let serving = self.assignment.slots.iter().filter(|(_, wish)| wish.lifecycle == Lifecycle::Serving);
        let routes = serving.map(|(slot, _)| Route { to: Upstream::Slot(slot.clone()), reads: 100, writes: 100 });
        self.assignment.routes = routes.collect();
        self.serial.0 += 1;
        let (term, serial) = (self.assignment.term.get(), self.serial.0);
        let request = AssignRequest { term, serial, assignment: encode(&self.assignment)? };
        let reply = self.client.assign(request).await?.into_inner();
        if reply.accepted != serial {
            bail!("the agent acts on {} instead of {serial}", reply.accepted)
        } else {
            Ok(())
        }
    }
}

/// When a shift was seen in the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// The first answer that came the new way was there.
    first_new: BootNs,
    /// The last request that went the old way was sent; none since the assignment was sent: the moment of that.
    last_old: BootNs,
}

/// `shots` in order of their sending; `until` is when the next shift began.
fn seen(shift: &Shift, until: BootNs, shots: &[Shot]) -> Option<Seen> {
    let during = || shots.iter().filter(|shot| shot.answered >= shift.sent && shot.sent < until);
    let goes = |shot: &&Shot| shot.version.as_deref() == Some(shift.to);
    let first_new = during().filter(goes).map(|shot| shot.answered).min()?;
    let last_old = during().filter(|shot| !goes(shot)).map(|shot| shot.sent).max().unwrap_or(shift.sent);
    Some(Seen { first_new, last_old: last_old.max(shift.sent) })
}

fn rows(shifts: &[Shift], shots: &[Shot]) -> Result<Vec<Row>> {
    let until = shifts.iter().skip(1).map(|shift| shift.sent).chain([BootNs(u64::MAX)]);
    let seen = shifts.iter().zip(until).map(|(shift, until)| {
        let seen = seen(shift, until, shots);
        seen.map(|seen| (shift, seen)).context("no request went the new way")
    });
    let seen = seen.collect::<Result<Vec<_>>>()?;
    let spread = |what: &str, of: &dyn Fn(&Shift, &Seen) -> Duration| {
        Spread::of(what, seen.iter().map(|(shift, seen)| of(shift, seen)))
    };
    let first = spread("the first request on the new route", &|shift, seen| seen.first_new.since(shift.accepted))?;
    let last = spread("the last request on the old route", &|shift, seen| seen.last_old.since(shift.accepted))?;
    let whole = spread("the whole shift", &|shift, seen| seen.last_old.max(seen.first_new).since(shift.sent))?;
    let accepting = spread("accepting", &|shift, _| shift.accepted.since(shift.sent))?;
    let request = Spread::of("requests", shots.iter().map(|shot| shot.answered.since(shot.sent)))?;
    let mut rows = Vec::new();
    for (name, spread) in
        [("accepted → first answer on the new route", &first), ("accepted → last request on the old", &last)]
    {
        for (q, label, aim) in [(0.5, "p50", None), (0.99, "p99", Some(Aim::AtMost(SHIFTED_MS)))] {
            let row = Row::span(format!("{name}, {label}"), spread.quantile(q));
            let row = row.beside_span(format!("a request through the gate, {label}"), request.quantile(q));
            rows.push(Row { aim, ..row });
        }
    }
    for (q, label) in [(0.5, "p50"), (0.99, "p99")] {
        let row = Row::span(format!("assignment sent → shifted, {label}"), whole.quantile(q));
        rows.push(row.beside_span(format!("sent → accepted, recorded on disk, {label}"), accepting.quantile(q)));
    }
    rows.push(Row::new("failed requests", failed(shots) as f64, Unit::Count).aim(Aim::AtMost(0.0)));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shot(sent: u64, answered: u64, version: &str) -> Shot {
        Shot { sent: BootNs(sent), answered: BootNs(answered), version: Some(version.to_owned()) }
    }

    const SHIFT: Shift = Shift { to: CANDIDATE, sent: BootNs(100), accepted: BootNs(120) };

    #[test]
    fn a_shift_lies_between_the_first_answer_on_the_new_route_and_the_last_request_on_the_old() {
        let shots = [
            shot(10, 20, CANDIDATE), // Of an earlier shift.
            shot(90, 99, CURRENT),
            shot(115, 125, CURRENT),
            shot(121, 131, CANDIDATE),
            shot(122, 140, CURRENT),
            shot(135, 145, CANDIDATE),
            shot(205, 215, CURRENT), // Of the next.
        ];
        let expected = Seen { first_new: BootNs(131), last_old: BootNs(122) };
        assert_eq!(seen(&SHIFT, BootNs(200), &shots), Some(expected));
    }

    #[test]
    fn without_an_answer_on_the_new_route_there_is_no_shift() {
        assert_eq!(seen(&SHIFT, BootNs(200), &[shot(121, 131, CURRENT)]), None);
        let error = rows(&[SHIFT], &[shot(121, 131, CURRENT)]).expect_err("never shifted");
        assert!(error.to_string().contains("new way"), "{error}");
    }

    #[test]
    fn a_request_without_a_good_answer_is_counted() {
        let bad = Shot { version: None, ..shot(122, 132, CURRENT) };
        let rows = rows(&[SHIFT], &[shot(121, 131, CANDIDATE), bad]).expect("rows");
        let failed = rows.last().expect("a row");
        assert_eq!((failed.name.as_str(), failed.value, failed.met()), ("failed requests", 1.0, Some(false)));
    }
}
