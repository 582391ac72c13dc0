//! Lets requests go at their times, and reports what became of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::TaskTracker;

use crate::load::balance::Balance;
use crate::load::outcome::{Outcome, version};
use crate::load::pool::{Broken, Pool};
use crate::load::request::{self, Kind};
use crate::load::tally::Ticket;
use crate::load::{LoadSpec, Shared};

/// Sends until told to stop, then waits for what is in flight; every request ends by its timeout.
pub(super) async fn until_stopped(shared: &Arc<Shared>, spec: LoadSpec, run: String, mut stop: watch::Receiver<bool>) {
    let pools: Vec<_> = spec.gates.iter().map(|gate| Arc::new(Pool::new(*gate, spec.max_connections))).collect();
    let balance = Balance::new(&spec.balanced);
    let (requests, run) = (TaskTracker::new(), Arc::<str>::from(run));
    let start = Instant::from_std(shared.start);
    for n in 0.. {
        let intended = Duration::from_secs_f64(n as f64 / spec.rate_per_s);
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            () = sleep_until(start + intended) => {}
        }
        let kind = spec.mix.kind(n);
        let gate = balance.choose(request::gate(n, pools.len()));
        let ticket = shared.tally().leaves(n, kind, gate, intended, shared.start.elapsed());
        shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let (shared, pool, run) = (Arc::clone(shared), Arc::clone(&pools[gate]), Arc::clone(&run));
        let (deadline, slow) = (start + intended + spec.timeout, spec.mix.slow);
        requests.spawn(async move {
            send(&shared, &pool, &run, ticket, slow, deadline).await;
            shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        });
    }
    shared.tally().stopped(shared.start.elapsed());
    requests.close();
    requests.wait().await;
}

async fn send(shared: &Shared, pool: &Pool, run: &str, ticket: Ticket, slow: Duration, deadline: Instant) {
    let answer = async { pool.send(build(pool, run, ticket, slow)?).await };
    let late = |_| Err(Broken { outcome: Outcome::Timeout, detail: "no whole answer in time".to_owned() });
    let answer = timeout_at(deadline, answer).await.unwrap_or_else(late);
    let now = shared.start.elapsed();
    let mut tally = shared.tally();
    match answer {
        Ok(answer) => {
            for _ in 0..answer.stale {
                tally.stale_connection();
            }
            let outcome = Outcome::of_answer(answer.status, &answer.headers);
            let version = version(&answer.headers).map(str::to_owned);
            tally.ends(ticket, outcome, version, answer.status.to_string(), now);
        }
        Err(Broken { outcome, detail }) => tally.ends(ticket, outcome, None, detail, now),
    }
}

fn build(pool: &Pool, run: &str, ticket: Ticket, slow: Duration) -> Result<Request<Full<Bytes>>, Broken> {
    let (n, gate) = (ticket.n, pool.gate());
    let account = request::account(n);
    let builder = Request::builder().header(hyper::header::HOST, gate.to_string());
    let request = match ticket.kind {
        Kind::Read => builder.uri(format!("/balance/{account}")).body(Full::default()),
        Kind::Slow => builder.uri(format!("/slow?ms={}", slow.as_millis())).body(Full::default()),
        Kind::Write => builder
            .method(hyper::Method::POST)
            .uri("/charges")
            .header(hyper::header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", request::key(run, n))
            .body(Full::from(serde_json::json!({ "account": account, "cents": request::cents(n) }).to_string())),
    };
    request.map_err(|error| Broken { outcome: Outcome::Reset, detail: format!("building the request: {error}") })
}
