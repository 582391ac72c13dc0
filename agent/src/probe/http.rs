//! The `http` probe: one GET over a connection of its own, so that it sees whether new connections are served.

use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::check::{Target, failed};
use super::condition::Reading;
use super::field::{FieldPath, equal};
use super::settings::HttpCheck;

/// More of a body is not read: a status page is smaller, and a service gone wrong must not fill our memory.
const BODY_BYTES: usize = 64 * 1024;

/// So much of a refusing body is shown.
const SHOWN_CHARS: usize = 120;

pub(super) async fn look(check: &HttpCheck, target: &Target) -> Reading {
    match get(check, target).await {
        Ok((response, _connection)) => judge(check, response).await,
        Err(reading) => reading,
    }
}

/// The status that is answered, and the body.
pub(super) async fn answer(check: &HttpCheck, target: &Target) -> Result<(StatusCode, Result<Bytes, String>), String> {
    let (response, _connection) = get(check, target).await.map_err(|reading| match reading {
        Reading::Good(text) | Reading::Bad(text) | Reading::NotTaken(text) => text,
    })?;
    Ok((response.status(), body(response).await))
}

/// The JSON document that is answered with the wanted status; otherwise what is wrong, in words.
pub(super) fn document(check: &HttpCheck, status: StatusCode, body: Result<&[u8], String>) -> Result<Value, String> {
    let body = body.map_err(|error| format!("its body cannot be read: {error}"))?;
    if status.as_u16() != check.status {
        return Err(format!("{}, wanted {}{}", shown(status), check.status, excerpt(body)));
    }
    serde_json::from_slice(body).map_err(|error| format!("the body is not JSON ({error}){}", excerpt(body)))
}

/// Asks; the connection must live until the body has been read.
async fn get(check: &HttpCheck, target: &Target) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), Reading> {
    let address = target.address(check.port);
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| failed(&format!("cannot connect to {address}"), &error))?;
    let request = request(check, &address.to_string());
    let request = request.map_err(|error| Reading::Bad(format!("cannot ask {address}{}: {error}", check.path)))?;
    let answered = ask(stream, request).await;
    answered.map_err(|error| Reading::Bad(format!("no HTTP answer from {address}: {}", whole(&error))))
}

fn request(check: &HttpCheck, host: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::get(&check.path)
        .header(HOST, host)
        .header(USER_AGENT, "handover-agent")
        .header(CONNECTION, "close")
        .body(Empty::new())?;
    for (name, value) in &check.headers {
        request.headers_mut().insert(name, HeaderValue::clone(value));
    }
    Ok(request)
}

/// The connection must live until the body has been read; dropping it closes it.
async fn ask(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<(Response<Incoming>, AbortOnDropHandle<()>)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // Its error is the request's as well, and told there.
        let _ = connection.await;
    }));
    Ok((sender.send_request(request).await?, connection))
}

async fn judge(check: &HttpCheck, response: Response<Incoming>) -> Reading {
    let status = response.status();
    let wanted = check.field.is_some() || status.as_u16() != check.status;
    let body = if wanted { body(response).await } else { Ok(Bytes::new()) };
    judged(check, status, body.as_deref().map_err(String::clone))
}

/// What a whole answer says; the body's error is why it could not be read.
pub fn judged(check: &HttpCheck, status: StatusCode, body: Result<&[u8], String>) -> Reading {
    if status.as_u16() != check.status {
        return Reading::Bad(format!(
            "{}, wanted {}{}",
            shown(status),
            check.status,
            excerpt(body.unwrap_or_default())
        ));
    }
    let Some((field, wanted)) = &check.field else { return Reading::Good(shown(status)) };
    match body {
        Ok(body) => field_reading(field, wanted, body),
        Err(error) => Reading::Bad(format!("{}, but its body cannot be read: {error}", shown(status))),
    }
}

fn field_reading(field: &FieldPath, wanted: &Value, body: &[u8]) -> Reading {
    let document: Value = match serde_json::from_slice(body) {
        Ok(document) => document,
        Err(error) => return Reading::Bad(format!("the body is not JSON ({error}){}", excerpt(body))),
    };
    match field.find(&document) {
        Some(found) if equal(found, wanted) => Reading::Good(format!("{field} = {}", short(&found.to_string()))),
        Some(found) => Reading::Bad(format!("{field} = {}, wanted {wanted}", short(&found.to_string()))),
        None => Reading::Bad(format!("{field} is missing, wanted {wanted}")),
    }
}

async fn body(response: Response<Incoming>) -> Result<Bytes, String> {
    let limited = Limited::new(response.into_body(), BODY_BYTES);
    limited.collect().await.map(|body| body.to_bytes()).map_err(|error| whole(error.as_ref()))
}

fn shown(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    match text.trim() {
        "" => String::new(),
        text => format!(": {}", short(text)),
    }
}

/// One line, and not a long one.
pub(super) fn short(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() { format!("{line}…") } else { line }
}

/// hyper says only the outermost thing by itself.
fn whole(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", whole(source)),
        None => error.to_string(),
    }
}
