//! Orders outside of a rollout: given, and followed until they have ended.

use std::time::Duration;

use handover_proto::ids::OpId;
use handover_proto::wire::give_request::What;
use handover_proto::wire::{
    GiveCancel, GiveDrain, GiveFreeze, GiveHandoff, GiveRelease, GiveReply, GiveRequest, GiveUndrain, GiveUnfreeze,
    OrderStatus, StatusRequest, TurnsRequest,
};
use jiff::Zoned;

use super::args::lease::{Drain, Handoff, Release, Undrain};
use super::commands::{Session, operator};
use super::connect::Repeat;
use super::outcome::{CliError, Outcome, is_away};
use super::staging::Hosts;
use super::words::{clock, date, span};
use super::{render, when};

/// Pause before a coordinator that went away is asked again.
const AGAIN: Duration = Duration::from_millis(300);

impl Session {
    /// `handover lease handoff`.
    ///
    /// # Errors
    /// [`CliError`]; what a rule forbids is [`CliError::Refused`].
    pub(super) async fn handoff(&mut self, args: &Handoff) -> Result<Outcome, CliError> {
        let at = args.at.as_deref().map(|at| when::due(at, &Zoned::now())).transpose();
        let at_ms = at.map_err(CliError::Time)?.unwrap_or(0);
        let late_ms = millis(args.late);
        let to = args.to.as_ref().map(ToString::to_string).unwrap_or_default();
        let reply = self.give(What::Handoff(GiveHandoff { to, at_ms, late_ms }), &args.because).await?;
        if at_ms > 0 {
            let in_ms = at_ms.saturating_sub(crate::clock::wall_ms());
            let text = format!(
                "order {} is due at {} (in {}), and is done {} late at most; `handover lease cancel {}` takes it back",
                reply.number,
                date(at_ms),
                span(in_ms),
                span(late_ms),
                reply.number
            );
            self.out().answer(&reply, &[text])?;
            return Ok(Outcome::Done);
        }
        self.follow_order(reply, args.detach).await
    }

    /// `handover lease release`, without --force.
    ///
    /// # Errors
    /// As [`Session::handoff`].
    pub(super) async fn release(&mut self, args: &Release) -> Result<Outcome, CliError> {
        let reply = self.give(What::Release(GiveRelease { freeze: args.freeze }), &args.because).await?;
        self.follow_order(reply, args.detach).await
    }

    /// `handover lease freeze`.
    ///
    /// # Errors
    /// As [`Session::handoff`].
    pub(super) async fn freeze(&mut self, because: &str) -> Result<Outcome, CliError> {
        self.tell(What::Freeze(GiveFreeze {}), because).await
    }

    /// `handover lease unfreeze`.
    ///
    /// # Errors
    /// As [`Session::handoff`].
    pub(super) async fn unfreeze(&mut self, because: &str) -> Result<Outcome, CliError> {
        self.tell(What::Unfreeze(GiveUnfreeze {}), because).await
    }

    /// `handover lease cancel`.
    ///
    /// # Errors
    /// As [`Session::handoff`].
    pub(super) async fn cancel(&mut self, number: Option<u64>, because: &str) -> Result<Outcome, CliError> {
        self.tell(What::Cancel(GiveCancel { number: number.unwrap_or(0) }), because).await
    }

    /// `handover drain`.
    ///
    /// # Errors
    /// As [`Session::handoff`].
    pub(super) async fn drain(&mut self, args: &Drain) -> Result<Outcome, CliError> {
        let what =
            GiveDrain { agent: args.agent.to_string(), min_serving: args.min_serving, notice_ms: millis(args.notice) };
        let reply = self.give(What::Drain(what), &args.because).await?;
        self.follow_order(reply, args.detach).await
    }

    /// `handover undrain`.
    ///
    /// # Errors
    /// As [`Session::handoff`].
    pub(super) async fn undrain(&mut self, args: &Undrain) -> Result<Outcome, CliError> {
        let what = What::Undrain(GiveUndrain { agent: args.agent.to_string() });
        let reply = self.give(what, &args.because).await?;
        self.follow_order(reply, args.detach).await
    }

    /// `handover lease history`.
    ///
    /// # Errors
    /// As [`Session::handoff`].
    pub(super) async fn turns(&self, last: Option<u32>) -> Result<Outcome, CliError> {
        let request = TurnsRequest { service: self.global().service_name(), last: last.unwrap_or(0) };
        let reply = self.coordinators().read(|mut c| {
            let request = request.clone();
            async move { c.turns(request).await }
        });
        let reply = match reply.await {
            Err(CliError::NoCoordinator { addresses, .. }) => {
                super::fallback::turns(self.global(), addresses, &request).await?
            }
            other => other?,
        };
        self.out().answers(&reply.turns, &render::turns(&reply))?;
        Ok(Outcome::Done)
    }

