//! One schedule, from an empty world to the verdict: start, faults by the timetable, rest, shut down, judge.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use handover_proto::ids::InstanceId;
use nix::sys::signal::Signal;

use super::checkers::leaks::Inventory;
use super::evidence;
use super::inventory;
use super::judge::{self, Evidence, Outcome};
use super::nemesis::{Deed, Scene, Undo};
use super::plan::{Plan, Step};
use super::record::{Recorder, Watched};
use super::site::coordinators::Operator;
use super::site::{Site, VERSION, Wanted, wait_for, wait_within};
use super::stand_in::{self, Asking, StandIn};
use crate::billing::ledger::{Ledger, Writer};
use crate::clock::BootNs;
use crate::fleet::{Process, Spec};
use crate::load::{Load, LoadSpec};

/// Requests a second, over all gates.
const RATE: f64 = 30.0;
/// A request without an answer after this is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// A holder that has worked for this long is at rest.
const REST: Duration = Duration::from_secs(2);
/// Longest that the site may take to come to rest; beyond every bound of the darkness meter.
const RESTS: Duration = Duration::from_secs(45);
/// Longest that it may take to be gone.
const GONE: Duration = Duration::from_secs(15);

/// Longest that a lease may outlive its instance: two TTLs, the first of which a new leader of etcd begins anew.
const EXPIRES: Duration = Duration::from_secs(20);

/// What a schedule is run with.
#[derive(Debug, Clone)]
pub struct Order {
    /// What is done when.
    pub plan: Plan,
    /// Where everything goes.
    pub dir: PathBuf,
    /// The directory of etcd's programs.
    pub etcd: PathBuf,
    /// The directory of our own; `None`: beside this one.
    pub programs: Option<PathBuf>,
    /// How the service checks its fence; empty: as it should.
    pub check: String,
    /// How every service behaves.
    pub behaviour: String,
    /// More of every agent's `[lease]`.
    pub lease: String,
    /// Variables for agents and services: planted mistakes.
    pub env: Vec<(String, String)>,
}

/// A fault that is under way.
struct UnderWay {
    ends: Duration,
    deed: usize,
    undo: Undo,
}

/// Runs it.
///
/// # Errors
/// If the site does not come up, or something that was broken on purpose cannot be mended. That is no verdict.
pub fn run(order: &Order) -> Result<Outcome> {
    let plan = &order.plan;
    let wanted = Wanted {
        dir: order.dir.clone(),
        etcd: order.etcd.clone(),
        env: order.env.clone(),
        check: order.check.clone(),
        behaviour: order.behaviour.clone(),
        lease: order.lease.clone(),
        programs: order.programs.clone(),
        wires: plan.wires(),
        clocks: plan.clocks(),
        coordinators: plan.coordinators,
    };
    let mut site = Site::start(&wanted)?;
    let (env, service) = stand_in::keys()?;
    let lease = service.lease();
    let watched = Watched { prefix: env.prefix(), holder: lease.holder(), beat: lease.beat(), leader: env.leader() };
    let mut recorder = Recorder::start(site.etcd.endpoints(), &watched, &order.dir)?;
    let before = inventory::take(&site, &lease.prefix())?;
    make_tables(&site)?;
    site.start_hosts()?;
    recorder.ask(&site.hosts)?;
    let agents: Vec<String> = site.hosts.iter().map(|host| host.spot.name.clone()).collect();
    let asker = Asker::bring_up(&site, &agents)?;
    wait_for("the lease to be held and everybody to serve", || Ok(rests(&recorder, &agents, agents.len())))?;

    let mut spec = LoadSpec::new(site.hosts.iter().map(|host| host.gate_listen).collect(), RATE);
    spec.timeout = PATIENCE;
    let load_began = BootNs::now();
    let load = Load::start(spec)?;
    let asking = asker.ask_every(plan.hand_over_every)?;
    let deeds = suffer(plan, &mut Scene { site: &mut site, recorder: &recorder })?;
    let asked = asking.stop()?;
    let rested = come_to_rest(&recorder, &agents);
    let until = BootNs::now();
    let load = load.stop()?;
    let after = shut_down(&mut site, &recorder, &agents, &lease.prefix())?;
    let record = recorder.stop()?;
    let logs: Vec<PathBuf> = agents.iter().map(|agent| order.dir.join(format!("log/{agent}-agent.log"))).collect();
    let claims = evidence::claims(&logs.iter().map(PathBuf::as_path).collect::<Vec<&Path>>())?;
    let rested = rested.err().map(|error| format!("{error:#}"));
    let ledger = site.shared.ledger.parse().context("the ledger's address")?;
    judge::judge(&Evidence {
        plan,
        deeds: &deeds,
        record: &record,
        watched: &watched,
        claims: &claims,
        load: &load,
        load_began,
        patience: PATIENCE,
        ledger: &ledger,
        activity: &order.dir.join("activity.jsonl"),
        until,
        agents: &agents,
        before: &before,
        after: &after,
        asked,
        rested,
    })
}

/// Three services that make them at once wait for each other for longer than they may on a busy machine, and a version that
/// ends by itself is not brought up.
fn make_tables(site: &Site) -> Result<()> {
    let writer = Writer { instance: InstanceId::random(), version: VERSION.parse()? };
    Ledger::open(&site.shared.ledger.parse()?, writer, PATIENCE).map(drop).context("making the ledger's tables")
}

/// Who asks for hand-overs.
enum Asker {
    StandIn(StandIn),
    Operator(Operator),
}

