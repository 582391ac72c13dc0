//! A fleet behind HAProxy, upgraded host by host: by Handover both ways, then by Ansible on the same hosts. Counted are the
//! whole command, from its start to its end, and the requests that failed meanwhile.
//!
//! What an upgrade cannot do without is the service's start on each host and the soak that was asked for. The start is
//! measured in the same run: the same unit on the same hosts, started by `systemctl` alone, by systemd's own stamps. The
//! service's stop and the drain of its requests, a few milliseconds each, are counted as nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::stamps::alone;
use super::{CANDIDATE, CURRENT, ansible, load, roll};
use crate::bench::FleetSizes;
use crate::bench::lease::progress;
use crate::bench::row::{Aim, Row, Unit};
use crate::bench::spread::Spread;
use crate::booted::BootedHost;
use crate::booted::front::Front;
use crate::booted::site::{Site, config};
use crate::fleet::Spec;
use crate::span;

/// Aim: so many times what it cannot do without.
const OF_INHERENT: f64 = 1.1;
/// Starts of the unit by itself, on each host.
const STARTS: usize = 3;
/// Everything of ours that runs on a host.
const OURS: [&str; 4] = ["handover-agent@billing", "handover-gate@billing", "billing@a", "billing@b"];

/// Upgrades of one kind.
#[derive(Debug, Clone)]
pub(super) struct Upgrades {
    /// How long each command took.
    pub(super) took: Vec<Duration>,
    /// Requests that failed in all of them.
    pub(super) failed: u64,
}

/// What an upgrade cannot do without.
#[derive(Debug, Clone, Copy)]
struct Inherent {
    hosts: u32,
    start: Duration,
    step_soak: Duration,
    soak: Duration,
}

impl Inherent {
    /// With so many soaks on each host.
    fn with(&self, soaks: u32) -> Duration {
        (self.start + self.step_soak * soaks) * self.hosts + self.soak
    }
}

pub(super) fn rows(sizes: &FleetSizes) -> Result<Vec<Row>> {
    let site = site(sizes)?;
    let front = Front::start(&site.hosts, 8080)?;
    site.bring_up();
    site.install(CANDIDATE, "");
    progress("rolling upgrades, stop-first");
    // There and back, and on from where the way before has left it.
    let mut versions = [CANDIDATE, CURRENT].into_iter().cycle();
    let in_place = upgrades(versions.by_ref().take(sizes.upgrades), |version| {
        Ok(roll(&site, &stop_first(&site, sizes, version))?.took)
    })?;
    progress("rolling upgrades, start-first");
    let beside = upgrades(versions.by_ref().take(sizes.upgrades), |version| {
        Ok(roll(&site, &start_first(&site, sizes, version))?.took)
    })?;
    drop(front);
    let starts = starts(&site)?;
    let inherent = Inherent {
        hosts: u32::from(sizes.hosts),
        start: starts.median(),
        step_soak: span::parse(sizes.step_soak)?,
        soak: span::parse(sizes.soak)?,
    };
    let ansible = if sizes.beside_ansible { by_ansible(&site, sizes)? } else { None };
    print(&inherent, &[("stop-first", 1, in_place), ("start-first", 2, beside)], ansible)
}

/// The same by Ansible, on hosts on which nothing of ours runs any more; none without it.
fn by_ansible(site: &Site, sizes: &FleetSizes) -> Result<Option<Upgrades>> {
    match ansible::Ansible::find() {
        Ok(ansible) => {
            progress("rolling upgrades, by Ansible");
            ansible.run(site, sizes).map(Some)
        }
        Err(missing) => {
            eprintln!("bench: not beside Ansible: {missing:#}");
            Ok(None)
        }
    }
}

/// Hosts whose agents tell HAProxy, and whose service takes its time to start.
fn site(sizes: &FleetSizes) -> Result<Site> {
    let site = Site::start(sizes.hosts).context("hosts with systemd cannot be booted here")?;
    for host in site.hosts.hosts() {
        host.put("/etc/handover/billing.toml", &config(host, &Front::lines_for(host)))?;
        host.put("/etc/systemd/system/billing@.service.d/start.conf", &format!("[Service]\n{}", slow_start(sizes)))?;
        host.must(&["systemctl", "daemon-reload"])?;
    }
    Ok(site)
}

/// The line of a unit that makes its start take about as long as that of a real service.
pub(super) fn slow_start(sizes: &FleetSizes) -> String {
    format!("ExecStartPre=/bin/sleep {}\n", sizes.start.as_secs_f64())
}

fn stop_first(site: &Site, sizes: &FleetSizes, version: &str) -> Spec {
    let min_serving = site.hosts.hosts().len() - 1;
    Spec { min_serving, step_soak: sizes.step_soak, soak: sizes.soak, ..Spec::in_place(version) }
}

/// Two soaks on each host: with the reads, and with the writes too.
fn start_first(site: &Site, sizes: &FleetSizes, version: &str) -> Spec {
    Spec { step_soak: sizes.step_soak, soak: sizes.soak, ..site.spec(version) }
}

