//! Each kind of loss, from the moment that it was made until somebody works under the lease again.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use handover_proto::ids::InstanceId;
use handover_proto::lease::{Guard, LeaseView};
use handover_proto::stored::{Rest, STORED_VERSION, encode};
use handover_proto::txn::{Op, Txn};
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
/// Without the guard key, or on an etcd that may revoke leases early.
const UNGUARDED_MS: f64 = 22_000.0;
/// Longest that anything here may stay dark: a whole quarantine, and a renewal before and after it.
const LIMIT: Duration = Duration::from_secs(40);
/// A host's loss takes twelve seconds each time, and twice that without the guard key.
const HOSTS_LOST: usize = 3;

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
    let lost = |site: &mut Site, times: usize| (0..times).map(|_| host_lost(site)).collect::<Result<Vec<_>>>();
    let times = sizes.losses.min(HOSTS_LOST);
    if times > 1 {
        found.push(dark("the holder's host is lost, no guard key: dark", lost(&mut site, times - 1)?, UNGUARDED_MS)?);
    }
    guard(&mut site)?;
    found.push(dark("the holder's host is lost: dark", lost(&mut site, times)?, HOST_MS)?);
    let lines = lines(&site)?;
    let overlaps = holders::check(&holders::intervals(&lines), &lines).overlaps.len();
    found.push(Row::new("two at once, in all of this", overlaps as f64, Unit::Count).aim(Aim::AtMost(0.0)));
    Ok(found)
}

fn lines(site: &Site) -> Result<Vec<Line>> {
    Ok(rows::activity(&[&site.fleet.activity()])?)
}

/// Whoever works under the lease.
#[derive(Debug, Clone)]
struct Holder {
    token: i64,
    instance: InstanceId,
    /// Index of its host.
    host: usize,
}

/// Waits for somebody who works under a token above `after`, with all others ready beside it.
fn holder(site: &Site, after: i64) -> Result<Holder> {
    let found = RefCell::new(None);
    site.fleet.wait_within(LIMIT, &format!("somebody to work under a token above {after}"), |_| {
        let listing = site.runtime.block_on(site.store.list(&site.service.lease().prefix()))?;
        let shown = working(site, &listing)?;
        ensure!(shown.token > after, "{} works under token {}", shown.instance, shown.token);
        // What the store shows may be old: one that was away shows the holder of then until its leases have expired.
        ensure!(works(&lines(site)?, &shown), "{} has stopped, whatever the store shows", shown.instance);
        *found.borrow_mut() = Some(shown);
        Ok(true)
    })?;
    found.into_inner().context("somebody works")
}

fn working(site: &Site, listing: &Listing) -> Result<Holder> {
    let keys = site.service.lease();
    let mut view = LeaseView::default();
    for entry in &listing.entries {
        view.put(&keys, &entry.key, Some(raw(entry)))?;
    }
    let token = view.token()?.context("nobody has held yet")?;
    let owner = &view.holder.as_ref().and_then(|holder| holder.value.held()).context("the lease is free")?.owner;
    let active = view.candidates.get(&owner.instance).and_then(|seen| seen.value.active);
    ensure!(active == Some(token), "{} holds {token} and says that it works under {active:?}", owner.agent);
    let ready: Vec<_> =
        view.candidates.values().filter(|seen| seen.value.ready).map(|seen| &seen.value.owner.agent).collect();
    ensure!(ready.len() + 1 >= site.fleet.hosts.len(), "beside {} only {ready:?} are ready", owner.agent);
    let host =
        site.fleet.hosts.iter().position(|host| host.name == owner.agent.as_str()).context("a stranger holds")?;
    Ok(Holder { token: token.get(), instance: owner.instance.clone(), host })
}

/// Whether the holder's service itself says so: its last word is not that it has stopped.
fn works(lines: &[Line], holder: &Holder) -> bool {
    let its = |line: &&Line| line.instance == holder.instance && line.token.as_i64() == holder.token;
    lines.iter().rev().find(its).is_some_and(|line| !matches!(line.event, Event::Inactive { .. }))
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
    // Nobody began anew: the holder worked on all the time.
    let back = back.map_or(Duration::ZERO, |line| line.at_boot_ns.since(thawed));
    Ok(Row::span(format!("{name}: back at work after it returned"), back).beside_span("dark in all", dark))
}