    pub(super) async fn tell(&mut self, what: What, because: &str) -> Result<Outcome, CliError> {
        let reply = self.give(what, because).await?;
        self.out().answer(&reply, std::slice::from_ref(&reply.message))?;
        Ok(Outcome::Done)
    }

    pub(super) async fn give(&self, what: What, because: &str) -> Result<GiveReply, CliError> {
        let request = GiveRequest {
            service: self.global().service_name(),
            op: OpId::random().to_string(),
            by: operator(),
            because: because.to_owned(),
            what: Some(what),
        };
        let reply = self.coordinators().lead(Repeat::Safe, |mut c| {
            let request = request.clone();
            async move { c.give(request).await }
        });
        reply.await
    }

    /// Shows an order's log as it grows, until it has ended; across restarts of the coordinator.
    pub(super) async fn follow_order(&mut self, reply: GiveReply, detach: bool) -> Result<Outcome, CliError> {
        if detach {
            self.out().answer(&reply, std::slice::from_ref(&reply.message))?;
            return Ok(Outcome::Done);
        }
        let what = format!("order {}", reply.number);
        let limit = self.global().timeout;
        let following = self.until_over(reply.number);
        match limit {
            None => following.await,
            Some(limit) => tokio::time::timeout(limit, following).await.unwrap_or(Err(CliError::StillRuns { what })),
        }
    }

    async fn until_over(&mut self, number: u64) -> Result<Outcome, CliError> {
        let mut said = Said::default();
        loop {
            match self.stream_order(number, &mut said).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) | Err(CliError::NoCoordinator { .. }) => {
                    if !std::mem::replace(&mut said.away, true) {
                        eprintln!("handover: the coordinator went away; the order stands, waiting for it or another");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn stream_order(&mut self, number: u64, said: &mut Said) -> Result<Option<Outcome>, CliError> {
        let mut client = self.coordinators().any().await?;
        let request =
            StatusRequest { service: self.global().service_name(), order: number, ..StatusRequest::default() };
        let mut replies = match client.watch(request).await {
            Ok(replies) => replies.into_inner(),
            Err(status) if is_away(&status) => return Ok(None),
            Err(status) => return Err(CliError::of(&status)),
        };
        loop {
            let reply = match replies.message().await {
                Ok(Some(reply)) => reply,
                Ok(None) => return Ok(None),
                Err(status) if is_away(&status) => return Ok(None),
                Err(status) => return Err(CliError::of(&status)),
            };
            // A follower may not have heard of it yet.
            let Some(order) = reply.orders.iter().find(|order| order.number == number) else { continue };
            let outcome = outcome(order);
            if self.global().json {
                if outcome.is_some() {
                    self.out().answer(order, &[])?;
                }
            } else {
                self.out().lines(&said.news(order, reply.at_ms))?;
            }
            if outcome.is_some() {
                return Ok(outcome);
            }
        }
    }
}

/// What an order that is followed has said already.
#[derive(Debug, Default)]
struct Said {
    lines: usize,
    waiting: String,
    hosts: Hosts,
    away: bool,
}

impl Said {
    fn news(&mut self, order: &OrderStatus, at_ms: u64) -> Vec<String> {
        let new = order.lines.iter().skip(self.lines);
        let mut lines: Vec<String> = new.map(|line| format!("{} {}", clock(line.at_ms), line.what)).collect();
        self.lines = self.lines.max(order.lines.len());
        lines.extend(self.hosts.news(order).into_iter().map(|line| format!("{} {line}", clock(at_ms))));
        if !order.hosts.is_empty() {
            return lines;
        }
        let waiting = order.blocker.as_ref().map(|blocker| blocker.waiting_for.clone()).unwrap_or_default();
        if !waiting.is_empty() && waiting != self.waiting {
            lines.push(format!("{} waiting for {waiting}", clock(at_ms)));
        }
        self.waiting = waiting;
        lines
    }
}

/// How an order has ended; none: it has not. A drained host is what was asked for.
fn outcome(order: &OrderStatus) -> Option<Outcome> {
    match order.state.as_str() {
        "done" | "drained" => Some(Outcome::Done),
        "undone" => Some(Outcome::RolledBack),
        "failed" => Some(Outcome::Failed),
        _ => None,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
