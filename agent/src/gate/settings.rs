//! What an operator can set about the gate. Every number has a default and a reason.

mod error;
mod http2;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::error::SettingsError;
use super::class::{Class, ClassRule};
use super::pin::PinSettings;
use super::streams::Http2Limits;
use super::tls::TlsSettings;
use super::upgraded::UpgradedSettings;

/// What the gate speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// HTTP: each request is balanced.
    #[default]
    Proxy,
    /// Anything: each connection is balanced.
    Tcp,
}

/// The gate's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSettings {
    /// What it speaks.
    #[serde(default)]
    pub mode: Mode,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The Unix socket on which the agent talks to the gate.
    pub control: PathBuf,
    /// Where the last state is kept, so that a restarted gate begins with its routes.
    pub state_file: PathBuf,
    /// Exceptions from "GET, HEAD and OPTIONS are reads".
    #[serde(default)]
    pub rules: Vec<ClassRule>,
    /// How clients are bound to a version.
    #[serde(default)]
    pub pin: PinSettings,
    /// Where balancers ask whether to send here; `/read` and `/write` behind it ask for one class. The gate answers by itself,
    /// also while there is no agent. Empty: nowhere.
    #[serde(default = "ready_path")]
    pub ready_path: String,
    /// Adds `handover-version` and `handover-instance` to every answer.
    #[serde(default)]
    pub tag_responses: bool,
    /// What becomes of what the client itself says about where a request comes from.
    #[serde(default)]
    pub forwarded: Forwarded,
    /// The certificate, if clients are to speak TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// What is spoken to the service.
    #[serde(default)]
    pub upstream: UpstreamProtocol,
    /// What becomes of WebSockets and other upgraded connections.
    #[serde(default)]
    pub upgraded: UpgradedSettings,
    /// Bounds on connections that speak HTTP/2.
    #[serde(default)]
    pub http2: Http2Limits,
    /// How requests wait.
    #[serde(default)]
    pub hold: HoldSettings,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
}

fn ready_path() -> String {
    "/handover/ready".to_owned()
}

/// What becomes of `X-Forwarded-For`, `-Host`, `-Proto`, `Forwarded` and `X-Request-Id` that a request already carries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forwarded {
    /// Replaced: clients connect to the gate directly, and what they claim is not to be believed.
    #[default]
    Replace,
    /// Kept and added to: a balancer that sets them is in front.
    Append,
}

/// What the gate speaks to the service. What clients speak to the gate is found out from each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1, whatever the client speaks.
    #[default]
    Http1,
    /// HTTP/2 by prior knowledge, whatever the client speaks. Offers to upgrade (WebSocket) are then not passed on.
    Http2,
    /// HTTP/2 for requests that came by HTTP/2, which gRPC needs; HTTP/1.1 for the others.
    AsClient,
}

/// How requests wait while the gate holds, or while nobody is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HoldSettings {
    /// How many may wait at one time.
    pub count: u64,
    /// How many of one address may wait at one time; half of 1024 if it is left out. Behind balancers, which have few
    /// addresses, set it to `count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_per_peer: Option<u64>,
    /// How long each may wait; then it is answered 503.
    #[serde(with = "crate::duration")]
    pub time: Duration,
}

impl Default for HoldSettings {
    fn default() -> Self {
        // Half of the in-flight limit; and ten seconds, which most clients' own limit (30 s) still leaves room for.
        Self { count: 1024, count_per_peer: None, time: Duration::from_secs(10) }
    }
}

