//! The gRPC side, on the same port. When the instance closes, a stream ends with `UNAVAILABLE` in its trailers.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tower_service::Service;

use super::Closing;
use crate::billing::http::{Billing, Body};

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/billing.v1.rs"));
}
pub use generated::billing_client::BillingClient;
use generated::billing_server::{Billing as Surface, BillingServer};
pub use generated::{Answer, Question};

/// Paths that are gRPC's.
pub const PREFIX: &str = "/billing.v1.Billing/";
/// The longest wait that a question may ask for.
const MAX_WAIT: Duration = Duration::from_secs(600);

#[derive(Clone)]
struct Calls {
    version: String,
    instance: String,
    closing: Closing,
}

impl Calls {
    async fn answer(&self, question: Question) -> Answer {
        tokio::time::sleep(Duration::from_millis(question.wait_ms.into()).min(MAX_WAIT)).await;
        Answer { number: question.number, version: self.version.clone(), instance: self.instance.clone() }
    }

    /// Answers until the client has no more questions, or the instance closes.
    async fn talk(self, mut questions: Streaming<Question>, answers: mpsc::Sender<Result<Answer, Status>>) {
        loop {
            let mut closing = self.closing.clone();
            let question = tokio::select! {
                question = questions.message() => question,
                () = closing.wait() => {
                    // The client is gone, then; it needs no word.
                    let _gone = answers.send(Err(Status::unavailable("the instance stops"))).await;
                    return;
                }
            };
            let Ok(Some(question)) = question else { return };
            let answer = self.answer(question).await;
            if answers.send(Ok(answer)).await.is_err() {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl Surface for Calls {
    async fn ask(&self, question: tonic::Request<Question>) -> Result<tonic::Response<Answer>, Status> {
        Ok(tonic::Response::new(self.answer(question.into_inner()).await))
    }

    type TalkStream = ReceiverStream<Result<Answer, Status>>;

    async fn talk(
        &self,
        questions: tonic::Request<Streaming<Question>>,
    ) -> Result<tonic::Response<Self::TalkStream>, Status> {
        let (answers, stream) = mpsc::channel(1);
        let calls = self.clone();
        self.closing.open.spawn(async move { Self::talk(calls, questions.into_inner(), answers).await });
        Ok(tonic::Response::new(ReceiverStream::new(stream)))
    }
}

/// Answers one call.
pub(super) async fn answer(billing: &Billing, request: Request<Incoming>) -> Response<Body> {
    let calls = Calls {
        version: billing.version.to_string(),
        instance: billing.agent.instance.to_string(),
        closing: billing.closing.clone(),
    };
    let answered = BillingServer::new(calls).call(request).await;
    let response = answered.unwrap_or_else(|never| match never {});
    response.map(|body| body.map_err(Into::into).boxed_unsync())
}
