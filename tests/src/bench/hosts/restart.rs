//! One instance restarted: what a step of a rollout takes beyond the service's own stop and start.
//!
//! Measured is the step `Start` of a fleet with one host, from the journal: from the decision to enter it to the decision
//! that it is met. So the agent's part is what is left when systemd's own times of that very stop and start are taken away;
//! the coordinator's two decisions, its write to etcd, the delivery and the report are in it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use handover_proto::ids::RolloutId;
use handover_proto::keys::EnvKeys;
use handover_store::client::Store;
use serde_json::Value;

use super::stamps::{Stamps, alone};
use super::{CANDIDATE, CURRENT, load, roll};
use crate::bench::row::{Aim, Row, Unit, ms};
use crate::bench::spread::Spread;
use crate::booted::site::{STORE, Site};
use crate::fleet::Spec;

/// Aim.
const AGENT_MS: f64 = 100.0;

/// One restart.
#[derive(Debug, Clone, Copy)]
struct Restart {
    /// The whole step.
    step: Duration,
    /// The service's own start.
    start: Duration,
    /// The service's own stop; none if the step does not wait for one.
    stop: Duration,
}

impl Restart {
    /// What is neither the service's stop nor its start; none if the step was shorter than these, which cannot be.
    fn rest(&self) -> Option<Duration> {
        self.step.checked_sub(self.start + self.stop)
    }
}

pub(super) fn rows(restarts: usize) -> Result<Vec<Row>> {
    let site = Site::start(1).context("hosts with systemd cannot be booted here")?;
    site.bring_up();
    site.install(CANDIDATE, "");
    let load = load(site.gates())?;
    let mut versions = [CANDIDATE, CURRENT].into_iter().cycle();
    let mut go = |way: fn(&str) -> Spec, in_place: bool| -> Result<Vec<Restart>> {
        versions.by_ref().take(restarts).map(|version| restart(&site, &way(version), in_place)).collect()
    };
    let in_place = go(in_place, true)?;
    let beside = go(start_first, false)?;
    let failed = load.stop()?.total.ours();
    let unit = serving_unit(&site)?;
    let host = site.hosts.host(0);
    host.must(&["systemctl", "stop", "handover-agent@billing", "handover-gate@billing", &unit])?;
    print(&in_place, &beside, alone(host, &unit, restarts)?, failed)
}

/// The only host: its gate holds meanwhile.
fn in_place(version: &str) -> Spec {
    let quick = Spec { step_soak: "0s", soak: "0s", start_deadline: "5s", ..Spec::in_place(version) };
    Spec { min_serving: 0, ..quick }
}

fn start_first(version: &str) -> Spec {
    let quick = Spec { step_soak: "0s", soak: "0s", start_deadline: "8s", ..Spec::to(version) };
    Spec { min_serving: 1, shift: &["100%"], ..quick }
}

fn restart(site: &Site, spec: &Spec, in_place: bool) -> Result<Restart> {
    let rollout = roll(site, spec)?.rollout;
    let step = first_step(&journal(&rollout)?)?;
    let stamps = Stamps::of(site.hosts.host(0), &serving_unit(site)?)?;
    let stop = if in_place { stamps.stop()? } else { Duration::ZERO };
    Ok(Restart { step, start: stamps.start()?, stop })
}

/// The unit that serves on the only host.
fn serving_unit(site: &Site) -> Result<String> {
    let rows = site.rows();
    let serves = |row: &&Value| row["reads"].as_u64() > Some(0);
    let slot = rows.iter().find(serves).and_then(|row| row["slot"].as_str()).context("a slot that serves")?;
    Ok(format!("billing@{slot}.service"))
}

