//! Loads made by programs that nobody here wrote: wrk for HTTP/1.1, h2load for HTTP/2.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::peers::Variant;

/// Streams at one time in all.
const H2_STREAMS: u64 = 64;

/// What is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    /// 34 bytes on 64 connections that are kept.
    Small,
    /// 34 bytes on 8 connections, for latencies.
    Unhurried,
    /// 1 MiB on 8 connections.
    Large,
    /// A connection for each request.
    Churn,
    /// 34 bytes over HTTP/2 without TLS: 8 connections of 8 streams.
    Http2,
    /// 34 bytes over TLS, 64 connections that are kept.
    Tls,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Got {
    pub(super) requests: u64,
    pub(super) failed: u64,
    pub(super) per_second: f64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

impl Scenario {
    pub(super) const ALL: [Self; 6] = [Self::Small, Self::Unhurried, Self::Large, Self::Churn, Self::Http2, Self::Tls];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "small bodies",
            Self::Unhurried => "small bodies, 8 clients",
            Self::Large => "1 MiB bodies",
            Self::Churn => "a connection each",
            Self::Http2 => "HTTP/2",
            Self::Tls => "TLS",
        }
    }

    pub(super) fn path(self) -> &'static str {
        if self == Self::Large { "/large" } else { "/small" }
    }

    pub(super) fn variant(self) -> Variant {
        match self {
            Self::Http2 => Variant::Http2,
            Self::Tls => Variant::Tls,
            _ => Variant::Plain,
        }
    }

    /// The gate's CPU per request over HAProxy's.
    pub(super) fn cpu_aim(self) -> Option<f64> {
        match self {
            Self::Small => Some(1.0),
            Self::Large => Some(0.5),
            _ => None,
        }
    }

    /// Loads `url` for so long.
    pub(super) fn run(self, url: &str, lasting: Duration) -> Result<Got> {
        let seconds = lasting.as_secs().max(1);
        if self == Self::Http2 {
            return h2load(url, seconds);
        }
        let connections = if matches!(self, Self::Unhurried | Self::Large) { "8" } else { "64" };
        let mut wrk = Command::new("wrk");
        wrk.args(["-t1", "-c", connections, "-d", &format!("{seconds}s"), "--latency"]);
        if self == Self::Churn {
            wrk.args(["-H", "Connection: close"]);
        }
        of_wrk(&said(wrk.arg(url))?)
    }
}

fn said(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.output().with_context(|| format!("{program} cannot be run: `tests/run --tools` installs it"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads wrk's summary.
fn of_wrk(text: &str) -> Result<Got> {
    let line = |begin: &str| text.lines().map(str::trim).find_map(|line| line.strip_prefix(begin)).map(str::trim);
    let span = |begin| line(begin).and_then(span).with_context(|| format!("wrk said no {begin}: {text}"));
    let count = text.lines().find_map(|line| line.split_once(" requests in ")).map(|(count, _)| count.trim());
    let wrong = line("Non-2xx or 3xx responses:").map_or(Ok(0), str::parse)?;
    // "Socket errors: connect 0, read 3, write 0, timeout 0"
    let broken: u64 = line("Socket errors:")
        .map_or(0, |list| list.split(',').filter_map(|one| one.trim().rsplit(' ').next()?.parse::<u64>().ok()).sum());
    Ok(Got {
        requests: count.context("wrk counted nothing")?.parse()?,
        failed: wrong + broken,
        per_second: line("Requests/sec:").context("wrk said no rate")?.parse()?,
        p50: span("50%")?,
        p99: span("99%")?,
    })
}

fn h2load(url: &str, seconds: u64) -> Result<Got> {
    let text = said(Command::new("h2load").args(["-c8", "-m8", "-t1", "-D", &seconds.to_string(), url]))?;
    of_h2load(&text)
}

/// Reads h2load's summary: it tells a mean and no quantiles, so the mean stands for the middle and the largest for the rest.
fn of_h2load(text: &str) -> Result<Got> {
    let after = |begin: &str| {
        text.lines().find_map(|line| line.strip_prefix(begin)).with_context(|| format!("h2load said no {begin} {text}"))
    };
    let counts: Vec<u64> =
        after("requests:")?.split(',').filter_map(|one| one.trim().split(' ').next()?.parse().ok()).collect();
    let [_, _, _, succeeded, failed, errored, timed_out] = counts[..] else {
        bail!("h2load counted otherwise: {text}")
    };
    let rate = after("finished in")?.split(", ").nth(1).and_then(|rate| rate.split(' ').next()).context("no rate")?;
    let times: Vec<Duration> = after("time for request:")?.split_whitespace().filter_map(span).collect();
    let [_, largest, mean, ..] = times[..] else { bail!("h2load said no times: {text}") };
    // It counts what was in flight when the time was up as errors, which are among the failed.
    let failed = (failed + timed_out).saturating_sub(errored.min(H2_STREAMS));
    Ok(Got { requests: succeeded, failed, per_second: rate.parse()?, p50: mean, p99: largest })
}

/// `1.24ms`, `56us`, `2.00s`.
fn span(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..unit].parse().ok()?;
    let seconds = match &text[unit..] {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_says_is_read() {
        let text = "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  Thread Stats   Avg      Stdev\n  \
            Latency Distribution\n     50%  742.00us\n     75%    1.20ms\n     90%    2.00ms\n     99%    3.61ms\n  \
            90210 requests in 2.00s, 11.00MB read\n  Socket errors: connect 0, read 2, write 1, timeout 0\n  \
            Non-2xx or 3xx responses: 4\nRequests/sec:  45105.2\nTransfer/sec: 5MB\n";
        let got = of_wrk(text).expect("read");
        assert_eq!((got.requests, got.failed), (90210, 7));
        assert_eq!((got.p50, got.p99), (Duration::from_micros(742), Duration::from_micros(3610)));
        assert!(of_wrk("unable to connect").is_err());
    }

    #[test]
    fn what_h2load_says_is_read_and_those_cut_by_the_end_of_time_are_not_failures() {
        let text = "finished in 2.01s, 31000.50 req/s, 2.1MB/s\n\
            requests: 62064 total, 62064 started, 62010 done, 62001 succeeded, 9 failed, 4 errored, 1 timeout\n\
            status codes: 62001 2xx, 0 3xx, 0 4xx, 5 5xx\n\
            time for request:      112us     14.10ms      2.05ms       500us    70.00%\n";
        let got = of_h2load(text).expect("read");
        assert_eq!((got.requests, got.failed, got.per_second), (62001, 6, 31000.5));
        assert_eq!((got.p50, got.p99), (Duration::from_micros(2050), Duration::from_micros(14_100)));
    }
}
