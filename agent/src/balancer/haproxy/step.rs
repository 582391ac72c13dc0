//! One server line: from what it is to do, what HAProxy says and what is ours there, to the next step.

use crate::balancer::record::Ours;
use crate::core::front::Wish;

use super::state::Server;

/// What to do next about one server line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// HAProxy says that it does as it is to do.
    Confirmed,
    /// Remember this durably, then say this.
    Say(Ours, Order),
    /// Remember this: nothing of ours is left there.
    Note(Ours),
    /// Nothing can be done; why.
    Wait(String),
}

/// What is said to HAProxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `set server … state drain`.
    Drain,
    /// `set server … state ready`: lifts a drain, and maintenance too.
    Ready,
    /// `set server … weight N`, absolute.
    Weight(u32),
}

impl Order {
    /// The words after `set server BACKEND/SERVER`.
    pub fn words(self) -> String {
        match self {
            Self::Drain => "state drain".into(),
            Self::Ready => "state ready".into(),
            Self::Weight(weight) => format!("weight {weight}"),
        }
    }
}

/// The next step. Read back after each: HAProxy's own word is what counts.
pub fn step(wish: Wish, server: &Server, ours: Ours) -> Step {
    match wish {
        // Whoever drained it: it gets nothing new. What an operator set stays the operator's.
        Wish::Drain if server.is_out() => Step::Confirmed,
        Wish::Drain => Step::Say(Ours { drain: true, ..ours }, Order::Drain),
        // `ready` would end an operator's maintenance, too.
        Wish::Serve { .. } if server.in_maintenance() => {
            Step::Wait("is in maintenance, which an operator began and an operator must end".into())
        }
        Wish::Serve { .. } if server.drains() && ours.drain => Step::Say(ours, Order::Ready),
        Wish::Serve { .. } if server.is_out() => {
            Step::Wait("is drained by an operator; `set server … state ready` gives it back".into())
        }
        Wish::Serve { .. } if ours.drain => Step::Note(Ours { drain: false, ..ours }),
        Wish::Serve { percent } => weighted(percent, server, ours),
    }
}

/// A weight is touched only where the share is not the whole, or where we changed it: else it is the operator's.
fn weighted(percent: u8, server: &Server, ours: Ours) -> Step {
    let whole = percent >= 100;
    // At least 1: a share above nothing is never nothing.
    let share = (server.initial_weight * u32::from(percent.min(100)) / 100).max(1);
    let wanted = if whole { server.initial_weight } else { share };
    if server.weight != wanted && (!whole || ours.weight) {
        return Step::Say(Ours { weight: true, ..ours }, Order::Weight(wanted));
    }
    if whole && ours.weight {
        return Step::Note(Ours { weight: false, ..ours });
    }
    if server.is_up() { Step::Confirmed } else { Step::Wait("is DOWN: HAProxy's own check of it fails".into()) }
}

#[cfg(test)]
mod tests;
