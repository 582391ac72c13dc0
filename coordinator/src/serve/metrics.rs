//! The coordinator's Prometheus page. Made from the world at each scrape, so that nothing is counted twice.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::leader::Leadership;
use crate::clock::wall_ms;
use crate::view::metrics;
use crate::world::World;

const HEADER_TIME: Duration = Duration::from_secs(5);
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers `GET /metrics` for ever.
pub(super) async fn serve(
    listener: TcpListener,
    world: watch::Receiver<World>,
    leadership: watch::Receiver<Leadership>,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accept failed on the metrics port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (world, leadership) = (world.clone(), leadership.clone());
        // One connection each: a scraper asks every few seconds.
        tokio::spawn(async move {
            let answer = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let page = if request.uri().path() == "/metrics" {
                    let term = leadership.borrow().mandate().map(|mandate| mandate.term.get());
                    metrics::render(&world.borrow(), term, wall_ms())
                } else {
                    Ok(None)
                };
                async move { Ok::<_, Infallible>(respond(page)) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), answer).await {
                tracing::debug!(%error, "a connection on the metrics port broke");
            }
        });
    }
}

fn respond(page: Result<Option<String>, std::fmt::Error>) -> Response<Full<Bytes>> {
    let (status, kind, body) = match page {
        Ok(Some(text)) => (StatusCode::OK, TYPE, text),
        Ok(None) => (StatusCode::NOT_FOUND, "text/plain", "/metrics\n".to_owned()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error.to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
