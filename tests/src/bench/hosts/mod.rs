//! Upgrades on hosts that boot a real systemd: one instance's restart, and a fleet behind HAProxy, by Handover and by
//! Ansible, under the same load.

mod ansible;
mod restart;
mod rolling;
mod stamps;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{Found, Sizes};
use crate::booted::site::{Site, until};
use crate::fleet::Spec;
use crate::load::{Load, LoadSpec};

/// The version that serves first.
const CURRENT: &str = "1.0.0";
/// The version that comes.
const CANDIDATE: &str = "1.1.0";
/// Requests a second. Each takes a few milliseconds, so what a host has in hand when it leaves is counted as nothing.
const RATE_PER_S: f64 = 60.0;

pub(super) fn measure(sizes: &Sizes) -> Result<Found> {
    let mut rows = restart::rows(sizes.restarts)?;
    let fleet = &sizes.fleet;
    rows.extend(rolling::rows(fleet)?);
    let heading = format!(
        "hosts: {} restarts each way on one booted host; {} rolling upgrades of {} hosts each way behind HAProxy, under \
         {RATE_PER_S} requests a second",
        sizes.restarts, fleet.upgrades, fleet.hosts
    );
    Ok(Found { heading, rows })
}

/// Load that is answered.
fn load(gates: Vec<SocketAddr>) -> Result<Load> {
    let load = Load::start(LoadSpec::new(gates, RATE_PER_S))?;
    until("the load to be answered", || load.answered_well() > 50);
    Ok(load)
}

/// A rollout that was done.
struct Rolled {
    /// Its id.
    rollout: String,
    /// From the start of the command until its end.
    took: Duration,
}

/// Rolls out, to the end.
fn roll(site: &Site, spec: &Spec) -> Result<Rolled> {
    let began = Instant::now();
    let (code, said) = site.roll(spec);
    let took = began.elapsed();
    if code != 0 {
        bail!("the rollout to {} ended with {code}: {said}{}", spec.version, site.logs());
    }
    let status = site.status();
    let rollout = status["rollout"]["rollout"].as_str().context("a rollout in the status")?.to_owned();
    Ok(Rolled { rollout, took })
}
