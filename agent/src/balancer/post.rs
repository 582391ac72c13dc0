//! One balancer's end: what it is to do comes in, what it does goes out.
//!
//! Each order has a number, and what a balancer says is about the order that it took last. So the word that it gave for
//! an order counts for no later one, not even for one that wishes the same: in between it may have been told otherwise.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::info;

use crate::core::front::{BalancerSeen, Wishes};

/// What all balancers are to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// Which order this is; 0 before the first decision.
    number: u64,
    /// None before the first decision: then nothing is touched.
    wishes: Option<Wishes>,
}

impl Told {
    /// Takes other wishes for the next order. False: they are what was told last.
    pub(super) fn renew(&mut self, wishes: &Wishes) -> bool {
        let news = self.wishes.as_ref() != Some(wishes);
        if news {
            *self = Self { number: self.number + 1, wishes: Some(wishes.clone()) };
        }
        news
    }

    /// What is to be done; empty before the first decision.
    pub(super) fn wishes(&self) -> Wishes {
        self.wishes.clone().unwrap_or_default()
    }
}

/// What a balancer said last, and about which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    number: u64,
    seen: BalancerSeen,
}

impl Said {
    /// What of it counts now: a confirmation only of this very order.
    pub(super) fn about(&self, told: &Told) -> BalancerSeen {
        let confirmed = self.seen.confirmed.clone().filter(|_| self.number == told.number);
        BalancerSeen { confirmed, ..self.seen.clone() }
    }
}

/// What a balancer's task works with.
pub(super) struct Post {
    told: watch::Receiver<Told>,
    /// The order that was taken last.
    taken: u64,
    said: watch::Sender<Said>,
    wake: Arc<Notify>,
}

impl Post {
    /// A post, and where what it says is read.
    pub(super) fn new(name: &str, told: watch::Receiver<Told>, wake: Arc<Notify>) -> (Self, watch::Receiver<Said>) {
        let seen = BalancerSeen { name: name.to_owned(), ..BalancerSeen::default() };
        let (said, reader) = watch::channel(Said { number: 0, seen });
        (Self { told, taken: 0, said, wake }, reader)
    }

    /// What the balancer is to do now; none before the first decision. What is said from here on is about this.
    pub(super) fn take(&mut self) -> Option<Wishes> {
        let told = self.told.borrow_and_update();
        self.taken = told.number;
        told.wishes.clone()
    }

    /// Says what the balancer does about the order that was taken last; the main loop is woken when that is news.
    pub(super) fn say(&self, now: BalancerSeen) {
        let now = Said { number: self.taken, seen: now };
        let news = self.said.send_if_modified(|before| {
            let news = *before != now;
            if news && now.seen.trouble != before.seen.trouble {
                let reason = now.seen.trouble.as_ref().map_or("as told", |waiting| waiting.sentence.as_str());
                info!(balancer = now.seen.name, reason, "a balancer answers otherwise");
            }
            *before = now;
            news
        });
        if news {
            self.wake.notify_one();
        }
    }

    /// Waits for another order. False: nobody cares any more.
    pub(super) async fn changed(&mut self) -> bool {
        self.told.changed().await.is_ok()
    }

    /// Waits until there is something else to do, or for this long. False: nobody cares any more.
    pub(super) async fn rest(&mut self, time: Duration) -> bool {
        tokio::select! {
            goes_on = self.changed() => goes_on,
            () = tokio::time::sleep(time) => true,
        }
    }
}
