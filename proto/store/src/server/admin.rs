//! As much of etcd's Maintenance and Cluster services as `Store::status` and etcdctl ask for.

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbClusterService, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse, PbMaintenanceService,
    PbMember, PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest, PbMemberListResponse,
    PbMemberPromoteRequest, PbMemberPromoteResponse, PbMemberRemoveRequest, PbMemberRemoveResponse,
    PbMemberUpdateRequest, PbMemberUpdateResponse, PbMoveLeaderRequest, PbMoveLeaderResponse, PbResponseHeader,
    PbSnapshotRequest, PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_stream::Empty;
use tonic::{Request as Call, Response, Status};

use super::VERSION_PREFIX;
use super::engine::{Shared, refuse};
use super::state::Refusal;

#[derive(Clone)]
pub(super) struct AdminApi {
    pub(super) shared: Arc<Shared>,
    pub(super) address: String,
    pub(super) file: PathBuf,
}

impl AdminApi {
    fn header(&self) -> PbResponseHeader {
        let revision = self.shared.state().revision();
        self.shared.header(revision)
    }
}

fn unsupported<T>(what: &'static str) -> Result<Response<T>, Status> {
    Err(refuse(Refusal::Unsupported(what)))
}

#[tonic::async_trait]
impl PbMaintenanceService for AdminApi {
    type SnapshotStream = Empty<Result<PbSnapshotResponse, Status>>;

    async fn status(&self, _: Call<PbStatusRequest>) -> Result<Response<PbStatusResponse>, Status> {
        let header = self.header();
        let size = std::fs::metadata(&self.file).map_or(0, |file| i64::try_from(file.len()).unwrap_or(i64::MAX));
        let applied = u64::try_from(header.revision).unwrap_or(0);
        Ok(Response::new(PbStatusResponse {
            header: Some(header),
            version: format!("{VERSION_PREFIX}{}", env!("CARGO_PKG_VERSION")),
            db_size: size,
            db_size_in_use: size,
            leader: header.member_id,
            raft_term: header.raft_term,
            raft_index: applied,
            raft_applied_index: applied,
            ..PbStatusResponse::default()
        }))
    }

    /// There are no alarms: a disk that fails stops the server.
    async fn alarm(&self, call: Call<PbAlarmRequest>) -> Result<Response<PbAlarmResponse>, Status> {
        if call.into_inner().action != 0 {
            return unsupported("setting alarms");
        }
        Ok(Response::new(PbAlarmResponse { header: Some(self.header()), alarms: Vec::new() }))
    }

    async fn defragment(&self, _: Call<PbDefragmentRequest>) -> Result<Response<PbDefragmentResponse>, Status> {
        unsupported("defragmentation")
    }

    async fn hash(&self, _: Call<PbHashRequest>) -> Result<Response<PbHashResponse>, Status> {
        unsupported("hashes")
    }

    async fn hash_kv(&self, _: Call<PbHashKvRequest>) -> Result<Response<PbHashKvResponse>, Status> {
        unsupported("hashes")
    }

    async fn snapshot(&self, _: Call<PbSnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        unsupported("snapshots")
    }

    async fn move_leader(&self, _: Call<PbMoveLeaderRequest>) -> Result<Response<PbMoveLeaderResponse>, Status> {
        unsupported("moving the leader")
    }

    async fn downgrade(&self, _: Call<PbDowngradeRequest>) -> Result<Response<PbDowngradeResponse>, Status> {
        unsupported("downgrades")
    }
}

#[tonic::async_trait]
impl PbClusterService for AdminApi {
    async fn member_list(&self, _: Call<PbMemberListRequest>) -> Result<Response<PbMemberListResponse>, Status> {
        let member = PbMember {
            id: self.shared.identity().member_id,
            name: "embedded".to_owned(),
            client_ur_ls: vec![self.address.clone()],
            ..PbMember::default()
        };
        Ok(Response::new(PbMemberListResponse { header: Some(self.header()), members: vec![member] }))
    }

    async fn member_add(&self, _: Call<PbMemberAddRequest>) -> Result<Response<PbMemberAddResponse>, Status> {
        unsupported("more than one member")
    }

    async fn member_remove(&self, _: Call<PbMemberRemoveRequest>) -> Result<Response<PbMemberRemoveResponse>, Status> {
        unsupported("more than one member")
    }

    async fn member_update(&self, _: Call<PbMemberUpdateRequest>) -> Result<Response<PbMemberUpdateResponse>, Status> {
        unsupported("more than one member")
    }

    async fn member_promote(
        &self,
        _: Call<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        unsupported("more than one member")
    }
}
