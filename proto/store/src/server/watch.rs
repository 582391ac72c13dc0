//! etcd's Watch service: one task per stream follows the committed revision for all of its watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use etcd_client::proto::{PbEvent, PbWatchRequest, PbWatchRequestUnion, PbWatchResponse, PbWatchService};
use handover_proto::txn::Revision;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request as Call, Response, Status, Streaming};

use super::engine::Shared;
use super::state::{Compacted, Event, KeyRange};
use super::wire;

/// Responses that may wait for a slow reader; what comes after stays in the history.
const UNREAD_RESPONSES: usize = 16;
/// A response of a watch that catches up is closed after so many bytes; a revision is never split.
const FULL_RESPONSE_BYTES: usize = 1 << 20;
/// etcd's watch id for a progress answer that concerns every watch of the stream.
const EVERY_WATCH: i64 = -1;

pub(super) struct WatchApi(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl PbWatchService for WatchApi {
    type WatchStream = ReceiverStream<Result<PbWatchResponse, Status>>;

    async fn watch(&self, call: Call<Streaming<PbWatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (responses, stream) = mpsc::channel(UNREAD_RESPONSES);
        let session = Session { shared: self.0.clone(), watches: BTreeMap::new(), last_id: EVERY_WATCH, responses };
        tokio::spawn(session.run(call.into_inner()));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// One watch of a stream.
struct Following {
    range: KeyRange,
    /// The first revision not yet told.
    next: Revision,
    previous: bool,
    puts: bool,
    deletes: bool,
}

impl Following {
    fn wants(&self, event: &Event) -> bool {
        self.range.contains(&event.kv.key) && if event.deleted { self.deletes } else { self.puts }
    }
}

/// The client has hung up.
struct HungUp;

struct Session {
    shared: Arc<Shared>,
    watches: BTreeMap<i64, Following>,
    last_id: i64,
    responses: mpsc::Sender<Result<PbWatchResponse, Status>>,
}

impl Session {
    async fn run(mut self, mut requests: Streaming<PbWatchRequest>) {
        let (shared, mut committed) = (self.shared.clone(), self.shared.committed());
        loop {
            let going = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => self.take(request).await,
                    // An end or a broken connection: there is nobody left to tell.
                    Ok(None) | Err(_) => return,
                },
                _ = committed.changed() => self.tell_all().await.map(|_| ()),
                () = shared.closed() => return,
            };
            if going.is_err() {
                return;
            }
        }
    }

    async fn take(&mut self, request: PbWatchRequest) -> Result<(), HungUp> {
        match request.request_union {
            Some(PbWatchRequestUnion::CreateRequest(create)) => {
                let following = Following {
                    range: wire::range_from_wire(create.key, create.range_end),
                    next: create.start_revision,
                    previous: create.prev_kv,
                    puts: !create.filters.contains(&0),
                    deletes: !create.filters.contains(&1),
                };
                self.create(create.watch_id, following).await
            }
            Some(PbWatchRequestUnion::CancelRequest(cancel)) => match self.watches.remove(&cancel.watch_id) {
                Some(_) => self.send(PbWatchResponse { canceled: true, ..self.response(cancel.watch_id) }).await,
                None => Ok(()),
            },
            Some(PbWatchRequestUnion::ProgressRequest(_)) => {
                // Whatever is below this revision has been told before.
                let revision = self.tell_all().await?;
                let header = Some(self.shared.header(revision));
                self.send(PbWatchResponse { header, ..self.response(EVERY_WATCH) }).await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, asked_id: i64, mut following: Following) -> Result<(), HungUp> {
        let id = if asked_id == 0 { self.free_id() } else { asked_id };
        if self.watches.contains_key(&id) {
            let cancel_reason = "mvcc: duplicate watch ID provided on the WatchStream".to_owned();
            return self
                .send(PbWatchResponse { created: true, canceled: true, cancel_reason, ..self.response(id) })
                .await;
        }
        let created = PbWatchResponse { created: true, ..self.response(id) };
        if following.next <= 0 {
            following.next = created.header.map_or(0, |header| header.revision) + 1;
        }
        self.watches.insert(id, following);
        self.send(created).await?;
        self.tell(id).await.map(|_| ())
    }

    fn free_id(&mut self) -> i64 {
        loop {
            self.last_id += 1;
            if !self.watches.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }

    /// An empty response as of now.
    fn response(&self, watch_id: i64) -> PbWatchResponse {
        let revision = self.shared.state().revision();
        PbWatchResponse { header: Some(self.shared.header(revision)), watch_id, ..PbWatchResponse::default() }
    }

    async fn send(&self, response: PbWatchResponse) -> Result<(), HungUp> {
        self.responses.send(Ok(response)).await.map_err(|_| HungUp)
    }

    /// Tells every watch what it does not know yet; gives the revision up to which all of them know everything.
    async fn tell_all(&mut self) -> Result<Revision, HungUp> {
        let mut told = self.shared.state().revision();
        for id in self.watches.keys().copied().collect::<Vec<_>>() {
            told = told.min(self.tell(id).await?);
        }
        Ok(told)
    }

    async fn tell(&mut self, id: i64) -> Result<Revision, HungUp> {
        loop {
            let Some(following) = self.watches.get_mut(&id) else { return Ok(Revision::MAX) };
            let (events, now) = match collect(&self.shared, following) {
                Ok(collected) => collected,
                Err(Compacted { floor }) => {
                    self.watches.remove(&id);
                    let gone = PbWatchResponse { canceled: true, compact_revision: floor, ..self.response(id) };
                    self.send(gone).await?;
                    return Ok(Revision::MAX);
                }
            };
            let complete = following.next > now;
            if !events.is_empty() {
                let header = Some(self.shared.header(now));
                self.send(PbWatchResponse { header, events, ..self.response(id) }).await?;
            }
            if complete {
                return Ok(now);
            }
        }
    }
}

/// What a watch does not know yet, up to about one full response; moves it on. The revision is the state's.
fn collect(shared: &Shared, following: &mut Following) -> Result<(Vec<PbEvent>, Revision), Compacted> {
    let state = shared.state();
    let (mut events, mut bytes) = (Vec::new(), 0);
    for (revision, happened) in state.past(following.next)? {
        for event in happened.iter().filter(|event| following.wants(event)) {
            bytes += event.kv.key.len() + event.kv.value.len();
            events.push(wire::event_to_wire(event, following.previous));
        }
        following.next = revision + 1;
        if bytes > FULL_RESPONSE_BYTES {
            return Ok((events, state.revision()));
        }
    }
    // A watch from a future revision waits for it.
    following.next = following.next.max(state.revision() + 1);
    Ok((events, state.revision()))
}
