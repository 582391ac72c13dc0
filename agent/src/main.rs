//! `handover-agent`: the agent beside one service on one host, and its gate.

mod lease_command;
mod stage_command;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use handover_agent::check::{self, judge};
use handover_agent::gate::handover::given::Given;
use handover_agent::gate::server::Beginning;
use handover_agent::{report, run};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Gates readiness, drains connections and holds or releases the scheduler lease of one service on this host.
#[derive(Parser)]
#[command(name = "handover-agent", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Two processes run beside each service:
  handover-agent gate --config /etc/handover/billing.toml    # takes the clients' connections
  handover-agent run  --config /etc/handover/billing.toml    # starts, drains and stops instances

The agent may be killed, restarted and upgraded at any time: instances, gate and lease go on without it.
The gate is restarted and upgraded without losing a request by:
  handover-agent gate --config /etc/handover/billing.toml --reload
What is wrong with a config, or with this host, is said by (exit code 1: something does not work):
  handover-agent check --config /etc/handover/billing.toml

HANDOVER_LOG=debug (or handover_agent=debug,info) says more; HANDOVER_LOG_FORMAT=json for machines.";

#[derive(Subcommand)]
enum Command {
    /// Run the agent.
    Run(Options),
    /// Run the gate: the proxy in front of this host's instances.
    Gate(GateOptions),
    /// For the agent's own use: what it kills to try how long that takes.
    #[command(hide = true)]
    KillTarget {
        /// Have no child.
        #[arg(long)]
        leaf: bool,
    },
    /// Bring versions to this host ahead of time: fetch, verify, put in place, prune old ones.
    #[command(after_help = stage_command::EXAMPLES)]
    Stage {
        #[command(flatten)]
        config: Options,
        /// Which.
        #[arg(required = true)]
        versions: Vec<handover_proto::ids::Version>,
    },
    /// Check the config and this host: directories, ports, units, store, service; each with a verdict and a fix.
    Check(CheckOptions),
    /// The scheduler lease from the service's side, on this host.
    #[command(subcommand)]
    Lease(lease_command::Command),
}

#[derive(clap::Args)]
struct GateOptions {
    #[command(flatten)]
    config: Options,
    /// Take over from the gate that runs: its listener, its routes and its clients' next requests. No request is lost.
    #[arg(long)]
    replace: bool,
    /// Start a gate that replaces the one that runs, wait until it accepts clients, and end. For ExecReload= of its unit.
    #[arg(long, conflicts_with = "replace")]
    reload: bool,
    /// For --reload's own use.
    #[arg(long, hide = true, conflicts_with_all = ["replace", "reload"])]
    detach: bool,
}

#[derive(clap::Args)]
struct CheckOptions {
    #[command(flatten)]
    config: Options,
    /// One JSON object a line instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Options {
    /// The agent's config file.
    #[arg(long, env = "HANDOVER_AGENT_CONFIG")]
    config: PathBuf,
}

fn main() -> ExitCode {
    log();
    match go(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("handover-agent: {}", report::chain(error.as_ref()));
            if error.is::<run::NoGate>() { ExitCode::from(run::NoGate::EXIT_CODE) } else { ExitCode::FAILURE }
        }
    }
}

fn go(cli: Cli) -> Result<ExitCode> {
    if let Command::KillTarget { leaf } = &cli.command {
        handover_agent::kill_target::run(*leaf)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before anything else opens a descriptor.
    let given = match &cli.command {
        Command::Gate(_) => Given::of_environment(),
        _ => Given::default(),
    };
    // One thread: the data plane is a process of its own, and the lease keeper has its own thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    match cli.command {
        Command::Run(options) => runtime.block_on(run::run(run::read(&options.config)?))?,
        Command::Gate(GateOptions { config, detach: true, .. }) => {
            handover_agent::gate::reload::detach(&config.config).context("cannot start another gate")?;
        }
        Command::Gate(GateOptions { config, reload: true, .. }) => {
            let settings = run::read(&config.config)?.gate.ok_or(run::NoGate)?;
            println!("{}", runtime.block_on(handover_agent::gate::reload::reload(&config.config, &settings))?);
        }
        Command::Gate(GateOptions { config, replace, .. }) => {
            runtime.block_on(run::run_gate(&config.config, Beginning { given, replace }))?;
        }
        Command::KillTarget { .. } => {}
        Command::Stage { config, versions } => {
            runtime.block_on(stage_command::go(&run::read(&config.config)?, &versions))?;
        }
        Command::Check(options) => return runtime.block_on(self::check(&options)),
        Command::Lease(command) => return runtime.block_on(lease_command::go(command)),
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(options: &CheckOptions) -> Result<ExitCode> {
    let findings = check::check(&options.config.config).await;
    for finding in &findings {
        let line = if options.json { serde_json::to_string(finding)? } else { finding.to_string() };
        println!("{line}");
    }
    Ok(ExitCode::from(judge::exit_code(&findings)))
}

fn log() {
    let wanted = std::env::var("HANDOVER_LOG").unwrap_or_else(|_| "info".into());
    let targets: Targets = wanted.parse().unwrap_or_else(|error| {
        eprintln!("handover-agent: HANDOVER_LOG={wanted:?} is not a filter ({error}); logging at info");
        Targets::new().with_default(tracing::Level::INFO)
    });
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match std::env::var("HANDOVER_LOG_FORMAT").as_deref() {
        Ok("json") => registry.with(layer.json()).init(),
        _ => registry.with(layer.with_ansi(false)).init(),
    }
}