/// Bounds, so that no client and no service can take the whole gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at one time; more wait in the kernel's queue until one closes. 4096 idle ones take 75 MB.
    pub connections: usize,
    /// Client connections of one address at one time; more are closed at once, and counted. Half of all, so that one
    /// client cannot keep the others out; behind balancers, which have few addresses, set it to `connections`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections_per_peer: Option<usize>,
    /// Requests in flight at one time; more are answered 503.
    pub in_flight: u64,
    /// Requests of one address in hand at one time, held ones too; more are answered 503. Half of all, for the same reason
    /// as `connections_per_peer`; behind balancers set it to `in_flight`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight_per_peer: Option<u64>,
    /// Size of a request's head in bytes (request line and headers); larger is answered 431. 32 KiB is what most servers take.
    pub header_bytes: usize,
    /// Time for a request's head to arrive, from its first byte.
    #[serde(with = "crate::duration")]
    pub header_time: Duration,
    /// How long a client connection may stay without a request. Longer than the 60 s after which common balancers drop
    /// theirs, so that it is they who close and no request meets a closing gate.
    #[serde(with = "crate::duration")]
    pub idle_time: Duration,
    /// How long a body may stand still because the client neither sends nor reads.
    #[serde(with = "crate::duration")]
    pub stall_time: Duration,
    /// Time for a connection to an upstream. Upstreams are near: a second is a lost SYN already.
    #[serde(with = "crate::duration")]
    pub connect_time: Duration,
    /// Time for the head of an answer, from the last byte of the request that was passed on; then 504. Long, because the
    /// gate must not fail a request that the service would have answered.
    #[serde(with = "crate::duration")]
    pub answer_time: Duration,
    /// Time for a whole request, from its head to the end of its answer; then 504, or the answer is broken off. Off by default:
    /// downloads and streams take as long as they take, and what stands still is ended by `stall_time`.
    #[serde(with = "crate::duration::optional", skip_serializing_if = "Option::is_none")]
    pub request_time: Option<Duration>,
    /// Mode `tcp`: how long a connection may stand still both ways. Long, because clients keep connections on which nothing
    /// moves for many minutes, and cannot know that they were cut.
    #[serde(with = "crate::duration")]
    pub tcp_idle_time: Duration,
    /// Idle connections kept per upstream.
    pub pool_idle: usize,
    /// How long an idle connection to an upstream may be used again. Shorter than the shortest keep-alive of common servers
    /// (2 s), so that no request meets a closing service.
    #[serde(with = "crate::duration")]
    pub pool_idle_time: Duration,
    /// How long idle client connections are left open once the gate is shut or stopping: a request may be on its way.
    #[serde(with = "crate::duration")]
    pub leave_grace: Duration,
    /// How long a stopping gate waits for what is in flight.
    #[serde(with = "crate::duration")]
    pub stop_time: Duration,
    /// How long a gate that was replaced by a newer one waits for what is in flight: nobody waits for it, so a long
    /// download may come to its end.
    #[serde(with = "crate::duration")]
    pub replaced_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_peer: None,
            in_flight: 2048,
            in_flight_per_peer: None,
            header_bytes: 32 << 10,
            header_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(75),
            stall_time: Duration::from_secs(60),
            connect_time: Duration::from_secs(1),
            answer_time: Duration::from_secs(300),
            request_time: None,
            tcp_idle_time: Duration::from_secs(2 * 3600),
            pool_idle: 64,
            pool_idle_time: Duration::from_secs(1),
            leave_grace: Duration::from_secs(1),
            stop_time: Duration::from_secs(30),
            replaced_time: Duration::from_secs(3600),
        }
    }
}

impl HoldSettings {
    /// [`Self::count_per_peer`] as it is in force.
    pub fn of_a_peer(&self) -> u64 {
        self.count_per_peer.unwrap_or(512)
    }
}

impl Limits {
    /// [`Self::connections_per_peer`] as it is in force.
    pub fn connections_of_a_peer(&self) -> usize {
        self.connections_per_peer.unwrap_or(2048)
    }

    /// [`Self::in_flight_per_peer`] as it is in force.
    pub fn in_flight_of_a_peer(&self) -> u64 {
        self.in_flight_per_peer.unwrap_or(1024)
    }
}

impl GateSettings {
    /// Settings with every default.
    pub fn new(listen: SocketAddr, control: PathBuf, state_file: PathBuf) -> Self {
        Self {
            mode: Mode::default(),
            listen,
            control,
            state_file,
            rules: Vec::new(),
            pin: PinSettings::default(),
            ready_path: ready_path(),
            tag_responses: false,
            forwarded: Forwarded::default(),
            tls: None,
            upstream: UpstreamProtocol::default(),
            upgraded: UpgradedSettings::default(),
            http2: Http2Limits::default(),
            hold: HoldSettings::default(),
            limits: Limits::default(),
        }
    }

    /// How long a client that is there may take nothing of what is written to it.
    pub(super) fn patience_with_clients(&self) -> Duration {
        match self.mode {
            Mode::Proxy => self.limits.stall_time,
            Mode::Tcp => self.limits.tcp_idle_time,
        }
    }

