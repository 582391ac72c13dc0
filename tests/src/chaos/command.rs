//! The command `chaos`: schedules one after the other, each in a world of its own, a line for each, and the sums.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use super::mistakes::{ALL, Mistake};
use super::plan::Plan;
use super::schedule::{self, Order};
use super::sums::Sums;
use super::{sandbox, wire};

/// Where a schedule leaves its verdict.
const VERDICT: &str = "verdict.json";

/// Faults against three etcd members, three agents with their services, and a database, checked by ten checkers.
#[derive(Debug, Clone, Parser)]
#[command(name = "chaos", args_conflicts_with_subcommands = true)]
pub struct Settings {
    #[command(subcommand)]
    inside: Option<Part>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Clone, Default, Args)]
struct Run {
    /// How many schedules.
    #[arg(long, default_value_t = 60)]
    schedules: u64,
    /// Length of each, in seconds; starting, coming to rest and shutting down take about as long again.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// The first schedule's seed; each next one has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which etcd: 3.4 as Debian 12 ships it, or 3.5 from .tools/etcd35.
    #[arg(long, default_value = "3.4")]
    etcd: String,
    /// A planted mistake: check=plain|key-share|outside|none, behaviour=TOML, lease=TOML, or NAME=VALUE for the environment of
    /// agents and services.
    #[arg(long = "plant", value_name = "MISTAKE")]
    planted: Vec<String>,
    /// The faults of this mistake's own schedule (see `chaos mistakes`) instead of the seed's.
    #[arg(long, value_name = "MISTAKE")]
    faults_of: Option<String>,
    /// Take the agent from this directory.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// How many at a time. More than one finds more, and is more often disturbed by the machine's own slowness.
    #[arg(long, default_value_t = 1)]
    parallel: usize,
    /// Keep the files of schedules that passed, too.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum Part {
    /// Plants mistakes one after the other, and sees each of them caught.
    Mistakes {
        /// Only this one.
        #[arg(long)]
        only: Option<String>,
        /// Schedules after which a mistake counts as not caught.
        #[arg(long, default_value_t = 3)]
        tries: u64,
        /// The directory of an agent that was built with `--features mutants`; without it the service's own mistakes.
        #[arg(long, value_name = "DIR")]
        mutants: Option<PathBuf>,
        /// Which etcd.
        #[arg(long, default_value = "3.4")]
        etcd: String,
    },
    /// One schedule, in the world that we are in.
    #[command(hide = true)]
    Inside {
        /// Where everything goes.
        #[arg(long)]
        dir: PathBuf,
        #[command(flatten)]
        run: Run,
    },
    /// A wire that can be bent.
    #[command(hide = true)]
    Wire {
        /// The file with its shape.
        #[arg(long)]
        shape: PathBuf,
        /// NEAR=FAR addresses.
        pairs: Vec<String>,
    },
}

