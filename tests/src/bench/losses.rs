//! Each kind of loss, from the moment that it was made until somebody works under the lease again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use handover_proto::lease::LeaseView;
use handover_store::client::Listing;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Sizes;
use super::asker::raw;
use super::lease::progress;
use super::row::{Aim, Row, Unit};
use super::site::Site;
use super::spread::Spread;
use crate::billing::activity::{Event, Line};
use crate::clock::BootNs;
use crate::fleet::processes_of;
use crate::receipt::{holders, rows};

/// Aims.
const PROCESS_MS: f64 = 200.0;
const HOST_MS: f64 = 12_000.0;
/// Longest that anything here may stay dark: a whole quarantine, and a renewal before and after it.
const LIMIT: Duration = Duration::from_secs(40);
/// The host's loss takes ten seconds each time.
const HOSTS_LOST: usize = 2;

pub(super) fn rows(mut site: Site, sizes: &Sizes) -> Result<Vec<Row>> {
    progress("store traffic");
    let mut found = vec![traffic(&site, sizes)?];
    let dark = |name: &str, spans: Vec<Duration>, aim_ms: f64| -> Result<Row> {
        let spread = Spread::of(name, spans)?;
        Ok(Row::span(format!("{name}, median of {}", spread.count()), spread.median()).aim(Aim::AtMost(aim_ms)))
    };
    progress("the loss of a process");
    let died = (0..sizes.losses).map(|_| process_dies(&site)).collect::<Result<Vec<_>>>()?;
    found.push(dark("the holder's process dies: dark", died, PROCESS_MS)?);
    progress("the loss of an agent");
    found.push(agent_dies(&mut site, sizes.quiet)?);
    progress("frozen etcd");
    found.push(frozen(&site, "the leader of etcd", Some(sizes.quiet), sizes.frozen.0)?);
    found.push(frozen(&site, "all of etcd", None, sizes.frozen.1)?);
    progress("the loss of a host");
    let lost = (0..sizes.losses.min(HOSTS_LOST)).map(|_| host_lost(&mut site)).collect::<Result<Vec<_>>>()?;
    found.push(dark("the holder's host is lost: dark", lost, HOST_MS)?);
    let lines = lines(&site)?;
    let overlaps = holders::check(&holders::intervals(&lines), &lines).overlaps.len();
    found.push(Row::new("two at once, in all of this", overlaps as f64, Unit::Count).aim(Aim::AtMost(0.0)));
    Ok(found)
}

fn lines(site: &Site) -> Result<Vec<Line>> {
    Ok(rows::activity(&[&site.fleet.activity()])?)
}

/// Whoever works under the lease.
struct Holder {
    token: i64,
    /// Index of its host.
    host: usize,
}

/// Waits for somebody who works under a token above `after`, with all others ready beside it.
fn holder(site: &Site, after: i64) -> Result<Holder> {
    let mut found = None;
    let end = Instant::now() + LIMIT;
    while found.is_none() {
        let listing = site.runtime.block_on(site.store.list(&site.service.lease().prefix()));
        found = listing.ok().and_then(|listing| working(site, &listing).filter(|holder| holder.token > after));
        if found.is_none() && Instant::now() >= end {
            bail!(
                "nobody works under a token above {after} within {LIMIT:?}; logs are in {}",
                site.fleet.dir().display()
            );
        }
        // Between two looks at the store; what is measured are the services' own stamps.
        std::thread::sleep(Duration::from_millis(20));
    }
    found.context("somebody works")
}

fn working(site: &Site, listing: &Listing) -> Option<Holder> {
    let keys = site.service.lease();
    let mut view = LeaseView::default();
    for entry in &listing.entries {
        view.put(&keys, &entry.key, Some(raw(entry))).ok()?;
    }
    let (token, owner) = (view.token().ok()??, &view.holder.as_ref()?.value.held()?.owner);
    let active = view.candidates.get(&owner.instance)?.value.active == Some(token);
    let ready = view.candidates.values().filter(|seen| seen.value.ready).count();
    let rested = active && ready + 1 >= site.fleet.hosts.len();
    let host = site.fleet.hosts.iter().position(|host| host.name == owner.agent.as_str())?;
    rested.then_some(Holder { token: token.get(), host })
}

/// From `lost` until a service works under a token above `after`, by the services' own stamps.
fn dark_since(site: &Site, lost: BootNs, after: i64) -> Result<Duration> {
    let next = holder(site, after)?;
    let lines = lines(site)?;
    let begins = lines.iter().find(|line| line.event == Event::Active && line.token.as_i64() > after);
    let begins = begins.with_context(|| format!("nobody began under token {}", next.token))?;
    Ok(begins.at_boot_ns.since(lost))
}

/// The processes of a host's instances: they name its runtime directory.
fn instances(site: &Site, host: usize) -> Vec<i32> {
    let mark = site.fleet.hosts[host].runtime_dir.join("lease.sock").display().to_string();
    let of_host = |pid: &i32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
    };
    processes_of(site.fleet.dir()).into_iter().filter(of_host).collect()
}

