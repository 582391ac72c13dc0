//! `handover`: the coordinator and the command line.

use std::process::ExitCode;

use clap::Parser as _;
use handover::cause::chain;
use handover::cli::args::{Args, Command, Store};
use handover::cli::outcome::Outcome;
use handover::{cli, telemetry};

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    // A command's own words are its answer; the daemons' logs are theirs.
    let level = if matches!(args.command, Command::Serve(_) | Command::Store(Store { command: None, .. })) {
        "info"
    } else {
        "warn"
    };
    if let Err(error) = telemetry::start(level) {
        eprintln!("handover: HANDOVER_LOG is not a filter like \"info,handover=debug\": {error}");
        return ExitCode::from(Outcome::Error.code());
    }
    match run(args) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            eprintln!("handover: {}", chain(error.as_ref()));
            let outcome = error.downcast_ref::<cli::outcome::CliError>().map_or(Outcome::Error, |e| e.outcome());
            ExitCode::from(outcome.code())
        }
    }
}

fn run(args: Args) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(cli::run(args))?)
}

/// Clap would exit with 2, which means "the plan has changes" here.
fn usage(error: &clap::Error) -> ExitCode {
    let outcome = if error.use_stderr() { Outcome::Error } else { Outcome::Done };
    match error.print() {
        Ok(()) => ExitCode::from(outcome.code()),
        Err(_) => ExitCode::from(Outcome::Error.code()),
    }
}
