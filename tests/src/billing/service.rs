//! Billing as a process: opens everything, listens, and ends in order on SIGTERM.

use std::convert::Infallible;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::billing::activity::Activity;
use crate::billing::desk::Desk;
use crate::billing::faults::{self, Watched};
use crate::billing::http::{Billing, History};
use crate::billing::ledger::{Ledger, Writer};
use crate::billing::pull::{Agent, while_holding};
use crate::billing::scheduler::{Message, Pace, Scheduler, View};
use crate::billing::settings::Settings;
use crate::clock::ClockName;

/// The exit code of a crash that was asked for.
const CRASH: u8 = 3;
/// A breath after an accept that failed, so that a lack of descriptors does not become a busy loop.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

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
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port))
        .await
        .with_context(|| format!("listening on 127.0.0.1:{}", settings.port))?;
    say_where(&listener)?;
    let (version, scheduler_inbox) = (settings.version.clone(), inbox.clone());
    let history = History::default();
    let billing = Arc::new(Billing {
        version,
        agent,
        desk,
        scheduler: scheduler_inbox,
        view,
        pace,
        faults: faults.clone(),
        history,
    });
    accept_until_told(listener, billing, sigterm, &faults, scheduler_ended).await?;

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

/// Accepts until SIGTERM, then lets every connection finish the request it is in.
async fn accept_until_told(
    listener: TcpListener,
    billing: Arc<Billing>,
    mut sigterm: Signal,
    faults: &Watched,
    mut scheduler_ended: oneshot::Receiver<std::io::Result<()>>,
) -> anyhow::Result<()> {
    let (closing, close) = watch::channel(false);
    // Every connection holds a sender; when the last is dropped, receiving ends.
    let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                match accepted {
                    Ok((stream, _)) => {
                        tokio::spawn(connection(stream, Arc::clone(&billing), close.clone(), open.clone()));
                    }
                    // The client left early, or descriptors ran out; neither concerns the others.
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
            _ = sigterm.recv() => {
                if !faults.now().hang_on_sigterm {
                    break;
                }
                tracing::warn!("ignoring SIGTERM, as the fault hang-on-sigterm asks");
            }
            result = &mut scheduler_ended => {
                return result.context("the scheduler panicked")?.context("recording the scheduler's activity");
            }
        }
    }
    tracing::info!("SIGTERM: finishing what is in flight");
    // Scheduling ends first: requests may take long, and the lease may already be wanted elsewhere. The scheduler may
    // have ended by itself; then there is nobody to tell.
    let _ = billing.scheduler.send(Message::Close);
    drop(listener);
    drop(open);
    closing.send_replace(true);
    all_closed.recv().await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    billing: Arc<Billing>,
    mut close: watch::Receiver<bool>,
    _open: mpsc::Sender<Infallible>,
) {
    // Only latency is at stake.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let billing = Arc::clone(&billing);
        async move { Ok::<_, Infallible>(billing.answer(request).await) }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = told(&mut close) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Returns when the service closes, or is gone.
async fn told(close: &mut watch::Receiver<bool>) {
    let _ = close.wait_for(|closing| *closing).await;
}
