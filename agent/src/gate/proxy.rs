//! One request: class, admission, forward, answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::{Body, Incoming};
use hyper::{Request, Response, header};

use super::body::{Exchange, PassedBody, ResponseBody};
use super::class::class_of;
use super::connection::{Running, Watched};
use super::forward::{self, Answer};
use super::headers;
use super::reply;
use super::ticket::Gate;
use super::upload::RequestBody;

/// Answers one request; the answer's body is still to be streamed.
pub(super) async fn serve(
    gate: Arc<Gate>,
    line: Arc<Watched>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let running = line.begin();
    let (mut head, body) = request.into_parts();
    let expects_continue = head.headers.contains_key(header::EXPECT);
    let body = RequestBody::new(body, Arc::clone(&gate), running.clone(), expects_continue);
    if let Err((reason, detail)) = headers::check(&head) {
        return Ok(reply::own(&gate, reason, Some(detail), running));
    }
    let class = class_of(&gate.settings.rules, head.method.as_str(), head.uri.path());
    let ticket = match gate.enter(class).await {
        Ok(ticket) => ticket,
        Err(reason) => return Ok(reply::own(&gate, reason, None, running)),
    };
    headers::to_upstream(&mut head, !body.is_end_stream(), peer, gate.settings.forwarded, ticket.upstream());
    let request = Request::from_parts(head, body);
    Ok(match forward::forward(&gate, class, ticket, request).await {
        Ok(answer) => pass_on(&gate, answer, running),
        Err(reason) => reply::own(&gate, reason, None, running),
    })
}

fn pass_on(gate: &Arc<Gate>, answer: Answer, running: Running) -> Response<ResponseBody> {
    let (mut head, body) = answer.response.into_parts();
    let tag = gate.settings.tag_responses.then(|| answer.ticket.upstream());
    headers::to_client(&mut head, tag, gate.dismisses_clients());
    let body =
        PassedBody::new(body, Arc::clone(gate), Exchange::of(answer.link, answer.ticket, answer.upload, running));
    Response::from_parts(head, ResponseBody::Passed(body))
}
