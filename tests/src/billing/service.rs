//! Billing as a process: opens everything, listens, and ends in order on SIGTERM.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::billing::accept;
use crate::billing::activity::Activity;
use crate::billing::desk::Desk;
use crate::billing::faults::{self, Watched};
use crate::billing::http::{Billing, History};
use crate::billing::ledger::{Ledger, Writer};
use crate::billing::notify;
use crate::billing::pull::{Agent, while_holding};
use crate::billing::scheduler::{Pace, Scheduler, View};
use crate::billing::settings::Settings;
use crate::billing::traffic::Closing;
use crate::billing::traffic::jobs::Jobs;
use crate::clock::ClockName;

/// The exit code of a crash that was asked for.
const CRASH: u8 = 3;

/// Runs billing until SIGTERM. Exit code 0: every request that was in flight has its answer, and no unit runs.
///
/// # Errors
/// When something cannot be opened, or the scheduler cannot record what it does.
pub fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let (faults, _watch) = faults::watch(settings.faults.clone(), settings.behaviour.clone())?;
    if faults.now().crash_at_start {
        tracing::error!("crashing, as the fault crash-at-start asks");
        return Ok(ExitCode::from(CRASH));
    }
    // Before there is a runtime on this thread: a database client may block on one of its own.
    let writer = Writer { instance: settings.instance.clone(), version: settings.version.clone() };
    let desk = Desk::open(&settings.ledger, &writer)?;
    let ledger = Ledger::open(&settings.ledger, writer, pace(&settings).statement)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(serve(settings, faults, desk, ledger))?;
    Ok(ExitCode::SUCCESS)
}

fn pace(settings: &Settings) -> Pace {
    Pace {
        period: settings.tick,
        c_unit: settings.c_unit,
        progress: settings.progress.unwrap_or(settings.c_unit / 2),
        // A unit's own work comes on top.
        statement: settings.c_unit.mul_f64(0.6),
    }
}

async fn serve(
    settings: Settings,
    faults: Watched,
    (desk, desk_threads): (Desk, [JoinHandle<()>; 2]),
    ledger: Ledger,
) -> anyhow::Result<()> {
    let (inbox, messages) = channel();
    let (view_sender, view) = watch::channel(View::default());
    let pace = pace(&settings);
    let activity = Activity::open(settings.activity.as_deref(), settings.instance.clone(), settings.version.clone())
        .context("opening the activity file")?;
    let scheduler = Scheduler::new(ledger, activity, faults.clone(), pace, view_sender);
    let (ended, scheduler_ended) = oneshot::channel();
    let scheduler = std::thread::spawn(move || {
        // Nobody listens any more only when the service is ending anyway.
        let _ = ended.send(scheduler.run(&messages));
    });

    let clock = ClockName::ours().context("reading the boot id")?;
    let agent = Agent { socket: settings.lease_socket.clone(), instance: settings.instance.clone(), clock };
    let pulls = tokio::spawn(while_holding(agent.clone(), view.clone(), inbox.clone()));
    // Before the first line on standard output: whoever has read it may already send SIGTERM.
    let sigterm = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let listener = TcpListener::bind((settings.address, settings.port))
        .await
        .with_context(|| format!("listening on {}:{}", settings.address, settings.port))?;
    say_where(&listener)?;
    notify::begin(faults.clone()).context("telling systemd that we are up")?;
    let (version, scheduler_inbox) = (settings.version.clone(), inbox.clone());
    let history = History::default();
    let (closing, told) = watch::channel(false);
    let billing = Arc::new(Billing {
        version,
        agent,
        desk,
        scheduler: scheduler_inbox,
        view,
        pace,
        faults: faults.clone(),
        history,
        jobs: Jobs::default(),
        finish_jobs: settings.finish_jobs,
        closing: Closing::new(told),
    });
    accept::until_told(listener, billing, closing, sigterm, &faults, scheduler_ended).await?;

    pulls.abort();
    for thread in desk_threads.into_iter().chain([scheduler]) {
        thread.join().map_err(|_| anyhow::anyhow!("a thread of the service panicked"))?;
    }
    Ok(())
}

fn say_where(listener: &TcpListener) -> anyhow::Result<()> {
    let address = listener.local_addr().context("reading our own address")?;
    let mut out = std::io::stdout();
    writeln!(out, "listening on {address}").and_then(|()| out.flush()).context("writing to standard output")
}
