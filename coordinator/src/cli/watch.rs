//! Watching a rollout until it has ended, across restarts of the coordinator.

use std::time::Duration;

use handover_proto::wire::{StatusReply, StatusRequest};

use super::connect::Coordinators;
use super::out::Out;
use super::outcome::{CliError, Outcome, is_away};

/// Pause before a coordinator that went away is asked again: short, since another one may lead already.
const AGAIN: Duration = Duration::from_millis(300);

/// How often a coordinator may not know a rollout that was started a moment ago: it follows, and hears of it soon.
const NEWS: u32 = 10;

/// When the rollout was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// By this command.
    JustNow,
    /// Before.
    Earlier,
}

/// How one stream ended.
enum End {
    Over(Outcome),
    Lost,
}

/// Shows the rollout that `request` names until it has ended; a coordinator that goes away meanwhile is waited for.
///
/// # Errors
/// [`CliError::TimedOut`] once `limit` has passed, [`CliError::NoCoordinator`] if nobody answers to begin with,
/// [`CliError::Refused`].
pub(super) async fn until_ended(
    coordinators: &Coordinators,
    request: StatusRequest,
    start: Start,
    limit: Option<Duration>,
    out: &mut Out,
) -> Result<Outcome, CliError> {
    let what = if request.rollout.is_empty() { "the rollout".into() } else { format!("rollout {}", request.rollout) };
    let watching = follow(coordinators, request, start, out);
    match limit {
        None => watching.await,
        Some(limit) => tokio::time::timeout(limit, watching).await.unwrap_or(Err(CliError::TimedOut { what })),
    }
}

async fn follow(
    coordinators: &Coordinators,
    request: StatusRequest,
    start: Start,
    out: &mut Out,
) -> Result<Outcome, CliError> {
    let mut seen = false;
    let mut away = false;
    let mut unknown = 0;
    loop {
        match stream(coordinators, &request, out, &mut seen).await {
            Ok(End::Over(outcome)) => return Ok(outcome),
            Err(error @ CliError::NoCoordinator { .. }) if !seen => return Err(error),
            Ok(End::Lost) | Err(CliError::NoCoordinator { .. }) => {
                if !std::mem::replace(&mut away, true) {
                    eprintln!(
                        "handover: the coordinator went away; the agents keep what they have, waiting for it or another"
                    );
                }
            }
            Err(CliError::Refused { .. }) if start == Start::JustNow && !seen && unknown < NEWS => unknown += 1,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn stream(
    coordinators: &Coordinators,
    request: &StatusRequest,
    out: &mut Out,
    seen: &mut bool,
) -> Result<End, CliError> {
    let mut client = coordinators.any().await?;
    let mut replies = match client.watch(request.clone()).await {
        Ok(replies) => replies.into_inner(),
        Err(status) if is_away(&status) => return Ok(End::Lost),
        Err(status) => return Err(CliError::of(&status)),
    };
    loop {
        match replies.message().await {
            Ok(Some(reply)) => {
                *seen = true;
                if reply.rollout.is_none() {
                    let sentence = "there is no rollout to watch; `handover rollout start SPEC` begins one".to_owned();
                    return Err(CliError::Refused { kind: String::new(), sentence });
                }
                out.show(&reply)?;
                if let Some(outcome) = ended(&reply) {
                    return Ok(End::Over(outcome));
                }
            }
            Ok(None) => return Ok(End::Lost),
            Err(status) if is_away(&status) => return Ok(End::Lost),
            Err(status) => return Err(CliError::of(&status)),
        }
    }
}

fn ended(reply: &StatusReply) -> Option<Outcome> {
    reply.rollout.as_ref().and_then(Outcome::of)
}
