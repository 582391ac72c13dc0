//! HAProxy over its Runtime API: state and weight are pushed, and read back. Only what HAProxy itself then says counts.
//!
//! It is looked at once a second, so that a restart or reload, which forgets what it was told, is noticed and told again.
//! `step` decides, `talk` speaks, `state` reads.

pub mod state;
pub mod step;
mod talk;

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::blocker::BlockerKind;
use tracing::info;

use super::post::Post;
use super::record::Record;
use super::settings::{HaproxySettings, Name};
use crate::core::front::{BalancerSeen, Target, Wish, Wishes};
use crate::core::next::Waiting;
use step::{Step, step};

pub use talk::TalkError;

/// While it does as told.
const LOOK: Duration = Duration::from_secs(1);
/// While it does not.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Steps in a row about one server: drain or ready, then weight, and reading back after each.
const STEPS: usize = 6;

/// One HAProxy.
pub(super) struct Haproxy {
    settings: HaproxySettings,
    lines: BTreeMap<Target, Name>,
    record: Record,
}

impl Haproxy {
    pub(super) fn new(settings: HaproxySettings, record: Record) -> Self {
        Self { lines: settings.lines(), settings, record }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        format!("haproxy {} {}", self.settings.socket, self.settings.backend)
    }

    /// Keeps it as it is to be, for ever.
    pub(super) async fn keep(self, mut post: Post) {
        loop {
            let wishes = post.take();
            let trouble = match &wishes {
                Some(wishes) => self.lap(wishes).await.err(),
                None => None,
            };
            let time = if trouble.is_none() { LOOK } else { LOOK_AGAIN };
            let confirmed = wishes.filter(|_| trouble.is_none());
            post.say(BalancerSeen { name: self.name(), confirmed, trouble });
            if !post.rest(time).await {
                return;
            }
        }
    }

    /// Goes on until HAProxy says that all of it is so. Those that are to serve come first, and nobody is drained before one
    /// of them does (`SAFETY.md` R8): in between HAProxy would have nobody to send to.
    async fn lap(&self, wishes: &Wishes) -> Result<(), Waiting> {
        let (drain, serve): (Vec<_>, Vec<_>) = wishes.iter().partition(|(_, wish)| **wish == Wish::Drain);
        let (mut held, mut covered) = (None, serve.is_empty());
        for (target, wish) in serve {
            let trouble = self.to(target, *wish).await?;
            covered |= trouble.is_none();
            held = held.or(trouble);
        }
        for (target, wish) in drain.into_iter().filter(|_| covered) {
            held = held.or(self.to(target, *wish).await?);
        }
        held.map_or(Ok(()), Err)
    }

    async fn to(&self, target: &Target, wish: Wish) -> Result<Option<Waiting>, Waiting> {
        match self.lines.get(target) {
            Some(name) => self.settle(name, wish).await,
            None => Ok(None),
        }
    }

    /// One server: nothing, if HAProxy says that it is so; or why it cannot be so. An error is about HAProxy as a whole.
    async fn settle(&self, name: &Name, wish: Wish) -> Result<Option<Waiting>, Waiting> {
        let HaproxySettings { socket, backend, .. } = &self.settings;
        let line = format!("haproxy {socket} {backend}/{name}");
        for _ in 0..STEPS {
            let servers = talk::look(socket, backend).await.map_err(away)?;
            let Some(server) = servers.get(&name.to_string()) else {
                return Err(unconfirmed(format!("{} has no server {name}; is the name right?", self.name())));
            };
            match step(wish, server, self.record.of(&line)) {
                Step::Confirmed => return Ok(None),
                Step::Wait(why) => return Ok(Some(unconfirmed(format!("{line} {why}")))),
                Step::Note(ours) => self.record.set(&line, ours).map_err(disk)?,
                Step::Say(ours, order) => {
                    // Written before it is said: whoever finds the drain knows whose it is.
                    self.record.set(&line, ours).map_err(disk)?;
                    talk::say(socket, backend, name, order).await.map_err(away)?;
                    info!(balancer = line, order = order.words(), "told");
                }
            }
        }
        Ok(Some(unconfirmed(format!("{line} takes orders and then says otherwise; does somebody else set it too?"))))
    }
}

fn away(error: TalkError) -> Waiting {
    let kind = match error {
        TalkError::Away { .. } => BlockerKind::BalancerUnreachable,
        TalkError::Garbled { .. } | TalkError::Refused { .. } => BlockerKind::BalancerNotConfirmed,
    };
    Waiting { kind, sentence: crate::report::chain(&error) }
}

fn unconfirmed(sentence: String) -> Waiting {
    Waiting { kind: BlockerKind::BalancerNotConfirmed, sentence }
}

fn disk(error: crate::durable::DurableError) -> Waiting {
    Waiting { kind: BlockerKind::Disk, sentence: crate::report::chain(&error) }
}
