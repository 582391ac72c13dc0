//! The command `chaos`: schedules one after the other, each in a world of its own, a line for each, and the sums.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::Value;

use super::plan::Plan;
use super::schedule::{self, Order};
use super::{sandbox, wire};

/// Where a schedule leaves its verdict.
const VERDICT: &str = "verdict.json";

/// Faults against three etcd members, three agents with their services, and a database, checked by ten checkers.
#[derive(Debug, Clone, Parser)]
#[command(name = "chaos", args_conflicts_with_subcommands = true)]
pub struct Settings {
    #[command(subcommand)]
    inside: Option<Inside>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Clone, Args)]
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
    /// A planted mistake: check=plain|key-share|outside|none, or NAME=VALUE for agents' and services' environment.
    #[arg(long = "plant", value_name = "MISTAKE")]
    planted: Vec<String>,
    /// How many at a time. More than one finds more, and is more often disturbed by the machine's own slowness.
    #[arg(long, default_value_t = 1)]
    parallel: usize,
    /// Keep the files of schedules that passed, too.
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum Inside {
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
        Some(Inside::Inside { dir, run }) => inside(dir, run),
        Some(Inside::Wire { shape, pairs }) => {
            let pair = |pair: &String| -> Result<(SocketAddr, SocketAddr)> {
                let (near, far) = pair.split_once('=').with_context(|| format!("{pair} is no NEAR=FAR"))?;
                Ok((near.parse()?, far.parse()?))
            };
            wire::run(pairs.iter().map(pair).collect::<Result<_>>()?, shape.clone())?;
            Ok(ExitCode::SUCCESS)
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
    let plan = Plan::of(run.seed, Duration::from_secs(run.seconds));
    let mut order = Order { plan, dir: dir.to_owned(), etcd: etcd(&run.etcd)?, check: String::new(), env: Vec::new() };
    for mistake in &run.planted {
        let (name, value) = mistake.split_once('=').with_context(|| format!("--plant {mistake}: no NAME=VALUE"))?;
        match name {
            "check" => order.check = format!("#{value}"),
            _ => order.env.push((name.to_owned(), value.to_owned())),
        }
    }
    let outcome = schedule::run(&order)?;
    std::fs::write(dir.join(VERDICT), serde_json::to_vec_pretty(&outcome)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Sums over schedules.
#[derive(Debug, Default)]
struct Sums {
    passed: u64,
    found: u64,
    broken: u64,
    tokens: u64,
    ticks: u64,
    asked: u64,
    counted: BTreeMap<String, u64>,
    /// Per cause: times, longest and all in milliseconds.
    dark: BTreeMap<String, (u64, f64, f64)>,
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
    sums.print(run);
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
    let dir = tempfile::Builder::new().prefix(&format!("handover-chaos-{seed}-")).tempdir()?;
    let mut words: Vec<String> = ["inside", "--dir", &dir.path().display().to_string()].map(str::to_owned).into();
    words.extend(words_of(seed, run));
    let status = sandbox::run(&words)?;
    let verdict = std::fs::read(dir.path().join(VERDICT)).ok();
    let verdict: Option<Value> = verdict.and_then(|text| serde_json::from_slice(&text).ok());
    let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
    let clean = match &verdict {
        Some(verdict) => sums.add(verdict),
        None => {
            sums.broken += 1;
            println!("seed {seed}: NOT RUN ({status})");
            false
        }
    };
    if !clean {
        println!("    replay: cargo run --bin chaos -- --schedules 1 {}", words_of(seed, run).join(" "));
    }
    if !clean || run.keep {
        println!("    files:  {}", dir.keep().display());
    }
    Ok(())
}

fn words_of(seed: u64, run: &Run) -> Vec<String> {
    let mut words: Vec<String> =
        ["--seed", &seed.to_string(), "--seconds", &run.seconds.to_string(), "--etcd", &run.etcd]
            .map(str::to_owned)
            .into();
    words.extend(run.planted.iter().flat_map(|mistake| ["--plant".to_owned(), mistake.clone()]));
    words
}

impl Sums {
    /// Adds a verdict and prints its line; whether it is clean.
    fn add(&mut self, verdict: &Value) -> bool {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        self.tokens += number(&verdict["tokens"]);
        self.ticks += number(&verdict["ticks"]);
        self.asked += number(&verdict["asked"]);
        let mut found = Vec::new();
        for checked in verdict["checked"].as_array().into_iter().flatten() {
            let name = checked["name"].as_str().unwrap_or_default();
            for counted in checked["counted"].as_array().into_iter().flatten() {
                let what = format!("{name}: {}", counted[0].as_str().unwrap_or_default());
                *self.counted.entry(what).or_default() += number(&counted[1]);
            }
            found.extend(
                checked["found"].as_array().into_iter().flatten().map(|found| (name.to_owned(), found.clone())),
            );
        }
        let (mut longest, mut total) = (0.0, 0.0);
        for (cause, dark) in verdict["dark"].as_object().into_iter().flatten() {
            let ms = |value: &Value| value.as_f64().unwrap_or_default();
            let sum = self.dark.entry(cause.clone()).or_default();
            *sum = (sum.0 + number(&dark["times"]), sum.1.max(ms(&dark["longest_ms"])), sum.2 + ms(&dark["total_ms"]));
            longest = ms(&dark["longest_ms"]).max(longest);
            total += ms(&dark["total_ms"]);
        }
        let deeds = verdict["deeds"].as_array().cloned().unwrap_or_default();
        let deed = |deed: &Value| {
            let what = deed["what"].as_str().unwrap_or_default().to_owned();
            deed["failed"].as_str().map_or_else(|| what.clone(), |why| format!("({what}: not done, {why})"))
        };
        let deeds: Vec<_> = deeds.iter().map(deed).collect();
        println!(
            "seed {}: {} | {} tokens, {} ticks, dark {longest:.0} ms longest, {total:.0} in all | {}",
            verdict["seed"],
            if found.is_empty() { "ok" } else { "FOUND" },
            verdict["tokens"],
            verdict["ticks"],
            deeds.join("; ")
        );
        for (checker, found) in &found {
            println!("    {checker}: {}", found.as_str().unwrap_or_default());
        }
        if found.is_empty() {
            self.passed += 1
        } else {
            self.found += 1
        }
        found.is_empty()
    }

    fn print(&self, run: &Run) {
        println!(
            "\n{} schedules of {} s on etcd {}: {} clean, {} with findings, {} not run",
            run.schedules, run.seconds, run.etcd, self.passed, self.found, self.broken
        );
        println!("{} tokens, {} ticks, {} hand-overs asked for", self.tokens, self.ticks, self.asked);
        println!("\ndarkness per cause: times, longest ms, all ms");
        for (cause, (times, longest, total)) in &self.dark {
            println!("  {cause}: {times}, {longest:.0}, {total:.0}");
        }
        println!("\nwhat the checkers looked at");
        for (what, count) in &self.counted {
            println!("  {what}: {count}");
        }
    }
}
