//! Explores a configuration of the lease's model, or prints the run that a planted mistake leads to.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use handover_model::configs::{self, Config};
use handover_model::mistake::Mistake;
use handover_model::rules::Rules;
use handover_model::tale;
use stateright::{Checker, Model};

/// The scheduler lease's protocol, explored to exhaustion.
#[derive(Debug, Parser)]
#[command(name = "handover-model")]
struct Args {
    /// Plant this mistake, and print the shortest run that breaks its invariant.
    #[arg(long, conflicts_with = "config")]
    mistake: Option<Mistake>,
    /// Explore this configuration only; without it, all of them.
    #[arg(long)]
    config: Option<String>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(mistake) = args.mistake {
        return show(mistake);
    }
    let wanted = |config: &&&Config| args.config.as_ref().is_none_or(|name| name == config.name);
    let chosen: Vec<&Config> = configs::ALL.iter().filter(wanted).copied().collect();
    if chosen.is_empty() {
        let names: Vec<_> = configs::ALL.iter().map(|config| config.name).collect();
        eprintln!("there is no such configuration; there are: {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let sound = chosen.into_iter().map(|config| explore(config, args.threads)).filter(|sound| !sound).count() == 0;
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line with the count; what is broken is told, what is not reached is named.
fn explore(config: &Config, threads: usize) -> bool {
    let (rules, start) = (Rules::correct(config), Instant::now());
    let checker = rules.clone().checker().threads(threads).spawn_bfs().join();
    println!("{:17} {:>9} states in {:.1} s", config.name, checker.unique_state_count(), start.elapsed().as_secs_f64());
    let found = checker.discoveries();
    let mut sound = true;
    for invariant in &rules.checked {
        if let Some(path) = found.get(invariant.name()) {
            sound = false;
            println!("{} is broken:\n{}", invariant.name(), tale::tell(&rules, &path.clone().into_actions()));
        }
    }
    for reach in rules.reached.iter().filter(|reach| !found.contains_key(reach.name())) {
        sound = false;
        println!("no run reaches this: {}", reach.name());
    }
    sound
}

fn show(mistake: Mistake) -> ExitCode {
    let rules = Rules::mistaken(mistake);
    let checker = rules.clone().checker().threads(1).spawn_bfs().join();
    let Some(path) = checker.discovery(mistake.breaks().name()) else {
        eprintln!("{} broke nothing in {} states", mistake.name(), checker.unique_state_count());
        return ExitCode::FAILURE;
    };
    println!("{} breaks {:?}: {}\n", mistake.name(), mistake.breaks(), mistake.breaks().name());
    print!("{}", tale::tell(&rules, &path.into_actions()));
    ExitCode::SUCCESS
}
