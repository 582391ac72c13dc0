//! One request: class, admission, forward, answer.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::Instant;

use super::admission::Ask;
use super::body::{Exchange, Manner, OwnBody, PassedBody, ResponseBody};
use super::class::class_of;
use super::connection::{Running, Watched};
use super::control::Reason;
use super::cut::About;
use super::forward::{self, Answer, Way};
use super::grpc;
use super::headers::{self, Hop};
use super::patience::Patience;
use super::reply::{self, Asked};
use super::settings::UpstreamProtocol;
use super::ticket::Gate;
use super::tunnel::Tunnel;
use super::upload::RequestBody;

/// An offer to switch protocols that is passed on.
struct Offer {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// Answers one request; the answer's body is still to be streamed.
pub(super) async fn serve(
    gate: Arc<Gate>,
    line: Arc<Watched>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let running = line.begin();
    let http2 = request.version() == Version::HTTP_2;
    if request.version() < Version::HTTP_11 {
        line.is_old();
    }
    let offer = offer(&gate, &mut request);
    let (mut head, body) = request.into_parts();
    let asked = Asked {
        http2,
        grpc: http2 && grpc::is_grpc(&head.headers),
        head: head.method == Method::HEAD,
        id: gate.ids.of(&mut head.headers, gate.settings.forwarded),
    };
    let lingers = http2 || !head.headers.contains_key(header::EXPECT);
    let body = RequestBody::new(body, Arc::clone(&gate), running.clone(), lingers);
    if let Err((reason, detail)) = headers::check(&head) {
        return Ok(reply::own(&gate, reason, Some(detail), running, &asked));
    }
    if let Some(classes) = gate.settings.asks_ready(head.method.as_str(), head.uri.path()) {
        return Ok(reply::ready(&gate, classes, running, &asked));
    }
    let class = class_of(&gate.settings.rules, head.method.as_str(), head.uri.path());
    let ask = Ask { class, pin: gate.settings.pin.asked(&head.headers) };
    let way = Way {
        ask,
        http2: goes_by_http2(gate.settings.upstream, http2),
        upgrade: offer.is_some(),
        deadline: gate.settings.limits.request_time.map(|time| Instant::now() + time),
    };
    let mut patience = Patience::default();
    let entered = match line.share.is_within(gate.settings.limits.in_flight_of_a_peer()) {
        true => forward::in_time(way.deadline, gate.enter(ask, &line.share, &mut patience)).await,
        false => Err(Reason::PeerLimit),
    };
    let ticket = match entered {
        Ok(ticket) => ticket.about(Some(About::request(&head.method, &head.uri, line.peer))),
        Err(reason) => return Ok(reply::own(&gate, reason, None, running, &asked)),
    };
    let hop = Hop {
        has_body: !body.is_end_stream(),
        origin: &line.origin,
        forwarded: gate.settings.forwarded,
        upstream: ticket.upstream(),
        upgrade: offer.as_ref().map(|offer| &offer.protocol),
        http2: way.http2,
    };
    headers::to_upstream(&mut head, &hop);
    let request = Request::from_parts(head, body);
    Ok(match forward::forward(&gate, way, &line.share, patience, ticket, request).await {
        Ok(answer) => pass_on(&gate, &line, answer, running, asked, way, offer),
        Err(reason) => reply::own(&gate, reason, None, running, &asked),
    })
}

fn goes_by_http2(upstream: UpstreamProtocol, client: bool) -> bool {
    match upstream {
        UpstreamProtocol::Http1 => false,
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::AsClient => client,
    }
}

fn offer(gate: &Gate, request: &mut Request<Incoming>) -> Option<Offer> {
    // Nearly no request has one.
    if !request.headers().contains_key(header::UPGRADE) || gate.settings.upstream == UpstreamProtocol::Http2 {
        return None;
    }
    let has_body = !request.body().is_end_stream();
    let protocol = headers::upgrade_offer(request.version(), request.headers(), has_body)?;
    Some(Offer { protocol, client: hyper::upgrade::on(request) })
}

fn pass_on(
    gate: &Arc<Gate>,
    line: &Arc<Watched>,
    answer: Answer,
    running: Running,
    asked: Asked,
    way: Way,
    offer: Option<Offer>,
) -> Response<ResponseBody> {
    let switched = answer.response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if let (true, Some(offer)) = (switched, offer) {
        return switch(gate, line, answer, running, asked, offer);
    }
    let (mut head, body) = answer.response.into_parts();
    let is_grpc = asked.grpc && grpc::is_grpc(&head.headers);
    let ends_at = if is_grpc { line.streams_end_at() } else { None };
    let manner = Manner { http2: asked.http2, grpc: is_grpc, deadline: way.deadline, ends_at };
    let tag = gate.settings.tag_responses.then(|| answer.ticket.upstream());
    headers::to_client(&mut head, tag, asked.id, !asked.http2 && gate.dismisses_clients());
    if let Some(cookie) = gate.settings.pin.cookie_for(&answer.ticket.upstream().version, way.ask.pin) {
        head.headers.append(header::SET_COOKIE, cookie);
    }
    line.answers(way.deadline);
    let exchange = Exchange::of(answer.link, answer.ticket, answer.upload);
    let body = PassedBody::new(body, Arc::clone(gate), exchange, running, manner);
    Response::from_parts(head, ResponseBody::Passed(body))
}

/// The service agreed to switch: the request is over, and the two connections become a tunnel.
fn switch(
    gate: &Gate,
    line: &Arc<Watched>,
    mut answer: Answer,
    running: Running,
    asked: Asked,
    offer: Offer,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut answer.response);
    let (mut head, _) = answer.response.into_parts();
    let agreed = head.headers.get(header::UPGRADE).unwrap_or(&offer.protocol);
    let websocket = headers::is_websocket(agreed);
    answer.ticket.upgraded();
    let tag = gate.settings.tag_responses.then(|| answer.ticket.upstream());
    headers::to_client(&mut head, tag, asked.id, false);
    line.becomes(Tunnel { client: offer.client, upstream, link: answer.link, ticket: answer.ticket, websocket });
    Response::from_parts(head, ResponseBody::Own(OwnBody::new(Bytes::new(), running, false)))
}
