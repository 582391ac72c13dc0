//! etcd's KV service.

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnOpResponse, PbTxnRequest,
    PbTxnResponse,
};
use handover_proto::txn::Revision;
use prost::Message;
use tokio_stream::Empty;
use tonic::{Request as Call, Response, Status};

use super::engine::{Engine, refuse};
use super::state::{self, Op, Reply, Request, Transaction};
use super::wire;

pub(super) struct KvApi(pub(super) Engine);

impl KvApi {
    async fn carry_out(&self, txn: Transaction, size: usize) -> Result<(bool, Vec<state::Answer>, Revision), Status> {
        let reads_only = txn.then.iter().chain(&txn.or_else).all(|op| matches!(op, Op::Get(_)));
        let request = Request::Txn(txn);
        state::check(&request, size).map_err(refuse)?;
        let (reply, revision) =
            if reads_only { self.0.shared().read(&request)? } else { self.0.write(request).await? };
        match reply {
            Reply::Txn { succeeded, answers } => Ok((succeeded, answers, revision)),
            Reply::Granted { .. } | Reply::Done => {
                Err(Status::internal("a transaction was answered as something else"))
            }
        }
    }

    /// One operation outside a transaction is a transaction of one.
    async fn single(&self, op: Op, size: usize) -> Result<PbTxnOpResponse, Status> {
        let txn = Transaction { then: vec![op], ..Transaction::default() };
        let (_, mut answers, revision) = self.carry_out(txn, size).await?;
        let answer = answers.pop().ok_or_else(|| Status::internal("an operation was not answered"))?;
        Ok(wire::answer_to_wire(answer, self.0.shared().header(revision)))
    }
}

fn mismatch() -> Status {
    Status::internal("an operation was answered as another one")
}

#[tonic::async_trait]
impl PbKvService for KvApi {
    type RangeStreamStream = Empty<Result<PbRangeStreamResponse, Status>>;

    async fn range(&self, call: Call<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let query = wire::query_from_wire(call.into_inner()).map_err(refuse)?;
        match self.single(Op::Get(query), 0).await? {
            PbTxnOpResponse::ResponseRange(reply) => Ok(Response::new(reply)),
            _ => Err(mismatch()),
        }
    }

    async fn range_stream(&self, _: Call<PbRangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(refuse(state::Refusal::Unsupported("streamed ranges")))
    }

    async fn put(&self, call: Call<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let put = call.into_inner();
        let size = put.encoded_len();
        match self.single(Op::Put(wire::put_from_wire(put).map_err(refuse)?), size).await? {
            PbTxnOpResponse::ResponsePut(reply) => Ok(Response::new(reply)),
            _ => Err(mismatch()),
        }
    }

    async fn delete_range(&self, call: Call<PbDeleteRequest>) -> Result<Response<PbDeleteResponse>, Status> {
        let delete = call.into_inner();
        let size = delete.encoded_len();
        match self.single(Op::Delete(wire::delete_from_wire(delete)), size).await? {
            PbTxnOpResponse::ResponseDeleteRange(reply) => Ok(Response::new(reply)),
            _ => Err(mismatch()),
        }
    }

    async fn txn(&self, call: Call<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let txn = call.into_inner();
        let size = txn.encoded_len();
        let txn = wire::txn_from_wire(txn).map_err(refuse)?;
        let (succeeded, answers, revision) = self.carry_out(txn, size).await?;
        let header = self.0.shared().header(revision);
        let responses = answers.into_iter().map(|answer| wire::op_to_wire(answer, header)).collect();
        Ok(Response::new(PbTxnResponse { header: Some(header), succeeded, responses }))
    }

    async fn compact(&self, call: Call<PbCompactionRequest>) -> Result<Response<PbCompactionResponse>, Status> {
        let (_, revision) = self.0.write(Request::Compact(call.into_inner().revision)).await?;
        Ok(Response::new(PbCompactionResponse { header: Some(self.0.shared().header(revision)) }))
    }
}