fn leader(site: &Site) -> Result<u32> {
    let all = site.runtime.block_on(site.store.status());
    let leads =
        all.iter().position(|(_, status)| status.as_ref().is_ok_and(|status| status.leader == status.member_id));
    Ok(site.fleet.etcd[leads.context("no member leads")?].pid())
}

/// From the loss until another host's service works, by the services' own stamps.
fn host_lost(site: &mut Site) -> Result<Duration> {
    let before = holder(site, 0)?;
    let pids = instances(site, before.host);
    if pids.is_empty() {
        bail!("no process of the holder's service was found at {}", site.fleet.hosts[before.host].name);
    }
    let host = &mut site.fleet.hosts[before.host];
    let lost = BootNs::now();
    // The agent first, so that it cannot prove that its service has stopped.
    for process in [&mut host.agent, &mut host.gate].into_iter().flatten() {
        process.kill()?;
    }
    for pid in pids {
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    let gone = BootNs::now();
    // Only two are left, so not all can be ready.
    let end = Instant::now() + LIMIT;
    let begun = loop {
        if let Some(begun) = followed(&lines(site)?, &before, gone)? {
            break begun;
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

/// When the next one began, whose host was `gone` by then. If the lease moved before, no holder was lost.
fn followed(lines: &[Line], before: &Holder, gone: BootNs) -> Result<Option<BootNs>> {
    let next = lines.iter().find(|line| line.event == Event::Active && line.token.as_i64() > before.token);
    match next {
        Some(line) if line.at_boot_ns <= gone || line.instance == before.instance => {
            bail!("the lease moved on to token {} while its holder's host was being killed", line.token)
        }
        next => Ok(next.map(|line| line.at_boot_ns)),
    }
}

/// Says what `handover store setup --apply` would: that nobody but agents can end the holder's beat. Agents look for it
/// when they start.
fn guard(site: &mut Site) -> Result<()> {
    let guard = Guard { v: STORED_VERSION, at_ms: 0, rest: Rest::default() };
    let put = Txn { then: vec![Op::put(site.keys.guard(), encode(&guard)?)], ..Txn::default() };
    site.runtime.block_on(site.store.txn(&put))?;
    holder(site, 0)?;
    for host in 0..site.fleet.hosts.len() {
        site.fleet.hosts[host].agent.as_mut().context("an agent")?.kill()?;
        site.fleet.start_agent(host)?;
    }
    Ok(())
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
    use crate::billing::activity::Why;
    use crate::billing::contract::Token;

    fn line(at: u64, instance: u8, token: i64, event: Event) -> Line {
        Line {
            at_boot_ns: BootNs(at),
            instance: format!("{instance:016x}").parse().expect("id"),
            version: "1.0.0".parse().expect("version"),
            token: Token::try_from(token).expect("token"),
            event,
        }
    }

    #[test]
    fn a_holder_that_has_stopped_does_not_work_whatever_the_store_shows() {
        let holder = Holder { token: 5, instance: line(0, 1, 5, Event::Active).instance, host: 0 };
        let mut lines = vec![line(1, 1, 5, Event::Active), line(2, 1, 5, Event::UnitStart { tick: 1 })];
        assert!(works(&lines, &holder) && !works(&lines, &Holder { token: 6, ..holder.clone() }));
        lines.push(line(3, 1, 5, Event::Inactive { why: Why::Silence }));
        assert!(!works(&lines, &holder));
    }

    #[test]
    fn only_a_holder_that_began_after_the_loss_has_followed() {
        let before = Holder { token: 5, instance: line(0, 1, 5, Event::Active).instance, host: 0 };
        let lines = [line(1, 1, 5, Event::Active), line(20, 2, 9, Event::Active)];
        assert_eq!(followed(&lines, &before, BootNs(10)).expect("a loss"), Some(BootNs(20)));
        assert_eq!(followed(&lines[..1], &before, BootNs(10)).expect("a loss"), None);
        assert!(followed(&lines, &before, BootNs(30)).is_err(), "it moved before");
        assert!(followed(&[line(20, 1, 9, Event::Active)], &before, BootNs(10)).is_err(), "it was not killed");
    }

    #[test]
    fn messages_of_all_methods_are_summed_from_etcds_own_page() {
        let page = "# TYPE grpc_server_msg_received_total counter\n\
            grpc_server_msg_received_total{grpc_method=\"Range\"} 7\ngrpc_server_msg_received_total{grpc_method=\"Txn\"} 1.5e+01\n\
            grpc_server_msg_sent_total{grpc_method=\"Txn\"} 99\n";
        assert_eq!(calls(page), 22.0);
    }
}
