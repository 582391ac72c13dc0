//! etcd's Lease service.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest,
    PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService, PbLeaseStatus,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use handover_proto::txn::LeaseId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request as Call, Response, Status, Streaming};

use super::engine::{Engine, Shared};
use super::state::{Lease, Reply, Request};
use super::wire;

/// Answers that may wait for a slow reader before we stop reading its requests.
const UNREAD_ANSWERS: usize = 16;

pub(super) struct LeaseApi(pub(super) Engine);

#[tonic::async_trait]
impl PbLeaseService for LeaseApi {
    type LeaseKeepAliveStream = ReceiverStream<Result<PbLeaseKeepAliveResponse, Status>>;

    async fn lease_grant(&self, call: Call<PbLeaseGrantRequest>) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let PbLeaseGrantRequest { ttl, id } = call.into_inner();
        // etcd's ids are positive; one of our own choice is as good as unique.
        let id = if id == 0 { rand::random::<LeaseId>() & LeaseId::MAX | 1 } else { id };
        let (reply, revision) = self.0.write(Request::Grant { id, ttl: wire::ttl_from_wire(ttl) }).await?;
        let Reply::Granted { id, ttl } = reply else {
            return Err(Status::internal("a grant was answered as something else"));
        };
        let header = Some(self.0.shared().header(revision));
        Ok(Response::new(PbLeaseGrantResponse { header, id, ttl: wire::ttl_to_wire(ttl), error: String::new() }))
    }

    async fn lease_revoke(&self, call: Call<PbLeaseRevokeRequest>) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let (_, revision) = self.0.write(Request::Revoke(call.into_inner().id)).await?;
        Ok(Response::new(PbLeaseRevokeResponse { header: Some(self.0.shared().header(revision)) }))
    }

    async fn lease_keep_alive(
        &self,
        call: Call<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let (answers, stream) = mpsc::channel(UNREAD_ANSWERS);
        tokio::spawn(keep_alive(self.0.shared().clone(), call.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lease_time_to_live(
        &self,
        call: Call<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let PbLeaseTimeToLiveRequest { id, keys } = call.into_inner();
        let shared = self.0.shared();
        let (state, now) = (shared.state(), shared.now());
        let header = Some(shared.header(state.revision()));
        let left = |lease: &Lease| wire::ttl_to_wire(lease.deadline.saturating_sub(now) + Duration::from_millis(500));
        let found = state.lease(id);
        Ok(Response::new(PbLeaseTimeToLiveResponse {
            header,
            id,
            // etcd's sign for "no such lease".
            ttl: found.map_or(-1, left),
            granted_ttl: found.map_or(0, |lease| wire::ttl_to_wire(lease.ttl)),
            keys: found.filter(|_| keys).map_or_else(Vec::new, |lease| lease.keys.iter().cloned().collect()),
        }))
    }

    async fn lease_leases(&self, _: Call<PbLeaseLeasesRequest>) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let state = self.0.shared().state();
        let header = Some(self.0.shared().header(state.revision()));
        let leases = state.leases().map(|id| PbLeaseStatus { id }).collect();
        Ok(Response::new(PbLeaseLeasesResponse { header, leases }))
    }
}

/// Answers one client's keep-alives until it hangs up or the server stops.
async fn keep_alive(
    shared: Arc<Shared>,
    mut requests: Streaming<PbLeaseKeepAliveRequest>,
    answers: mpsc::Sender<Result<PbLeaseKeepAliveResponse, Status>>,
) {
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            () = shared.closed() => return,
        };
        // An end or a broken connection: there is nobody left to answer.
        let Ok(Some(PbLeaseKeepAliveRequest { id })) = request else { return };
        let (ttl, revision) = shared.keep_alive(id);
        let ttl = ttl.map_or(0, wire::ttl_to_wire);
        let answer = PbLeaseKeepAliveResponse { header: Some(shared.header(revision)), id, ttl };
        if answers.send(Ok(answer)).await.is_err() {
            return;
        }
    }
}
