//! The two calls of one barriered renewal (`SAFETY.md` §1.7). Whether it counts is the lease core's decision, not ours.

use std::time::Duration;

use etcd_client::proto::{PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse};
use handover_proto::txn::{LeaseId, Txn};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::convert::{mutates, txn_request};
use super::error::{Failure, StoreError};
use super::member::Link;
use super::store::{commit, no_header, seconds_of};
use super::{Origin, Store, TxnReply};

const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// What one member said to one keep-alive and to the read that followed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The TTL that the lease now has from the moment of the request on; 0: the lease is gone.
    pub ttl: Duration,
    /// Who answered the keep-alive.
    pub keep_alive: Origin,
    /// What the barrier read, and who answered it.
    pub barrier: TxnReply,
}

impl Store {
    /// Renews `lease` through member number `member` (modulo their number): one stream with one request and one reply,
    /// then the read-only `barrier` through the same channel, all of it within `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unknown`] if an answer is missing: the lease may have been renewed, do not count on it.
    /// [`StoreError::Unreachable`] if the member could not be reached at all. [`StoreError::Refused`], also for a barrier
    /// that would write.
    pub async fn renew(
        &self,
        member: usize,
        lease: LeaseId,
        barrier: &Txn,
        limit: Duration,
    ) -> Result<Renewal, StoreError> {
        let member = self.member(member);
        let cycle = |link: Link| async move {
            if mutates(barrier) {
                return Err(Failure::Refused(Code::InvalidArgument, "the barrier would write".to_owned()));
            }
            let (ttl, keep_alive) = keep_alive(&link, lease).await?;
            let barrier = commit(link, txn_request(barrier)).await?;
            Ok(Renewal { ttl, keep_alive, barrier })
        };
        let renewed = member.within(limit, cycle).await;
        renewed.map_err(|failure| failure.at(&format!("renewing lease {lease:x}"), member.endpoint(), Some(lease)))
    }
}

/// etcd-client's own `keep_alive` swallows the first reply and its header, which is the one that counts here.
async fn keep_alive(link: &Link, lease: LeaseId) -> Result<(Duration, Origin), Failure> {
    let mut grpc = tonic::client::Grpc::new(link.channel.clone());
    grpc.ready().await.map_err(|error| Failure::NotDone(error.to_string()))?;
    let mut request = Request::new(tokio_stream::once(PbLeaseKeepAliveRequest { id: lease }));
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let codec = ProstCodec::<PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse>::default();
    let stream = grpc.streaming(request, PathAndQuery::from_static(KEEP_ALIVE), codec).await;
    let mut stream = stream.map_err(|status| Failure::of_status(&status))?.into_inner();
    let reply = stream.message().await.map_err(|status| Failure::of_status(&status))?;
    let reply = reply.ok_or_else(|| Failure::Uncertain("the stream ended without a reply".to_owned()))?;
    if reply.id != lease {
        return Err(Failure::Uncertain(format!("the reply is for lease {:x}", reply.id)));
    }
    let header = reply.header.ok_or_else(no_header)?;
    let origin = Origin { cluster_id: header.cluster_id, member_id: header.member_id, raft_term: header.raft_term };
    Ok((seconds_of(reply.ttl), origin))
}
