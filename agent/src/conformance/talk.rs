//! The talk with the service under test, as the agent would hold it: records with growing numbers, and its answers.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use handover_proto::ids::InstanceId;

use super::seen::Reply;
use crate::lease::call::post;
use crate::lease::clock::{ClockError, ClockIdentity, boot_now};
use crate::lease::deadline::{Boot, Deadlines};
use crate::lease::record::{LeaseRecord, RECORD_VERSION, Told};
use crate::report::chain;

/// Where a service takes its calls, if the URL does not say.
const DEFAULT_PATH: &str = "/handover/lease";

/// A URL that no call can be made to.
#[derive(Debug, thiserror::Error)]
#[error("{url} cannot be called ({why}); give it like http://127.0.0.1:9001/handover/lease")]
pub struct BadUrl {
    url: String,
    why: String,
}

/// Where the service takes its calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub app: SocketAddr,
    /// Its path.
    pub path: String,
}

/// The agent's side.
#[derive(Debug, Clone)]
pub struct Talk {
    place: Place,
    instance: InstanceId,
    clock: ClockIdentity,
    /// The number of the last record.
    pub seq: u64,
}

/// What one record says.
#[derive(Debug, Clone, Copy)]
pub struct Says {
    /// What the service may do.
    pub told: Told,
    /// Under which token.
    pub token: Option<u64>,
    /// Until when; none: no right.
    pub until: Option<Deadlines>,
}

/// Reads the URL.
///
/// # Errors
/// [`BadUrl`].
pub fn place(url: &str) -> Result<Place, BadUrl> {
    let bad = |why: &str| BadUrl { url: url.to_owned(), why: why.to_owned() };
    let rest = url.strip_prefix("http://").ok_or_else(|| bad("the agent calls over plain HTTP"))?;
    let (host, path) = rest.find('/').map_or((rest, DEFAULT_PATH), |at| rest.split_at(at));
    let mut found = host.to_socket_addrs().map_err(|error| bad(&error.to_string()))?;
    let app = found.next().ok_or_else(|| bad("the name has no address"))?;
    Ok(Place { app, path: if path == "/" { DEFAULT_PATH.to_owned() } else { path.to_owned() } })
}

impl Talk {
    /// Nothing has been said yet. Numbers begin above those that an agent of this boot can have used.
    ///
    /// # Errors
    /// If the clock cannot be read.
    pub fn new(place: Place, instance: InstanceId, clock: ClockIdentity) -> Result<Self, ClockError> {
        Ok(Self { place, instance, clock, seq: boot_now()?.ms() })
    }

    /// Tells it, under the next number.
    pub async fn tell(&mut self, says: Says, limit: Duration) -> Reply {
        self.seq += 1;
        self.tell_as(self.seq, says, limit).await
    }

    /// Tells it under this number.
    pub async fn tell_as(&self, seq: u64, says: Says, limit: Duration) -> Reply {
        let now = boot_now().map_err(|error| chain(&error))?;
        let ack = post(self.place.app, &self.place.path, &self.record(seq, says, now), limit).await;
        let ack = ack.map_err(|error| chain(&error))?;
        let token = says.token.map(|token| token.to_string());
        if (ack.v, ack.seq, &ack.token) == (RECORD_VERSION, seq, &token) {
            return Ok(ack);
        }
        let (theirs, ours) = (ack.token.as_deref().unwrap_or("none"), token.as_deref().unwrap_or("none"));
        Err(format!("it acknowledged token {theirs} and record {} instead of {ours} and {seq}", ack.seq))
    }

    fn record(&self, seq: u64, says: Says, now: Boot) -> LeaseRecord {
        let (soft, hard) = says.until.map_or_else(Default::default, |until| (until.soft, until.hard));
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        LeaseRecord {
            v: RECORD_VERSION,
            instance: self.instance.clone(),
            state: says.told,
            token: says.token.map(|token| token.to_string()),
            seq,
            op: None,
            boot_id: self.clock.boot_id.clone(),
            time_ns: self.clock.time_ns.clone(),
            soft_deadline_boot_ns: soft.ns(),
            hard_deadline_boot_ns: hard.ns(),
            remaining_soft_ms: ms(soft.since(now)),
            remaining_hard_ms: ms(hard.since(now)),
            reason: "the conformance kit plays the agent".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_and_a_path() {
        let app = ([127, 0, 0, 1], 9001).into();
        let at = |path: &str| Place { app, path: path.to_owned() };
        assert_eq!(place("http://127.0.0.1:9001/lease").expect("a place"), at("/lease"));
        for url in ["http://127.0.0.1:9001", "http://127.0.0.1:9001/"] {
            assert_eq!(place(url).expect("a place"), at(DEFAULT_PATH));
        }
        for url in ["https://127.0.0.1:9001/", "127.0.0.1:9001", "http://127.0.0.1", "http://no-such-host.invalid:1/"] {
            let error = place(url).expect_err(url).to_string();
            assert!(error.contains(url), "{error}");
        }
    }
}
