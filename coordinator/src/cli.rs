//! The command line: what can be typed, how it is asked of a coordinator, and how the answer is shown.

pub mod args;
mod artifact;
mod changes;
mod commands;
mod connect;
mod doctor;
mod fallback;
mod out;
pub mod outcome;
mod render;
mod setup;
mod staging;
mod standing;
mod store_orders;
mod table;
mod watch;
mod when;
mod words;

use clap::CommandFactory as _;
use handover_store::server::{self, ServerOptions};

use args::{Args, Command, Lease, Rollout, StoreCommand};
use commands::Session;
use outcome::{CliError, Outcome};

/// Does what was typed.
///
/// # Errors
/// [`CliError`], whose [`CliError::outcome`] is the exit code.
pub async fn run(args: Args) -> Result<Outcome, CliError> {
    let global = args.global;
    // A file that cannot be used is said before anything else is tried.
    global.parties()?;
    match args.command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "handover", &mut std::io::stdout());
            Ok(Outcome::Done)
        }
        Command::Serve(serve) => {
            crate::serve::run(global, serve).await?;
            Ok(Outcome::Done)
        }
        Command::Store(args::Store { command: Some(StoreCommand::Setup(setup)), .. }) => {
            setup::run(&global, setup).await
        }
        Command::Store(store) => {
            embedded_store(store).await?;
            Ok(Outcome::Done)
        }
        Command::Plan { spec } => Session::new(global).plan(&spec).await,
        Command::Rollout(rollout) => self::rollout(Session::new(global), rollout).await,
        Command::Status => Session::new(global).status(&args::Which { rollout: None }).await,
        Command::Audit { number } => Session::new(global).audit(number).await,
        Command::Fleet => Session::new(global).fleet().await,
        Command::Lease(lease) => self::lease(Session::new(global), lease).await,
        Command::Drain(drain) => Session::new(global).drain(&drain).await,
        Command::Undrain(undrain) => Session::new(global).undrain(&undrain).await,
        Command::Stage(stage) => Session::new(global).stage(&stage).await,
        Command::Artifact(artifact) => self::artifact::run(&global, artifact),
        Command::Why => Session::new(global).why().await,
        Command::Doctor => Session::new(global).doctor().await,
    }
}

async fn rollout(mut session: Session, rollout: Rollout) -> Result<Outcome, CliError> {
    match rollout {
        Rollout::Start { spec, detach, watch: _ } => session.start(&spec, detach).await,
        Rollout::Status(which) => session.status(&which).await,
        Rollout::Watch(which) => session.watch(which.rollout.map(|id| id.to_string()).unwrap_or_default()).await,
        Rollout::Pause(args) => session.order("pause", &args).await,
        Rollout::Resume(args) => session.order("resume", &args).await,
        Rollout::Abort(args) => session.order("abort", &args).await,
        Rollout::Rollback(args) => session.order("rollback", &args).await,
        Rollout::History(which) => session.history(&which).await,
    }
}

async fn lease(mut session: Session, lease: Lease) -> Result<Outcome, CliError> {
    match lease {
        Lease::Show => session.lease().await,
        Lease::Handoff(handoff) => session.handoff(&handoff).await,
        Lease::Cancel { number, because } => session.cancel(number, &because).await,
        Lease::Freeze { because } => session.freeze(&because).await,
        Lease::Unfreeze { because } => session.unfreeze(&because).await,
        Lease::Release(release) if release.force => session.break_glass(&release).await,
        Lease::Release(release) => session.release(&release).await,
        Lease::Era(era) => session.era(&era).await,
        Lease::History { last } => session.turns(last).await,
    }
}

async fn embedded_store(store: args::Store) -> anyhow::Result<()> {
    let options = ServerOptions { data: store.data, listen: store.listen };
    // The address on standard output, for whoever asked for any free port.
    let ready = |address| println!("listening on {address}");
    Ok(server::serve(options, ready, crate::serve::stop_signal()?).await?)
}
