//! The demo: a fleet is brought up, upgraded under load, and saved from a version that goes bad; then the receipt.
//!
//! The receipt is counted by the load generator and by the billing ledger, not by the system that it judges.

use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::clock::BootNs;
use crate::fleet::{self, Fleet, Options, Spec};
use crate::load::request::Mix;
use crate::load::{Load, LoadSpec};
use crate::receipt::verdict::Expect;
use crate::receipt::{Evidence, Receipt};

/// Requests a second over all gates: enough that a gap of 10 ms meets several, little enough for two cores.
const RATE_PER_S: f64 = 300.0;
/// A steady phase, to compare with.
const STEADY: Duration = Duration::from_secs(4);
/// The lease is only handed over as planned here; a second without a holder would be a failure, even on a busy machine.
const DARK: Duration = Duration::from_secs(2);
/// The exit code of a rollout that was rolled back (`DESIGN.md` §12).
const ROLLED_BACK: i32 = 3;

/// Upgrade a running fleet on this machine, and watch: three hosts, a load, a good version and a bad one.
#[derive(Debug, clap::Parser)]
#[command(name = "demo")]
pub struct Settings {
    /// How many hosts, each with an agent, a gate and the demo service.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub hosts: u8,
    /// Leave everything running at the end, and print commands to play with; Ctrl-C ends it.
    #[arg(long)]
    pub keep: bool,
    /// Print the receipt as one JSON object, and nothing else, to standard output.
    #[arg(long)]
    pub json: bool,
    /// Take the programs as they are, without asking cargo to build them first.
    #[arg(long)]
    pub no_build: bool,
}

/// Runs the demo. The exit code says whether the receipt holds.
///
/// # Errors
/// If something could not be started, or a rollout ended otherwise than it should.
pub fn run(settings: &Settings) -> Result<ExitCode> {
    if !settings.no_build {
        fleet::build()?;
    }
    let demo = Demo { json: settings.json };
    let hosts = usize::from(settings.hosts);
    demo.say(&format!("1. {hosts} hosts on loopback: a coordinator with its store, and per host a gate and an agent"));
    let mut fleet = Fleet::start(Options { hosts, ..Options::default() })?;
    fleet.install("1.0.0", "")?;
    fleet.install("1.1.0", "")?;
    fleet.install("1.2.0", "bad-after-requests = 150")?;
    demo.roll(&fleet, &spec("1.0.0", hosts), 0, "2. Bring-up: every host starts billing 1.0.0")?;

    demo.say(&format!("3. Load: {RATE_PER_S:.0} requests a second through all gates, one in five a write"));
    let load = Load::start(LoadSpec {
        mix: Mix { write_share: 0.2, slow_share: 0.01, slow: Duration::from_millis(800) },
        ..LoadSpec::new(fleet.gates(), RATE_PER_S)
    })?;
    load.mark("steady");
    std::thread::sleep(STEADY);
    load.mark("upgrade");
    demo.roll(&fleet, &spec("1.1.0", hosts), 0, "4. Upgrade to 1.1.0 under this load, the lease handed over once")?;
    load.mark("steady-again");
    std::thread::sleep(STEADY / 2);
    load.mark("bad-version");
    let what = "5. 1.2.0 answers 500 after 150 requests, though it says that it is ready";
    demo.roll(&fleet, &spec("1.2.0", hosts), ROLLED_BACK, what)?;
    load.mark("after");
    std::thread::sleep(STEADY / 4);
    let receipt = receipt(&fleet, load)?;
    demo.show(&receipt)?;
    if settings.keep {
        keep(&mut fleet)?;
    }
    Ok(receipt.verdict.exit_code())
}

fn spec(version: &str, hosts: usize) -> Spec {
    Spec {
        min_serving: hosts.saturating_sub(1).max(1),
        step_soak: "500ms",
        soak: "2s",
        wave_size: hosts.div_ceil(3),
        ..Spec::to(version)
    }
}

fn receipt(fleet: &Fleet, load: Load) -> Result<Receipt> {
    let until = BootNs::now();
    let load = load.stop()?;
    let evidence = Evidence { ledger: fleet.ledger(), activity: vec![fleet.activity()], until };
    let expect = Expect { service_faults: true, longest_dark: Some(DARK), ..Expect::default() };
    Ok(Receipt::draw_up(load, &evidence, &expect)?)
}

struct Demo {
    json: bool,
}

impl Demo {
    fn say(&self, text: &str) {
        if self.json { eprintln!("{text}") } else { println!("\n{text}") }
    }

    /// Runs `handover rollout start` as its user would, on our terminal.
    fn roll(&self, fleet: &Fleet, spec: &Spec, expected: i32, what: &str) -> Result<()> {
        self.say(what);
        let file = fleet.cli().write(spec)?;
        let words = fleet.cli().words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--timeout", "60s", "rollout", "start"]).arg(&file).stdin(Stdio::null());
        if self.json {
            command.stdout(Stdio::null());
        }
        let began = Instant::now();
        let status = command.status().context("cannot run handover")?;
        if status.code() != Some(expected) {
            bail!(
                "the rollout to {} ended with {status} instead of exit code {expected}; its logs are in {}",
                spec.version,
                fleet.dir().join("log").display()
            );
        }
        self.say(&format!("   took {:.1} s, exit code {expected}", began.elapsed().as_secs_f64()));
        Ok(())
    }

    fn show(&self, receipt: &Receipt) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string(receipt)?);
        } else {
            println!("\n{receipt}");
        }
        Ok(())
    }
}

fn keep(fleet: &mut Fleet) -> Result<()> {
    let handover = fleet.cli().words().join(" ");
    eprintln!("\nEverything goes on running in {}. To play with:", fleet.dir().display());
    eprintln!("  {handover} fleet");
    eprintln!("  {handover} lease show");
    eprintln!("  {handover} why");
    eprintln!("  {handover} rollout history");
    eprintln!("  {handover} rollout start {}", fleet.dir().join("1.0.0.toml").display());
    for host in &fleet.hosts {
        eprintln!("  curl http://{}/balance/1    curl http://{}/ready", host.gate_listen, host.operations);
    }
    eprintln!("Ctrl-C ends it.");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::signal::ctrl_c())?;
    Ok(())
}
