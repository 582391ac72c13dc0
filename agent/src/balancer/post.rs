//! One balancer's end: what it is to do comes in, what it does goes out.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tracing::info;

use crate::core::front::{BalancerSeen, Wishes};

/// What a balancer's task works with.
pub(super) struct Post {
    /// What it is to do; none before the first decision: then nothing is touched.
    pub(super) wishes: watch::Receiver<Option<Wishes>>,
    seen: watch::Sender<BalancerSeen>,
    wake: Arc<Notify>,
}

impl Post {
    /// A post, and where what it says is read.
    pub(super) fn new(
        name: &str,
        wishes: watch::Receiver<Option<Wishes>>,
        wake: Arc<Notify>,
    ) -> (Self, watch::Receiver<BalancerSeen>) {
        let (seen, reader) = watch::channel(BalancerSeen { name: name.to_owned(), ..BalancerSeen::default() });
        (Self { wishes, seen, wake }, reader)
    }

    /// Says what the balancer does; the main loop is woken when that is news.
    pub(super) fn say(&self, now: BalancerSeen) {
        let news = self.seen.send_if_modified(|before| {
            let news = *before != now;
            if news && now.trouble != before.trouble {
                let reason = now.trouble.as_ref().map_or("as told", |waiting| waiting.sentence.as_str());
                info!(balancer = now.name, reason, "a balancer answers otherwise");
            }
            *before = now;
            news
        });
        if news {
            self.wake.notify_one();
        }
    }

    /// Waits until there is something else to do, or for this long. False: nobody cares any more.
    pub(super) async fn rest(&mut self, time: std::time::Duration) -> bool {
        tokio::select! {
            changed = self.wishes.changed() => changed.is_ok(),
            () = tokio::time::sleep(time) => true,
        }
    }
}