/// Upgrades to these versions, under load through HAProxy.
pub(super) fn upgrades(
    versions: impl Iterator<Item = &'static str>,
    upgrade: impl FnMut(&'static str) -> Result<Duration>,
) -> Result<Upgrades> {
    let load = load(vec![Front::address()])?;
    let took = versions.map(upgrade).collect::<Result<Vec<_>>>()?;
    let receipt = load.stop()?;
    let answered = &receipt.total.versions;
    ensure!([CURRENT, CANDIDATE].iter().all(|version| answered.contains_key(*version)), "only {answered:?} answered");
    if receipt.total.ours() > 0 {
        eprintln!("bench: failed requests: {:?}", receipt.total.outcomes);
    }
    Ok(Upgrades { took, failed: receipt.total.ours() })
}

/// Ends everything of ours on the hosts; then the unit's own starts.
fn starts(site: &Site) -> Result<Spread> {
    let mut all = Vec::new();
    for host in site.hosts.hosts() {
        host.must(&[&["systemctl", "stop"], &OURS[..]].concat())?;
        let slot = slot(host)?;
        all.extend(alone(host, &format!("billing@{slot}"), STARTS)?);
    }
    Ok(Spread::of("starts alone", all)?)
}

/// A slot that has been started, so that all that its unit needs is there.
fn slot(host: &BootedHost) -> Result<String> {
    let links = host.must(&["ls", "/builds/billing"])?;
    let slot = links.lines().find_map(|name| name.strip_prefix("current@"));
    slot.map(str::to_owned).with_context(|| format!("a slot on {}", host.name()))
}

fn print(inherent: &Inherent, ours: &[(&str, u32, Upgrades)], ansible: Option<Upgrades>) -> Result<Vec<Row>> {
    let hosts = inherent.hosts;
    let took = |what: &str, all: &Upgrades| Spread::of(what, all.took.iter().copied());
    let total = |what: &str, soaks: u32, spread: &Spread| {
        let (count, parts) = (spread.count(), format!("inherent: {hosts} × (start + {soaks} × soak) + soak"));
        let name = format!("{what}, {hosts} hosts: total, median of {count}");
        Row::span(name, spread.median()).beside_span(parts, inherent.with(soaks))
    };
    let rest = |spread: &Spread, soaks| spread.median().saturating_sub(inherent.with(soaks)) / hosts;
    let peer = ansible.as_ref().map(|all| took("Ansible", all)).transpose()?;
    let mut rows = vec![Row::span("the service's own start, by `systemctl start` alone, median", inherent.start)];
    for (what, soaks, all) in ours {
        let spread = took(what, all)?;
        rows.push(total(what, *soaks, &spread).aim(Aim::Ratio(OF_INHERENT)));
        let left = Row::span(format!("{what}: what is not inherent, per host"), rest(&spread, *soaks));
        rows.push(match &peer {
            Some(peer) => left.beside_span("Ansible's", rest(peer, 1)),
            None => left,
        });
        let failed = Row::new(format!("{what}: failed requests"), all.failed as f64, Unit::Count);
        rows.push(failed.aim(Aim::AtMost(0.0)));
    }
    if let Some((peer, all)) = peer.zip(ansible) {
        rows.push(total("Ansible, serial: 1", 1, &peer));
        rows.push(Row::new("Ansible, serial: 1: failed requests", all.failed as f64, Unit::Count));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(all: &[u64]) -> Vec<Duration> {
        all.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn what_is_not_inherent_is_told_per_host_and_beside_the_peers() {
        let inherent = Inherent {
            hosts: 3,
            start: Duration::from_millis(1000),
            step_soak: Duration::from_millis(500),
            soak: Duration::from_millis(2000),
        };
        assert_eq!(inherent.with(2), Duration::from_millis(8000));
        let ours = Upgrades { took: ms(&[7100, 6800, 9000]), failed: 0 };
        let ansible = Upgrades { took: ms(&[13_000]), failed: 7 };
        let rows = print(&inherent, &[("stop-first", 1, ours.clone())], Some(ansible)).expect("rows");
        let find = |name: &str| rows.iter().find(|row| row.name.contains(name)).expect("a row");
        let total = find("stop-first, 3 hosts");
        assert_eq!((total.value, total.beside.as_ref().map(|beside| beside.1)), (7100.0, Some(6500.0)));
        assert_eq!(total.met(), Some(true), "7.1 is within 1.1 times 6.5");
        let left = find("not inherent");
        assert_eq!((left.value, left.beside.as_ref().map(|beside| beside.1.round())), (200.0, Some(2167.0)));
        assert_eq!(find("Ansible, serial: 1: failed").value, 7.0);
        assert_eq!(find("Ansible, serial: 1: failed").met(), None, "it is no aim of ours");
        let alone = print(&inherent, &[("stop-first", 1, ours)], None).expect("rows");
        assert!(alone.iter().all(|row| !row.name.contains("Ansible")), "{alone:?}");
    }
}