/// The records of a rollout.
fn journal(rollout: &str) -> Result<Vec<Value>> {
    let keys = EnvKeys::new(&"demo".parse()?);
    let rollout: RolloutId = rollout.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listing = runtime.block_on(async {
        let store = Store::connect(&[STORE.to_owned()])?;
        store.list(&keys.rollout(&rollout).events()).await
    })?;
    listing.entries.iter().map(|entry| Ok(serde_json::from_slice(&entry.value)?)).collect()
}

/// How long the first step took, in whole milliseconds.
fn first_step(records: &[Value]) -> Result<Duration> {
    let at = |what: &str, is: &dyn Fn(&Value) -> bool| {
        let record = records.iter().find(|record| is(&record["event"]));
        record
            .and_then(|record| record["at_ms"].as_u64())
            .with_context(|| format!("the journal has no record of {what}"))
    };
    let began = at("the rollout's begin", &|event| event["kind"] == "started")?;
    let met = at("its second step", &|event| event["kind"] == "entered" && event["step"] == 1)?;
    match met.checked_sub(began) {
        Some(span) => Ok(Duration::from_millis(span)),
        None => bail!("the clock went back during the measurement"),
    }
}

fn print(in_place: &[Restart], beside: &[Restart], alone: Vec<Duration>, failed: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let ways = [(in_place, "restart in place", "stop and start"), (beside, "start beside", "start")];
    for (all, what, own) in ways {
        let rest: Option<Vec<Duration>> = all.iter().map(Restart::rest).collect();
        let rest = rest.with_context(|| format!("a step was shorter than the stop and start in it: {all:?}"))?;
        let (rest, step) = (Spread::of(what, rest)?, Spread::of(what, all.iter().map(|one| one.step))?);
        let count = rest.count();
        let row = |label: &str, q: f64| {
            let name = format!("{what}, all but the service's own {own}: {label} of {count}");
            Row::span(name, rest.quantile(q)).beside_span("the whole step", step.quantile(q))
        };
        rows.extend([row("median", 0.5).aim(Aim::AtMost(AGENT_MS)), row("worst", 1.0)]);
    }
    let starts = Spread::of("starts", in_place.iter().chain(beside).map(|one| one.start))?;
    let alone = Spread::of("starts alone", alone)?;
    rows.push(
        Row::span("the service's own start in these, median", starts.median())
            .beside("the same unit's by `systemctl start` alone", ms(alone.median())),
    );
    rows.push(Row::new("restarts: failed requests", failed as f64, Unit::Count).aim(Aim::AtMost(0.0)));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_lasts_from_its_record_to_that_of_the_next() {
        let record = |ms: u64, event: Value| json!({ "at_ms": ms, "event": event });
        let records = [
            record(1000, json!({ "kind": "started" })),
            record(1005, json!({ "kind": "assigned", "agents": ["app-01"] })),
            record(1210, json!({ "kind": "entered", "step": 1 })),
            record(1300, json!({ "kind": "entered", "step": 2 })),
        ];
        assert_eq!(first_step(&records).expect("two steps"), Duration::from_millis(210));
        let error = first_step(&records[..2]).expect_err("not met").to_string();
        assert!(error.contains("second step"), "{error}");
    }

    #[test]
    fn the_services_own_times_are_taken_away_and_nothing_else() {
        let one = |step, start, stop| {
            let ms = Duration::from_millis;
            Restart { step: ms(step), start: ms(start), stop: ms(stop) }
        };
        let rows = print(&[one(200, 90, 30)], &[one(150, 80, 0)], vec![Duration::from_millis(70)], 0).expect("rows");
        let value = |name: &str| rows.iter().find(|row| row.name.contains(name)).expect("a row").value;
        assert_eq!(value("restart in place"), 80.0);
        assert_eq!(value("start beside"), 70.0);
        for cannot_be in [one(50, 90, 0), one(100, 90, 30)] {
            let error = print(&[cannot_be], &[one(150, 80, 0)], vec![Duration::ZERO], 0).expect_err("and is not shown");
            assert!(error.to_string().contains("shorter than the stop and start"), "{error}");
        }
    }
}