fn process_dies(site: &Site) -> Result<Duration> {
    let before = holder(site, 0)?;
    let lost = BootNs::now();
    for pid in instances(site, before.host) {
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    dark_since(site, lost, before.token)
}

fn agent_dies(site: &mut Site, quiet: Duration) -> Result<Row> {
    let before = holder(site, 0)?;
    let since = BootNs::now();
    site.fleet.hosts[before.host].agent.as_mut().context("an agent")?.kill()?;
    site.fleet.start_agent(before.host)?;
    std::thread::sleep(quiet);
    let row = Row::span("the holder's agent dies and comes back: dark", dark_within(site, before.token, since)?);
    Ok(row.aim(Aim::AtMost(0.0)))
}

/// How long nobody could work from `since` until now; the whole span if the token has changed, which it must not.
fn dark_within(site: &Site, token: i64, since: BootNs) -> Result<Duration> {
    let until = BootNs::now();
    let lines = lines(site)?;
    let mut dark = Duration::ZERO;
    let mut ended: Option<BootNs> = None;
    for line in lines.iter().filter(|line| line.token.as_i64() >= token) {
        match line.event {
            Event::Inactive { .. } => ended = Some(line.at_boot_ns),
            Event::Active => {
                dark += ended.take().map_or(Duration::ZERO, |ended| line.at_boot_ns.since(ended.max(since)))
            }
            Event::UnitStart { .. } | Event::UnitEnd { .. } => {}
        }
    }
    Ok(dark + ended.map_or(Duration::ZERO, |ended| until.since(ended.max(since))))
}

fn frozen(site: &Site, what: &str, leader_only: Option<Duration>, span: Duration) -> Result<Row> {
    let before = holder(site, 0)?;
    let pids = if leader_only.is_some() {
        vec![leader(site)?]
    } else {
        site.fleet.etcd.iter().map(|member| member.pid()).collect()
    };
    let send = |signal| {
        pids.iter().try_for_each(|pid| kill(Pid::from_raw(i32::try_from(*pid)?), signal).map_err(anyhow::Error::from))
    };
    let since = BootNs::now();
    send(Signal::SIGSTOP)?;
    std::thread::sleep(span);
    send(Signal::SIGCONT)?;
    let thawed = BootNs::now();
    let after = holder(site, 0)?;
    let name = format!("{what} frozen for {} s", span.as_secs());
    if let Some(quiet) = leader_only {
        std::thread::sleep(quiet);
        let dark = dark_within(site, before.token, since)?;
        let kept = if after.token == before.token { "the token stayed" } else { "the token CHANGED" };
        return Ok(Row::span(format!("{name}: dark ({kept})"), dark).aim(Aim::AtMost(0.0)));
    }
    let dark = dark_within(site, before.token, since)?;
    let lines = lines(site)?;
    let back = lines.iter().find(|line| line.event == Event::Active && line.at_boot_ns.0 >= thawed.0);
    let back = back.map_or(Duration::ZERO, |line| line.at_boot_ns.since(thawed));
    Ok(Row::span(format!("{name}: back at work after it returned"), back).beside_span("dark in all", dark))
}

fn leader(site: &Site) -> Result<u32> {
    let all = site.runtime.block_on(site.store.status());
    let leads =
        all.iter().position(|(_, status)| status.as_ref().is_ok_and(|status| status.leader == status.member_id));
    Ok(site.fleet.etcd[leads.context("no member leads")?].pid())
}

fn host_lost(site: &mut Site) -> Result<Duration> {
    let before = holder(site, 0)?;
    let pids = instances(site, before.host);
    let host = &mut site.fleet.hosts[before.host];
    let lost = BootNs::now();
    // The agent first, so that it cannot prove that its service has stopped.
    for process in [&mut host.agent, &mut host.gate].into_iter().flatten() {
        process.kill()?;
    }
    for pid in pids {
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    // Only two are left, so not all can be ready.
    let end = Instant::now() + LIMIT;
    let begun = loop {
        let lines = lines(site)?;
        if let Some(line) = lines.iter().find(|line| line.event == Event::Active && line.token.as_i64() > before.token)
        {
            break line.at_boot_ns;
        }
        if Instant::now() >= end {
            bail!("nobody took over within {LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    site.fleet.start_gate(before.host)?;
    site.fleet.start_agent(before.host)?;
    Ok(begun.since(lost))
}

/// What an idle fleet asks of etcd, counted by etcd itself.
fn traffic(site: &Site, sizes: &Sizes) -> Result<Row> {
    holder(site, 0)?;
    let count = || -> Result<f64> { site.fleet.stores().iter().map(|member| Ok(calls(&metrics(member)?))).sum() };
    let (began, before) = (Instant::now(), count()?);
    // What is measured is this rest.
    std::thread::sleep(sizes.idle);
    let spent = count()? - before;
    let agents = site.fleet.hosts.len() as f64;
    let per_minute = spent / began.elapsed().as_secs_f64() * 60.0 / agents;
    Ok(Row::new(
        "store traffic per idle agent and minute: messages received by etcd (one coordinator's share included)",
        per_minute,
        Unit::Count,
    ))
}

fn metrics(member: &str) -> Result<String> {
    let mut stream = TcpStream::connect(member)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Messages that clients sent, of calls and of streams.
fn calls(metrics: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with("grpc_server_msg_received_total{"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_all_methods_are_summed_from_etcds_own_page() {
        let page = "# TYPE grpc_server_msg_received_total counter\n\
            grpc_server_msg_received_total{grpc_method=\"Range\"} 7\ngrpc_server_msg_received_total{grpc_method=\"Txn\"} 1.5e+01\n\
            grpc_server_msg_sent_total{grpc_method=\"Txn\"} 99\n";
        assert_eq!(calls(page), 22.0);
    }
}
