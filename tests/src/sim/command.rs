//! The command `sim`: many seeds on every core, or one seed to look at.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use clap::Parser;

use super::mistake::Mistake;
use super::{Counts, Outcome, run};

/// Runs the lease's decision code in a simulated world.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// This seed alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints everything that happens.
    #[arg(long)]
    trace: bool,
    /// Plants this mistake (see `sim::mistake::ALL`; most need a build with `--features mutants`).
    #[arg(long)]
    mistake: Option<String>,
    /// Goes on after a violation.
    #[arg(long)]
    keep_going: bool,
}

/// The sum of many runs.
#[derive(Debug, Default)]
pub struct Sum {
    /// Runs.
    pub runs: u64,
    /// Those in which a rule was broken, by seed.
    pub broken: BTreeMap<u64, Outcome>,
    /// How often what happened, in all of them.
    pub counts: Counts,
    /// Of all, in microseconds.
    pub simulated_us: u64,
}

impl Sum {
    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.simulated_us += outcome.simulated_us;
        for (what, n) in &outcome.counts {
            *self.counts.entry(what).or_default() += n;
        }
        if outcome.violation.is_some() {
            self.broken.insert(outcome.seed, outcome);
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.simulated_us += other.simulated_us;
        for (what, n) in other.counts {
            *self.counts.entry(what).or_default() += n;
        }
        self.broken.extend(other.broken);
    }
}

/// Runs `seeds` seeds from `first` on, on every core; ends early at the first broken rule unless `keep_going`.
///
/// # Errors
/// If the mistake cannot be planted in this build.
pub fn many(first: u64, seeds: u64, mistake: Mistake, keep_going: bool) -> Result<Sum, String> {
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || -> Result<Sum, String> {
        let mut sum = Sum::default();
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                break;
            }
            let outcome = run(seed, mistake, false)?;
            if outcome.violation.is_some() && !keep_going {
                stop.store(true, Ordering::Relaxed);
            }
            sum.add(outcome);
        }
        Ok(sum)
    };
    let mut all = Sum::default();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            let sum = thread.join().map_err(|_| "a run panicked".to_owned())??;
            all.merge(sum);
            Ok(())
        })
    })
    .map(|()| all)
}

/// The command.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mistake = arguments.mistake.as_deref().map_or(Some(Mistake::NONE), Mistake::named);
    let Some(mistake) = mistake else {
        eprintln!("sim: there is no such mistake; known are: {}", names());
        return ExitCode::FAILURE;
    };
    let done = match arguments.seed {
        Some(seed) => one(seed, mistake, arguments.trace),
        None => all(&arguments, mistake),
    };
    done.unwrap_or_else(|error| {
        eprintln!("sim: {error}");
        ExitCode::FAILURE
    })
}

fn names() -> String {
    super::mistake::ALL.map(|(name, _)| name).join(", ")
}

fn one(seed: u64, mistake: Mistake, trace: bool) -> Result<ExitCode, String> {
    let outcome = run(seed, mistake, trace)?;
    println!("seed {seed}: {:.1} s simulated, trace {:016x}", outcome.simulated_us as f64 / 1e6, outcome.hash);
    match &outcome.violation {
        Some(broken) => {
            println!("{} at {:.6} s: {}", broken.check, broken.at as f64 / 1e6, broken.what);
            Ok(ExitCode::FAILURE)
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

fn all(arguments: &Arguments, mistake: Mistake) -> Result<ExitCode, String> {
    let begun = Instant::now();
    let sum = many(arguments.first, arguments.seeds, mistake, arguments.keep_going)?;
    let took = begun.elapsed().as_secs_f64();
    println!(
        "{} seeds, {:.0} h simulated, in {took:.1} s: {:.0} seeds/s",
        sum.runs,
        sum.simulated_us as f64 / 3.6e9,
        sum.runs as f64 / took
    );
    for (what, n) in &sum.counts {
        println!("  {what:<24} {n:>10}");
    }
    let mistaken = arguments.mistake.as_ref().map_or_else(String::new, |name| format!(" --mistake {name}"));
    for (seed, outcome) in sum.broken.iter().take(20) {
        if let Some(broken) = &outcome.violation {
            println!("seed {seed}: {} at {:.6} s: {}", broken.check, broken.at as f64 / 1e6, broken.what);
            println!("  again: cargo run --release -p handover-tests --bin sim -- --seed {seed} --trace{mistaken}");
        }
    }
    if !sum.broken.is_empty() {
        println!("{} of {} seeds broke a rule", sum.broken.len(), sum.runs);
    }
    Ok(if sum.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
