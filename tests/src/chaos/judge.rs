//! All ten checkers over the evidence of one schedule.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::bounds;
use super::checkers::darkness::{Dark, Fault};
use super::checkers::leaks::Inventory;
use super::checkers::loss::Excuse;
use super::checkers::register::{Claim, Keys, LIMIT};
use super::checkers::single_holder::Pause;
use super::checkers::{
    Checked, Window, blockers, darkness, fence, floor, leaks, loss, ops, register, single_holder, ticks,
};
use super::evidence;
use super::nemesis::Deed;
use super::plan::Plan;
use super::record::{Record, Watched};
use crate::billing::activity::Line;
use crate::billing::ledger::LedgerAt;
use crate::clock::BootNs;
use crate::load::tally::LoadReceipt;
use crate::receipt::holders::HolderReport;
use crate::receipt::rows::{self, LedgerRows};
use crate::receipt::writes;

/// A machine that lets a sleeper that is due, or a few bytes to the disk, wait for longer cannot be held to times.
const TOO_SLOW: Duration = Duration::from_millis(300);
/// Checkers whose findings are about times. What they find on a machine that is too slow is told, and is no verdict; the
/// others judge order and content, and always count.
const TIMED: [&str; 4] = ["darkness", "floor", "loss", "blockers"];

/// No host is taken out of traffic on purpose in these schedules.
const FLOOR: usize = 3;

/// What a schedule left behind.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What was to be done.
    pub plan: &'a Plan,
    /// What was done.
    pub deeds: &'a [Deed],
    /// What was recorded.
    pub record: &'a Record,
    /// Which keys.
    pub watched: &'a Watched,
    /// What agents were answered.
    pub claims: &'a [Claim],
    /// What clients saw.
    pub load: &'a LoadReceipt,
    /// Since when.
    pub load_began: BootNs,
    /// How long a request may take.
    pub patience: Duration,
    /// The database.
    pub ledger: &'a LedgerAt,
    /// The services' own log.
    pub activity: &'a Path,
    /// The end of what is judged.
    pub until: BootNs,
    /// Names of the hosts, in the order of the load's gates.
    pub agents: &'a [String],
    /// What was there before.
    pub before: &'a Inventory,
    /// What is there after.
    pub after: &'a Inventory,
    /// Hand-overs that were asked for.
    pub asked: u64,
    /// Why the site did not come to rest; `None`: it did.
    pub rested: Option<String>,
}

/// The verdict over a schedule.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What was done.
    pub deeds: Vec<Deed>,
    /// What each checker says.
    pub checked: Vec<Checked>,
    /// Times in which nobody could start units, per cause.
    pub dark: BTreeMap<String, Dark>,
    /// Times without effects in the database, per cause; those of less than some periods do not show.
    pub idle: BTreeMap<String, Dark>,
    /// Turns: tokens that were installed.
    pub tokens: u64,
    /// Ticks that were charged.
    pub ticks: u64,
    /// Hand-overs that were asked for.
    pub asked: u64,
    /// How long the machine let somebody wait at worst, in milliseconds.
    pub waited_ms: u128,
    /// What was found about times on a machine that was too slow for that.
    pub unjudged: Vec<String>,
}

impl Outcome {
    /// Every finding, with its checker.
    pub fn found(&self) -> impl Iterator<Item = (&'static str, &String)> {
        self.checked.iter().flat_map(|checked| checked.found.iter().map(move |found| (checked.name, found)))
    }
}

/// Judges.
///
/// # Errors
/// If the evidence cannot be read: no evidence is not a pass.
pub fn judge(evidence: &Evidence<'_>) -> Result<Outcome> {
    let Evidence { deeds, record, watched, claims, load, until, .. } = evidence;
    let ledger = rows::ledger(evidence.ledger)?;
    let lines = rows::activity(&[evidence.activity])?;
    let by_hand: Vec<i64> = deeds.iter().flat_map(|deed| deed.by_hand.iter().copied()).collect();

    let (single, holders) = single_holder::check(&lines, &pauses(deeds));
    let (tick, tick_report) = ticks::check(&ledger.commits, ledger.schedule, *until, None);
    let (mut dark, table, idle) = darkness(&holders, &ledger, &faults(deeds), *until);
    dark.found.extend(evidence.rested.clone());
    let struck = at_hosts(deeds, |deed| &deed.hosts);
    let silent = at_hosts(deeds, |deed| &deed.silent);
    let began = evidence.load_began;
    let said: Vec<_> = record.said.iter().filter(|said| began <= said.at && said.at <= *until).cloned().collect();
    let written = writes::check(load, &ledger.payments);
    let excuses = excuses(deeds, evidence.agents);
    let fence = fence::check(&ledger.commits);
    let tokens = fence.counted.first().map_or(0, |(_, installs)| *installs);
    let mut checked = vec![
        single,
        fence,
        tick,
        registers(record, watched, &by_hand, claims),
        dark,
        floor::check(&evidence::floor(&said), evidence.agents.len(), FLOOR, &struck, &silent),
        loss::check(load, &written, evidence.load_began, evidence.patience, &excuses),
        ops::check(&story(record, watched, &by_hand, &lines)),
        blockers::check(&evidence::blockers(&said)),
        leaks::check(evidence.before, evidence.after),
    ];
    let unjudged = if record.waited > TOO_SLOW { set_aside(&mut checked) } else { Vec::new() };
    Ok(Outcome {
        seed: evidence.plan.seed,
        deeds: deeds.to_vec(),
        checked,
        dark: table,
        idle,
        tokens,
        ticks: tick_report.charged,
        asked: evidence.asked,
        waited_ms: record.waited.as_millis(),
        unjudged,
    })
}