/// Runs it: 0 if every schedule passed, 4 if a checker found something, 1 if one could not be run.
///
/// # Errors
/// If nothing can be run at all.
pub fn run(settings: &Settings) -> Result<ExitCode> {
    match &settings.inside {
        Some(Part::Inside { dir, run }) => inside(dir, run),
        Some(Part::Wire { shape, pairs }) => {
            let pair = |pair: &String| -> Result<(SocketAddr, SocketAddr)> {
                let (near, far) = pair.split_once('=').with_context(|| format!("{pair} is no NEAR=FAR"))?;
                Ok((near.parse()?, far.parse()?))
            };
            wire::run(pairs.iter().map(pair).collect::<Result<_>>()?, shape.clone())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(Part::Mistakes { only, tries, mutants, etcd }) => {
            mistakes(only.as_deref(), *tries, mutants.as_ref(), etcd)
        }
        None => outside(&settings.run),
    }
}

/// The directory of etcd's programs.
fn etcd(which: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let dir = match which {
        "3.4" => PathBuf::from("/usr/bin"),
        "3.5" => root.join(".tools/etcd35/usr/bin"),
        other => bail!("--etcd {other}: there are 3.4 and 3.5"),
    };
    if !dir.join("etcd").is_file() {
        bail!("no etcd in {}; tests/run --tools fetches it", dir.display());
    }
    Ok(dir)
}

fn inside(dir: &Path, run: &Run) -> Result<ExitCode> {
    let length = Duration::from_secs(run.seconds);
    let plan = match &run.faults_of {
        Some(name) => Mistake::named(name).with_context(|| format!("no mistake {name}"))?.plan(run.seed, length),
        None => Plan::of(run.seed, length),
    };
    let mut order = Order {
        plan,
        dir: dir.to_owned(),
        etcd: etcd(&run.etcd)?,
        programs: run.programs.clone(),
        check: String::new(),
        behaviour: String::new(),
        lease: String::new(),
        env: Vec::new(),
    };
    for mistake in &run.planted {
        let (name, value) = mistake.split_once('=').with_context(|| format!("--plant {mistake}: no NAME=VALUE"))?;
        match name {
            "behaviour" => value.clone_into(&mut order.behaviour),
            "lease" => value.clone_into(&mut order.lease),
            "check" => order.check = format!("#{value}"),
            _ => order.env.push((name.to_owned(), value.to_owned())),
        }
    }
    let outcome = schedule::run(&order)?;
    std::fs::write(dir.join(VERDICT), serde_json::to_vec_pretty(&outcome)?)?;
    Ok(ExitCode::SUCCESS)
}

fn outside(run: &Run) -> Result<ExitCode> {
    sandbox::possible()?;
    etcd(&run.etcd)?;
    let (sums, seeds) = (Mutex::new(Sums::default()), Mutex::new(run.seed..run.seed + run.schedules));
    let next = || seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| -> Result<()> {
        let worker = || -> Result<()> { next_all(next, |seed| one(seed, run, &sums)) };
        let workers: Vec<_> = (0..run.parallel.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
    sums.print(&format!("{} schedules of {} s on etcd {}", run.schedules, run.seconds, run.etcd));
    Ok(ExitCode::from(if sums.broken > 0 {
        1
    } else if sums.found > 0 {
        4
    } else {
        0
    }))
}

fn next_all(next: impl Fn() -> Option<u64>, mut each: impl FnMut(u64) -> Result<()>) -> Result<()> {
    while let Some(seed) = next() {
        each(seed)?;
    }
    Ok(())
}

fn one(seed: u64, run: &Run, sums: &Mutex<Sums>) -> Result<()> {
    let (dir, verdict) = in_a_world(seed, run)?;
    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    let clean = match &verdict {
        Some(verdict) => sums.add(verdict),
        None => {
            sums.broken += 1;
            println!("seed {seed}: NOT RUN");
            false
        }
    };
    if !clean {
        println!("    replay: cargo run --bin chaos -- --schedules 1 {}", words_of(seed, run).join(" "));
    }
    if !clean || run.keep {
        thin_out(dir.path());
        println!("    files:  {}", dir.keep().display());
    }
    Ok(())
}

/// What is kept is logs, records and configs: programs and databases are half a gigabyte a schedule.
fn thin_out(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let members = (1..=3).any(|member| name.starts_with(&format!("e{member}-")));
        if members || ["builds", "postgres"].contains(&name.as_str()) {
            // Only space is at stake.
            let _left = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs one schedule; its files, and its verdict if there is one.
fn in_a_world(seed: u64, run: &Run) -> Result<(tempfile::TempDir, Option<Value>)> {
    let dir = tempfile::Builder::new().prefix(&format!("handover-chaos-{seed}-")).tempdir()?;
    let mut words: Vec<String> = ["inside", "--dir", &dir.path().display().to_string()].map(str::to_owned).into();
    words.extend(words_of(seed, run));
    let status = sandbox::run(&words)?;
    let verdict = std::fs::read(dir.path().join(VERDICT)).ok().filter(|_| status.success());
    Ok((dir, verdict.and_then(|text| serde_json::from_slice(&text).ok())))
}

/// Plants each mistake until one of its checkers finds it; 4 if one is not caught.
fn mistakes(only: Option<&str>, tries: u64, mutants: Option<&PathBuf>, etcd: &str) -> Result<ExitCode> {
    sandbox::possible()?;
    let wanted = |mistake: &&Mistake| only.is_none_or(|only| only == mistake.name);
    let (mut caught, mut missed) = (0, 0);
    for mistake in ALL.iter().filter(wanted) {
        if mistake.is_agents() && mutants.is_none() {
            println!("{}: not planted, since no --mutants DIR names an agent that can make it", mistake.name);
            continue;
        }
        let run = Run {
            seconds: 20,
            etcd: etcd.to_owned(),
            planted: mistake.planted.iter().map(|planted| (*planted).to_owned()).collect(),
            faults_of: Some(mistake.name.to_owned()),
            programs: mutants.filter(|_| mistake.is_agents()).cloned(),
            ..Run::default()
        };
        let found = (1..=tries).find_map(|seed| catch(mistake, seed, &run).transpose()).transpose()?;
        match &found {
            Some((seed, found)) => println!("{}: caught in schedule {seed}: {found}", mistake.name),
            None => println!("{}: NOT CAUGHT in {tries} schedules", mistake.name),
        }
        if found.is_some() { caught += 1 } else { missed += 1 }
    }
    println!("\n{caught} mistakes caught, {missed} not");
    Ok(ExitCode::from(if missed > 0 { 4 } else { 0 }))
}

/// What the mistake's own checkers found first.
fn catch(mistake: &Mistake, seed: u64, run: &Run) -> Result<Option<(u64, String)>> {
    let (_dir, verdict) = in_a_world(seed, run)?;
    let verdict = verdict.with_context(|| format!("{}: no verdict", mistake.name))?;
    let mut checked = verdict["checked"].as_array().into_iter().flatten();
    let found = checked.find_map(|checked| {
        let name = checked["name"].as_str().filter(|name| mistake.checkers.contains(name))?;
        Some((seed, format!("{name}: {}", checked["found"][0].as_str()?)))
    });
    Ok(found)
}

fn words_of(seed: u64, run: &Run) -> Vec<String> {
    let mut words: Vec<String> =
        ["--seed", &seed.to_string(), "--seconds", &run.seconds.to_string(), "--etcd", &run.etcd]
            .map(str::to_owned)
            .into();
    words.extend(run.planted.iter().flat_map(|mistake| ["--plant".to_owned(), mistake.clone()]));
    words.extend(run.faults_of.iter().flat_map(|name| ["--faults-of".to_owned(), name.clone()]));
    words.extend(run.programs.iter().flat_map(|dir| ["--programs".to_owned(), dir.display().to_string()]));
    words
}
