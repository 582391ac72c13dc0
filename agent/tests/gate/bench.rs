//! What the tests stand on: a gate, and services whose every request is counted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use handover_agent::gate::client::GateLink;
use handover_agent::gate::control::{Admission, GateReport, GateState, Upstream, UpstreamReport};
use handover_agent::gate::server::{GateError, Server};
use handover_agent::gate::settings::GateSettings;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

use crate::visitor::Client;

/// Nothing here takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition, however long it takes within reason.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let looked = tokio::time::timeout(PATIENCE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(looked.await.is_ok(), "never came: {what}");
}

/// A gate in this process, with a link to it as the agent has one.
pub(crate) struct TestGate {
    pub(crate) address: SocketAddr,
    pub(crate) settings: GateSettings,
    pub(crate) link: GateLink,
    seq: AtomicU64,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), GateError>>,
    directory: Arc<tempfile::TempDir>,
}

impl TestGate {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut GateSettings)) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let path = |name: &str| -> PathBuf { directory.path().join(name) };
        let mut settings = GateSettings::new(([127, 0, 0, 1], 0).into(), path("gate.sock"), path("gate.json"));
        // Longer than any test: those about the age of pooled connections set their own.
        settings.limits.pool_idle_time = Duration::from_secs(60);
        change(&mut settings);
        Self::start_in(directory, settings).await
    }

    pub(crate) async fn start_in(directory: Arc<tempfile::TempDir>, settings: GateSettings) -> Self {
        let server = Server::bind(settings.clone()).await.expect("bound");
        let address = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        let link = GateLink::connect(&settings.control);
        let gate = Self { address, settings, link, seq: AtomicU64::new(0), stop: Some(stop), task, directory };
        gate.report_when("the first report", |_| true).await;
        gate
    }

    /// Keeps the gate's files after its end.
    pub(crate) fn files(&self) -> Arc<tempfile::TempDir> {
        Arc::clone(&self.directory)
    }

    /// Another gate process's life with the same files.
    pub(crate) async fn restart(self) -> Self {
        let (directory, settings) = (self.files(), self.settings.clone());
        self.stop().await.expect("stopped in good order");
        Self::start_in(directory, settings).await
    }

    /// Sends the next state without waiting.
    pub(crate) fn send(&self, admission: Admission, upstreams: &[Upstream]) -> u64 {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed) + 1;
        self.link.send(GateState { seq, admission, upstreams: upstreams.to_vec() });
        seq
    }

    /// Sends the next state and waits until it is in force.
    pub(crate) async fn put(&self, admission: Admission, upstreams: &[Upstream]) -> u64 {
        let seq = self.send(admission, upstreams);
        self.report_when("the state in force", |report| report.applied == seq).await;
        seq
    }

    pub(crate) async fn open(&self, upstreams: &[Upstream]) -> u64 {
        self.put(Admission::Open, upstreams).await
    }

    /// The first report that meets the condition.
    pub(crate) async fn report_when(&self, what: &str, condition: impl Fn(&GateReport) -> bool) -> GateReport {
        let mut reports = self.link.reports();
        let found = tokio::time::timeout(PATIENCE, async {
            let report = reports.wait_for(|report| report.as_ref().is_some_and(&condition)).await;
            report.expect("the link lives").clone().expect("a report")
        });
        match found.await {
            Ok(report) => report,
            Err(_) => panic!("never reported: {what}; last: {:#?}", self.link.reports().borrow()),
        }
    }

    /// What is reported about one upstream, once the condition is met.
    pub(crate) async fn upstream_when(
        &self,
        service: &Service,
        what: &str,
        condition: impl Fn(&UpstreamReport) -> bool,
    ) -> UpstreamReport {
        let instance = service.upstream(0, 0).instance;
        let find = |report: &GateReport| report.upstreams.iter().find(|one| one.instance == instance).cloned();
        let report = self.report_when(what, |report| find(report).is_some_and(|one| condition(&one))).await;
        find(&report).expect("reported")
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// Stops in good order.
    pub(crate) async fn stop(mut self) -> Result<(), GateError> {
        let _ = self.stop.take().expect("not stopped twice").send(());
        self.task.await.expect("no panic")
    }

    /// Tells it to stop, and hands back what comes of it.
    pub(crate) fn begin_to_stop(mut self) -> JoinHandle<Result<(), GateError>> {
        let _ = self.stop.take().expect("not stopped twice").send(());
        self.task
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

/// A service that counts, and does what the path says:
/// `/wait…` answers when released; `/drip…` sends the head and `first,`, and the rest when released; `/tick…` the same with `tick,` again and again until then; `/break…` sends the head
/// and a part of its body and closes when released; `/status/N` answers N; `/close…` closes without an answer; `/early…` answers before it has read the request body; `/echo…` sends
/// the request body back, `/trailers…` with trailers after it; `/upgrade…` switches to the protocol that is offered and sends every byte back; `/head…` answers with the request's head. Everything else is answered with the service's name.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    number: u16,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

struct Shared {
    number: u16,
    http2: bool,
    requests: AtomicU64,
    seen: Mutex<HashMap<String, u64>>,
    connections: AtomicU64,
    tasks: Mutex<Vec<AbortHandle>>,
    release: Semaphore,
}

impl Service {
    pub(crate) async fn start(number: u16) -> Self {
        Self::start_at(number, ([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn start_at(number: u16, address: SocketAddr) -> Self {
        Self::start_speaking(number, address, false).await
    }

    /// One that speaks HTTP/2 by prior knowledge, and nothing else.
    pub(crate) async fn start_http2(number: u16) -> Self {
        Self::start_speaking(number, ([127, 0, 0, 1], 0).into(), true).await
    }

    async fn start_speaking(number: u16, address: SocketAddr, http2: bool) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            http2,
            number,
            requests: AtomicU64::new(0),
            seen: Mutex::default(),
            connections: AtomicU64::new(0),
            tasks: Mutex::default(),
            release: Semaphore::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Self { address, number, shared, accepting }
    }

    /// This service as the gate's upstream.
    pub(crate) fn upstream(&self, reads: u32, writes: u32) -> Upstream {
        Upstream {
            instance: format!("{:016x}", self.number).parse().expect("an id"),
            version: format!("1.{}.0", self.number).parse().expect("a version"),
            address: self.address,
            reads,
            writes,
            ready: true,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("service-{}", self.number)
    }

    /// Requests whose head arrived here.
    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Connections accepted here.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How often a request with this `METHOD /path` arrived here.
    pub(crate) fn saw(&self, what: &str) -> u64 {
        self.shared.seen.lock().expect("not poisoned").get(what).copied().unwrap_or(0)
    }

    /// Lets so many waiting requests go on.
    pub(crate) fn release(&self, count: usize) {
        self.shared.release.add_permits(count);
    }

    /// Dies as a killed process does: listener and connections are gone at once.
    pub(crate) fn kill(&self) {
        self.accepting.abort();
        for task in self.shared.tasks.lock().expect("not poisoned").drain(..) {
            task.abort();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn count(&self, what: &str) {
        *self.seen.lock().expect("not poisoned").entry(what.to_owned()).or_default() += 1;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("nodelay");
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let at = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&at), request));
            if at.http2 {
                let server = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            }
        });
        shared.tasks.lock().expect("not poisoned").push(task.abort_handle());
    }
}

async fn answer(at: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    let path = request.uri().path().to_owned();
    at.requests.fetch_add(1, Ordering::SeqCst);
    at.count(&format!("{} {path}", request.method()));
    let name = format!("service-{}", at.number);
    let word = path.trim_start_matches('/').split(['/', '-']).next().unwrap_or_default().to_owned();
    match word.as_str() {
        "wait" => {
            at.release.acquire().await.expect("open").forget();
            Ok(Response::new(whole(name)))
        }
        "drip" => {
            let kind = request.headers().get("content-type").cloned();
            let mut response = Response::new(streamed(at, Ok(Bytes::from(name))));
            response.headers_mut().extend(kind.map(|kind| (hyper::header::CONTENT_TYPE, kind)));
            Ok(response)
        }
        "tick" => Ok(Response::new(ticking(at))),
        "break" => Ok(Response::new(streamed(at, Err(std::io::Error::other("broken on purpose"))))),
        "close" => Err(std::io::Error::other("closed on purpose")),
        "status" => {
            let status = path.rsplit('/').next().and_then(|n| n.parse::<u16>().ok()).expect("a status");
            let mut response = Response::new(whole(name));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            Ok(response)
        }
        "early" => {
            let mut upload = request.into_body();
            tokio::spawn(async move {
                let mut bytes = 0;
                while !upload.is_end_stream() {
                    let Some(Ok(frame)) = upload.frame().await else { return };
                    bytes += frame.data_ref().map_or(0, Bytes::len);
                }
                at.count(&format!("{bytes} bytes"));
            });
            Ok(Response::new(whole(name)))
        }
        "echo" => Ok(Response::new(request.into_body().map_err(std::io::Error::other).boxed())),
        "trailers" => Ok(with_trailers(request)),
        "upgrade" => Ok(switch(at, request)),
        "head" => Ok(Response::new(whole(format!("{request:?}")))),
        _ => {
            let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
            let mut response = Response::new(whole(name));
            response.headers_mut().insert("x-request-bytes", body.len().into());
            Ok(response)
        }
    }
}

/// What gRPC is made of: the body back, and then fields.
fn with_trailers(request: Request<Incoming>) -> Response<Body> {
    let kind = request.headers().get("content-type").cloned();
    let trailers = [("grpc-status", "0"), ("x-sum", "1")];
    let trailers = trailers.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
    let trailers = hyper::HeaderMap::from_iter(trailers);
    // Of unknown length, else it would not be chunked by HTTP/1.1.
    let body = StreamBody::new(http_body_util::BodyStream::new(request.into_body()))
        .with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body.map_err(std::io::Error::other).boxed());
    response.headers_mut().insert("trailer", "grpc-status, x-sum".parse().expect("a value"));
    response.headers_mut().extend(kind.map(|kind| (hyper::header::CONTENT_TYPE, kind)));
    response
}

fn switch(at: Arc<Shared>, mut request: Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(whole(String::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for name in [hyper::header::UPGRADE, hyper::header::CONNECTION] {
        let value = request.headers().get(&name).expect("an offer").clone();
        response.headers_mut().insert(name, value);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let echo = tokio::spawn(async move {
        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.expect("upgraded")));
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut write, b"bye").await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
    });
    at.tasks.lock().expect("not poisoned").push(echo.abort_handle());
    response
}

fn whole(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
}

/// Says something every 30 ms until released.
fn ticking(at: Arc<Shared>) -> Body {
    let (sender, frames) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    tokio::spawn(async move {
        let end = async { at.release.acquire().await.expect("open").forget() };
        tokio::pin!(end);
        while sender.send(Ok(Frame::data(Bytes::from_static(b"tick,")))).await.is_ok() {
            if tokio::time::timeout(Duration::from_millis(30), &mut end).await.is_ok() {
                return;
            }
        }
    });
    StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(frames)).boxed()
}

fn streamed(at: Arc<Shared>, last: Result<Bytes, std::io::Error>) -> Body {
    let (sender, frames) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    tokio::spawn(async move {
        let _ = sender.send(Ok(Frame::data(Bytes::from_static(b"first,")))).await;
        at.release.acquire().await.expect("open").forget();
        let _ = sender.send(last.map(Frame::data)).await;
    });
    StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(frames)).boxed()
}
