//! One watch stream to one member, which is lost if the member falls silent.

use std::time::Duration;

use etcd_client::{Error as EtcdError, WatchOptions, WatchResponse, WatchStream};
use handover_proto::txn::Revision;
use tokio::time::{Instant, sleep_until};
use tonic::Code;

use super::super::Store;
use super::super::error::Failure;
use super::super::member::{CALL_TIMEOUT, Link};
use super::super::store::no_header;

/// A stream that was told nothing for so long asks for progress; without an answer to that the member counts as silent.
const QUIET: Duration = Duration::from_secs(1);

pub(super) struct Stream {
    at: usize,
    /// Number of the connection.
    link: u64,
    stream: WatchStream,
    /// When the member was last heard of.
    heard: Instant,
    /// When it was asked whether it is still there, unless it has answered since.
    asked: Option<Instant>,
}

/// A new stream, and the answer to its request, which comes before any change.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) created: WatchResponse,
    pub(super) cluster_id: u64,
    /// Where the member stands.
    pub(super) revision: Revision,
}

/// What comes from a stream.
pub(super) enum Heard {
    Response(WatchResponse),
    /// A response that is larger than we take.
    TooMuch,
    /// Nothing more.
    Lost(Failure),
}

impl Stream {
    /// Asks member number `at` for every change under `prefix` since `from`.
    pub(super) async fn open(store: &Store, at: usize, prefix: &str, from: Revision) -> Result<Opened, Failure> {
        let ask = |mut link: Link| async move {
            let options = WatchOptions::new().with_prefix().with_start_revision(from);
            let mut stream = link.watch.watch(prefix, Some(options)).await.map_err(Failure::of)?;
            let created = stream.message().await.map_err(Failure::of)?;
            let created = created.ok_or_else(|| Failure::Uncertain("the stream ended at once".to_owned()))?;
            let header = created.header().ok_or_else(no_header)?;
            let (cluster_id, revision) = (header.cluster_id(), header.revision());
            let stream = Self { at, link: link.number(), stream, heard: Instant::now(), asked: None };
            Ok(Opened { stream, created, cluster_id, revision })
        };
        store.member(at).within(CALL_TIMEOUT, ask).await
    }

    /// The member that it goes to.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What comes next. Loses nothing when dropped.
    pub(super) async fn next(&mut self, store: &Store) -> Heard {
        loop {
            let patience = self.asked.map_or(self.heard + QUIET, |asked| asked + CALL_TIMEOUT);
            tokio::select! {
                // What has come counts, however late we look.
                biased;
                told = self.stream.message() => {
                    (self.heard, self.asked) = (Instant::now(), None);
                    return sort(told);
                }
                () = sleep_until(patience) => {}
            }
            if self.asked.is_some() {
                store.member(self.at).abandon(self.link);
                let silence = self.heard.elapsed().as_millis();
                return Heard::Lost(Failure::Uncertain(format!("the member has been silent for {silence} ms")));
            }
            if let Err(error) = self.stream.request_progress().await {
                return Heard::Lost(Failure::of(error));
            }
            self.asked = Some(Instant::now());
        }
    }
}

fn sort(told: Result<Option<WatchResponse>, EtcdError>) -> Heard {
    match told {
        Ok(Some(response)) => Heard::Response(response),
        Ok(None) => Heard::Lost(Failure::Uncertain("the stream ended".to_owned())),
        // What tonic says of a message beyond the limit; etcd says nothing of this kind on a watch.
        Err(EtcdError::GRpcStatus(status)) if status.code() == Code::OutOfRange => Heard::TooMuch,
        Err(error) => Heard::Lost(Failure::of(error)),
    }
}