impl Asker {
    /// Brings the version up on every host.
    fn bring_up(site: &Site, agents: &[String]) -> Result<Self> {
        let Some(coordinators) = &site.coordinators else {
            let stand_in = StandIn::new(&site.etcd.endpoints())?;
            stand_in.assign(agents, true)?;
            return Ok(Self::StandIn(stand_in));
        };
        let operator = coordinators.operator.clone();
        let wave = agents.len();
        let times = Spec { soak: "200ms", start_deadline: "60s", ..Spec::to(VERSION) };
        let spec = Spec { min_serving: wave, wave_size: wave, ..times };
        operator.bring_up(&spec.text(), wave)?;
        Ok(Self::Operator(operator))
    }

    fn ask_every(self, every: Duration) -> Result<Asking> {
        match self {
            Self::StandIn(stand_in) => stand_in.ask_every(every),
            Self::Operator(operator) => Asking::start(every, move || operator.hand_over()),
        }
    }
}

/// Whether somebody holds, and so many serve.
fn rests(recorder: &Recorder, agents: &[String], serving: usize) -> bool {
    let said: Vec<_> = agents.iter().filter_map(|agent| recorder.last_said(agent)).collect();
    let holds = said.iter().any(|said| said["lease"]["state"] == "holder");
    let ready = said.iter().filter(|said| said["slots"][0]["instance"]["ready"] == true).count();
    holds && ready >= serving
}

/// Begins and ends every fault by the timetable.
fn suffer(plan: &Plan, scene: &mut Scene<'_>) -> Result<Vec<Deed>> {
    let start = Instant::now();
    let mut deeds: Vec<Deed> = Vec::new();
    let mut coming: Vec<&Step> = plan.steps.iter().collect();
    let mut under_way: Vec<UnderWay> = Vec::new();
    loop {
        let next_begin = coming.first().map(|step| step.at);
        let next_end = under_way.iter().map(|fault| fault.ends).min();
        let Some(next) = next_begin.into_iter().chain(next_end).min() else { break };
        // The schedule is a timetable: this sleep waits for nothing else.
        std::thread::sleep(next.saturating_sub(start.elapsed()));
        let over = |fault: &UnderWay| fault.ends <= next;
        while let Some(index) = under_way.iter().position(over) {
            let fault = under_way.remove(index);
            scene.undo(&mut deeds[fault.deed], fault.undo)?;
        }
        if next_begin == Some(next) {
            let step = coming.remove(0);
            match scene.begin(step.nemesis) {
                Ok((deed, undo)) => {
                    deeds.push(deed);
                    under_way.push(UnderWay { ends: next + step.lasts, deed: deeds.len() - 1, undo });
                }
                // What is to be hit is away already, for an earlier fault's sake.
                Err(error) => deeds.push(Deed {
                    what: format!("{} {:?}", step.nemesis.number(), step.nemesis),
                    failed: Some(format!("{error:#}")),
                    ..Deed::default()
                }),
            }
        }
    }
    std::thread::sleep(plan.length.saturating_sub(start.elapsed()));
    Ok(deeds)
}

/// Waits until somebody has held for a while.
fn come_to_rest(recorder: &Recorder, agents: &[String]) -> Result<()> {
    let mut since: Option<Instant> = None;
    wait_within(RESTS, "the site to come to rest with a holder", || {
        since = rests(recorder, agents, 1).then(|| since.unwrap_or_else(Instant::now));
        Ok(since.is_some_and(|since| since.elapsed() >= REST))
    })
}

/// Ends services, agents and gates as an operator would, and looks what is left.
fn shut_down(site: &mut Site, recorder: &Recorder, agents: &[String], lease: &str) -> Result<Inventory> {
    for host in 0..site.hosts.len() {
        let ended = |process: Option<&mut Process>| process.is_none_or(Process::has_ended);
        if ended(site.hosts[host].agent.as_mut()) {
            site.start_agent(host)?;
        }
        if ended(site.hosts[host].gate.as_mut()) {
            let shared = site.shared.clone();
            site.hosts[host].start_gate(&shared)?;
        }
    }
    end_coordinators(site);
    StandIn::new(&site.etcd.endpoints())?.assign(agents, false)?;
    let gone = |agent: &String| {
        let said = recorder.last_said(agent).unwrap_or_default();
        said["slots"].as_array().is_some_and(|slots| slots.iter().all(|slot| slot["instance"].is_null()))
    };
    // Who is not gone is found by the inventory.
    let _late = wait_within(GONE, "every service to end", || Ok(agents.iter().all(gone)));
    // What could not be revoked, because the store was away, expires by itself; what an agent keeps alive does not.
    let _kept = wait_within(EXPIRES, "every lease to expire", || Ok(inventory::leased(site, lease)?.0.is_empty()));
    for host in &mut site.hosts {
        end([host.agent.as_mut(), host.gate.as_mut(), host.wire.as_mut()].into_iter().flatten().collect());
    }
    inventory::take(site, lease)
}

/// What they have ordered is done or is not; from here on nobody orders anything but us.
fn end_coordinators(site: &mut Site) {
    let members = site.coordinators.iter_mut().flat_map(|coordinators| coordinators.members.iter_mut());
    end(members.filter_map(|member| member.process.as_mut()).collect());
}

/// Ends them as a service manager would. Who does not end is found by the inventory.
fn end(mut processes: Vec<&mut Process>) {
    for process in &processes {
        // One that has ended already is what is wanted.
        let _ended = process.signal(Signal::SIGTERM);
    }
    for process in &mut processes {
        let end = Instant::now() + GONE;
        while !process.has_ended() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
