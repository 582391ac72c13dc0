//! gRPC clients: the generated client over a connection of ours, so that its end can be watched.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use tower_service::Service;

use super::Visit;
use super::book::End;
use super::fate::is_returned;
use super::http2::Line;
use crate::billing::traffic::grpc::{Answer, BillingClient, Question};

type Client = BillingClient<Channel>;

/// One connection, as the generated client wants it.
#[derive(Clone)]
struct Channel(Line<tonic::body::Body>);

impl Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.sender.poll_ready(cx)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let mut line = self.0.clone();
        Box::pin(async move { line.sender.send_request(request).await })
    }
}

async fn connect(visit: &Visit) -> Result<(Client, Line<tonic::body::Body>), String> {
    let line = Line::connect(visit).await?;
    let origin = format!("http://{}", visit.gate).parse().map_err(|error| format!("{error}"))?;
    Ok((BillingClient::with_origin(Channel(line.clone()), origin), line))
}

/// Whether the call came back by the protocol's own word.
fn came_back(status: &Status) -> bool {
    std::error::Error::source(status).is_some_and(is_returned)
}

/// Whether the call never left us: its connection had ended, which is booked there.
fn is_unsent(status: &Status) -> bool {
    let error = std::error::Error::source(status).and_then(|error| error.downcast_ref::<hyper::Error>());
    error.is_some_and(hyper::Error::is_canceled)
}

/// Calls, one after the other, until the crowd goes home.
pub(super) async fn asks(mut visit: Visit) {
    let mut current: Option<(Client, Line<tonic::body::Body>)> = None;
    for number in 1.. {
        visit.rest().await;
        if visit.is_over() {
            return;
        }
        visit.book.note(visit.kind, |counts| counts.sent += 1);
        let began = Instant::now();
        if current.as_ref().is_none_or(|(_, line)| line.is_left()) {
            match connect(&visit).await {
                Ok(fresh) => current = Some(fresh),
                Err(why) => {
                    visit.book.lost(visit.kind, why);
                    continue;
                }
            }
        }
        let Some((client, line)) = &mut current else { continue };
        let _under_way = line.begin();
        let question = Question { number, wait_ms: rand::random_range(0..100) };
        match timeout(visit.patience, client.ask(question)).await {
            Ok(Ok(answer)) if answer.get_ref().number == number => visit.book.answered(visit.kind, began.elapsed()),
            Ok(Ok(answer)) => visit.book.lost(visit.kind, format!("asked {number}, answered {:?}", answer.get_ref())),
            Ok(Err(status)) if came_back(&status) || is_unsent(&status) => {
                visit.book.note(visit.kind, |counts| counts.returned += 1)
            }
            Ok(Err(status)) => visit.book.lost(visit.kind, said(&status)),
            Err(_) => visit.book.lost(visit.kind, "no answer in time"),
        }
    }
}

/// One stream after the other, each as long as it lasts.
pub(super) async fn talks(mut visit: Visit) {
    while !visit.is_over() {
        match connect(&visit).await {
            Ok((client, line)) => {
                let _under_way = line.begin();
                talk(&mut visit, client).await;
            }
            Err(why) => {
                visit.book.note(visit.kind, |counts| counts.sent += 1);
                visit.book.lost(visit.kind, why);
            }
        }
        visit.rest().await;
    }
}

async fn talk(visit: &mut Visit, mut client: Client) {
    let (questions, stream) = mpsc::channel(1);
    // The first question goes with the call: the other side may wait for it before it says a word.
    let mut waits = Some(Waits::begin(visit, 1));
    let first = questions.send(Question { number: 1, wait_ms: 0 }).await;
    let mut answers = match timeout(visit.patience, client.talk(ReceiverStream::new(stream))).await {
        Ok(Ok(answers)) if first.is_ok() => answers.into_inner(),
        Ok(Ok(_)) => return,
        Ok(Err(status)) => return ended(visit, waits, Some(&status)),
        Err(_) => return visit.book.lost(visit.kind, "a stream did not begin in time"),
    };
    for number in 2.. {
        match next(visit, &mut answers, &mut waits).await {
            Next::Go => {}
            Next::Ended(status) => return ended(visit, waits, status.as_ref()),
            Next::Over => return,
        }
        waits = Some(Waits::begin(visit, number));
        if questions.send(Question { number, wait_ms: 0 }).await.is_err() {
            // The call has ended: the next reading says how.
            continue;
        }
    }
}

/// A question without its answer yet.
struct Waits {
    number: u64,
    since: Instant,
}

impl Waits {
    fn begin(visit: &Visit, number: u64) -> Self {
        visit.book.note(visit.kind, |counts| counts.sent += 1);
        Self { number, since: Instant::now() }
    }
}

enum Next {
    /// Answered and rested.
    Go,
    /// By the other side; none: with a status of success.
    Ended(Option<Status>),
    /// The crowd goes home, or this stream is given up.
    Over,
}

/// Waits for the answer, then rests; a stream that ends is noticed in both.
async fn next(visit: &mut Visit, answers: &mut Streaming<Answer>, waits: &mut Option<Waits>) -> Next {
    if let Some(question) = waits.as_ref() {
        match timeout(visit.patience, answers.message()).await {
            Ok(Ok(Some(answer))) if answer.number == question.number => {
                visit.book.answered(visit.kind, question.since.elapsed());
                *waits = None;
            }
            Ok(Ok(Some(answer))) => {
                visit.book.lost(visit.kind, format!("asked {}, answered {}", question.number, answer.number));
                return Next::Over;
            }
            Ok(Ok(None)) => return Next::Ended(None),
            Ok(Err(status)) => return Next::Ended(Some(status)),
            Err(_) => {
                visit.book.lost(visit.kind, "no answer in time on a stream");
                return Next::Over;
            }
        }
    }
    tokio::select! {
        message = answers.message() => match message {
            Ok(Some(_)) => {
                visit.book.lost(visit.kind, "an answer that nobody asked for");
                Next::Over
            }
            Ok(None) => Next::Ended(None),
            Err(status) => Next::Ended(Some(status)),
        },
        () = visit.rest() => if visit.is_over() { Next::Over } else { Next::Go },
    }
}

/// The other side ended a stream. With a status of its own, in trailers, it did so in good order.
fn ended(visit: &Visit, waits: Option<Waits>, status: Option<&Status>) {
    let came_back = status.is_some_and(came_back);
    let orderly = status.is_none_or(|s| s.code() == Code::Unavailable && std::error::Error::source(s).is_none());
    let why = status.map(said).unwrap_or_default();
    if status.is_some_and(is_unsent) {
        return visit.book.note(visit.kind, |counts| counts.returned += u64::from(waits.is_some()));
    }
    if came_back || orderly {
        visit.book.note(visit.kind, |counts| counts.returned += u64::from(waits.is_some()));
        visit.book.ended(visit.kind, End::Announced, &why);
        return;
    }
    if waits.is_some() {
        visit.book.lost(visit.kind, why.clone());
    }
    visit.book.ended(visit.kind, End::Dropped, why);
}

fn said(status: &Status) -> String {
    let cause = std::iter::successors(std::error::Error::source(status), |error| error.source());
    let causes: String = cause.map(|error| format!(": {error}")).collect();
    format!("{:?}: {}{causes}", status.code(), status.message())
}