fn story(record: &Record, watched: &Watched, by_hand: &[i64], lines: &[Line]) -> ops::Story {
    let (decisions, records, reigns) = evidence::reigns(record, watched);
    let (turns, works) = (evidence::turns(record, watched, by_hand), evidence::works(record, watched, lines));
    ops::Story { turns, records, decisions, works, reigns, lost: evidence::lost(record, watched) }
}

fn set_aside(checked: &mut [Checked]) -> Vec<String> {
    let mut aside = Vec::new();
    for checked in checked.iter_mut().filter(|checked| TIMED.contains(&checked.name)) {
        // A write that is lost is lost at any speed.
        let timed = |found: &String| checked.name != "loss" || found.contains(loss::NO_FAULT);
        let (timed, lasting): (Vec<_>, Vec<_>) = std::mem::take(&mut checked.found).into_iter().partition(timed);
        checked.found = lasting;
        aside.extend(timed.into_iter().map(|found| format!("{}: {found}", checked.name)));
    }
    aside
}

type Table = BTreeMap<String, Dark>;

/// By rights and by effects. What agents did while the site was being shut down is no darkness.
fn darkness(holders: &HolderReport, ledger: &LedgerRows, faults: &[Fault], until: BootNs) -> (Checked, Table, Table) {
    let before = |mut lights: Vec<Window>| {
        lights.retain(|light| light.from <= until);
        lights
    };
    let rights = before(darkness::by_rights(&holders.intervals));
    let period = ledger.schedule.map_or(Duration::ZERO, |schedule| schedule.period);
    let effects = before(darkness::by_effects(&ledger.commits, period));
    let (mut dark, table) = darkness::check(&rights, faults, until);
    let (idle, idle_table) = darkness::check(&effects, faults, until);
    dark.found.extend(idle.found.into_iter().map(|found| format!("without effects: {found}")));
    (dark, table, idle_table)
}

/// One register per life of the cluster.
fn registers(record: &Record, watched: &Watched, by_hand: &[i64], claims: &[Claim]) -> Checked {
    let mut sum = Checked::new("register");
    let mut start = Keys::default();
    for (number, life) in record.lives.iter().enumerate() {
        if number > 0 {
            start = keys_at(record, number - 1, life.after, watched);
        }
        // What was answered in one life is not in the history of another.
        let claims = if record.lives.len() == 1 { claims } else { &[] };
        let history = evidence::register(life, start, watched, by_hand, claims);
        let checked = register::check(&history, start, LIMIT);
        for (what, count) in checked.counted {
            match sum.counted.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum += count,
                None => sum.counted.push((what, count)),
            }
        }
        sum.found.extend(checked.found);
    }
    sum
}

/// Both keys as a snapshot of that revision has them.
fn keys_at(record: &Record, life: usize, revision: i64, watched: &Watched) -> Keys {
    let mut early = record.lives[life].clone();
    early.changes.retain(|at, _| *at <= revision);
    let history = evidence::register(&early, Keys::default(), watched, &[], &[]);
    history.written.last().map(|written| written.keys).unwrap_or_default()
}

fn done(deeds: &[Deed]) -> impl Iterator<Item = (&Deed, &Window)> {
    deeds.iter().filter(|deed| deed.failed.is_none()).filter_map(|deed| Some((deed, deed.window.as_ref()?)))
}

fn pauses(deeds: &[Deed]) -> Vec<Pause> {
    let pause = |(deed, window): (&Deed, &Window)| -> Vec<Pause> {
        let more = if deed.lies { bounds::LIE } else { Duration::ZERO };
        let window = Window { from: window.from, to: window.to.after(more) };
        deed.paused.iter().map(|instance| Pause { instance: instance.clone(), window: window.clone() }).collect()
    };
    done(deeds).flat_map(pause).collect()
}

fn faults(deeds: &[Deed]) -> Vec<Fault> {
    let fault = |(deed, window): (&Deed, &Window)| Fault {
        cause: deed.cause.clone(),
        window: window.clone(),
        after: deed.after,
    };
    done(deeds).map(fault).collect()
}

fn at_hosts(deeds: &[Deed], which: fn(&Deed) -> &Vec<String>) -> Vec<(String, Window)> {
    let hosts = |(deed, window): (&Deed, &Window)| -> Vec<(String, Window)> {
        let window = Window { from: window.from, to: window.to.after(deed.traffic_after) };
        which(deed).iter().map(|host| (host.clone(), window.clone())).collect()
    };
    done(deeds).flat_map(hosts).collect()
}

fn excuses(deeds: &[Deed], agents: &[String]) -> Vec<Excuse> {
    let excuse = |(deed, window): (&Deed, &Window)| -> Vec<Excuse> {
        let window = Window { from: window.from, to: window.to.after(deed.traffic_after) };
        let gates = deed.hosts.iter().filter_map(|host| agents.iter().position(|agent| agent == host));
        gates.map(|gate| Excuse { step: deed.what.clone(), gate: Some(gate), window: window.clone() }).collect()
    };
    done(deeds).flat_map(excuse).collect()
}