    /// Checks the numbers against each other.
    ///
    /// # Errors
    /// On the first setting that cannot work.
    pub fn check(&self) -> Result<(), SettingsError> {
        self.pin.check()?;
        if self.mode == Mode::Tcp && self.tls.is_some() {
            return Err(SettingsError::TlsInTcp);
        }
        if !self.ready_path.is_empty()
            && (!self.ready_path.starts_with('/') || self.ready_path.contains(['?', '#', ' ']))
        {
            return Err(SettingsError::ReadyPath(self.ready_path.clone()));
        }
        if self.state_file.extension().is_some_and(|extension| extension == "new") {
            return Err(SettingsError::StateFile(self.state_file.clone()));
        }
        http2::check(&self.http2)?;
        let limits = &self.limits;
        at_least("limits.connections", limits.connections as u64, 1, "nobody could connect")?;
        at_least("limits.in_flight", limits.in_flight, 1, "every request would be refused")?;
        self.check_peers()?;
        at_least("limits.header_bytes", limits.header_bytes as u64, 1024, "ordinary requests would be refused")?;
        let times = [
            ("limits.header_time", limits.header_time),
            ("limits.idle_time", limits.idle_time),
            ("limits.stall_time", limits.stall_time),
            ("limits.connect_time", limits.connect_time),
            ("limits.answer_time", limits.answer_time),
            ("limits.tcp_idle_time", limits.tcp_idle_time),
        ];
        for (setting, given) in times {
            at_least_time(setting, given, Duration::from_millis(10), "every request would run out of time")?;
        }
        let age = self.http2.max_age.unwrap_or(Duration::MAX);
        at_least_time("http2.max_age", age, Duration::from_millis(10), "every connection would be too old")?;
        for (setting, given) in [("limits.stop_time", limits.stop_time), ("limits.replaced_time", limits.replaced_time)]
        {
            at_least_time(setting, given, limits.leave_grace, "it must outlast limits.leave_grace")?;
        }
        Ok(())
    }

    /// Of which classes a balancer asks whether to send them here, if this is that question.
    pub fn asks_ready(&self, method: &str, path: &str) -> Option<&'static [Class]> {
        if self.ready_path.is_empty() || !matches!(method, "GET" | "HEAD") {
            return None;
        }
        match path.strip_prefix(&self.ready_path)? {
            "" => Some(&[Class::Read, Class::Write]),
            "/read" => Some(&[Class::Read]),
            "/write" => Some(&[Class::Write]),
            _ => None,
        }
    }

    /// What one address may have, against what all may have. What is left out is not compared: whoever only lowers a total
    /// means no more than that.
    fn check_peers(&self) -> Result<(), SettingsError> {
        let (limits, hold) = (&self.limits, &self.hold);
        let connections = limits.connections_per_peer.map(|given| given as u64);
        let of_a_peer = [
            ("limits.connections_per_peer", connections, 1, "nobody could connect"),
            ("limits.in_flight_per_peer", limits.in_flight_per_peer, 1, "every request would be refused"),
            ("hold.count_per_peer", hold.count_per_peer, hold.count.min(1), "nobody could wait"),
        ];
        let of_all = [
            ("limits.connections", limits.connections as u64),
            ("limits.in_flight", limits.in_flight),
            ("hold.count", hold.count),
        ];
        for ((setting, given, least, why), (of, all)) in of_a_peer.into_iter().zip(of_all) {
            let Some(given) = given else { continue };
            at_least(setting, given, least, why)?;
            if given > all {
                return Err(SettingsError::MoreThanAll { setting, given, of, all });
            }
        }
        Ok(())
    }
}

fn at_least(setting: &'static str, given: u64, least: u64, why: &'static str) -> Result<(), SettingsError> {
    let error = || SettingsError::TooSmall { setting, given: given.to_string(), least: least.to_string(), why };
    if given < least { Err(error()) } else { Ok(()) }
}

fn at_least_time(s: &'static str, given: Duration, least: Duration, why: &'static str) -> Result<(), SettingsError> {
    let text = crate::duration::render;
    let error = || SettingsError::TooSmall { setting: s, given: text(given), least: text(least), why };
    if given < least { Err(error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
