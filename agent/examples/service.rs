//! A scheduler under Handover's lease. Rust's standard library only: `rustc --edition 2024 service.rs` is enough.
//!
//! The agent starts it, with `service = "pull"` under `[lease]` in its config; the environment names socket and instance.
//! It asks with a long poll, works on a second thread, keeps its own deadline on CLOCK_BOOTTIME, and acknowledges each
//! record. Silence ends its right to work: nobody has to tell it to stop.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The longest unit of work, in milliseconds: at most `c_unit` in the agent's config.
const C_UNIT_MS: u64 = 200;
const PAUSE: Duration = Duration::from_millis(20);

/// What the agent's environment says.
#[derive(Clone)]
struct Place {
    socket: String,
    instance: String,
    log: String,
}

/// What we may do. Its lock is held for the whole of each unit, so whoever has it knows that none is under way.
#[derive(Default)]
struct Right {
    /// A5: every process starts stopped.
    token: Option<String>,
    soft_boot_ns: u64,
    done: u64,
}

impl Right {
    fn extend(&mut self, token: &str, soft_boot_ns: u64) {
        if self.token.as_deref() == Some(token) {
            // A deadline never moves back within a turn.
            self.soft_boot_ns = self.soft_boot_ns.max(soft_boot_ns);
        } else {
            // A3: install the token in the database here, before the first unit (docs/postgresql.md).
            self.token = Some(token.to_owned());
            self.soft_boot_ns = soft_boot_ns;
        }
    }
}

fn main() -> io::Result<()> {
    let variable = |name: &str| std::env::var(name).map_err(|_| io::Error::other(format!("{name} is not set")));
    let place = Place {
        socket: variable("HANDOVER_LEASE_SOCKET")?,
        instance: variable("HANDOVER_INSTANCE")?,
        log: variable("WORK_LOG")?,
    };
    let right = Arc::new(Mutex::new(Right::default()));
    let (worker, at) = (Arc::clone(&right), place.clone());
    thread::spawn(move || work(&worker, &at));
    let ours = (fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned(), time_namespace());
    let (mut seq, mut same) = (0, true);
    loop {
        // Before the question: with another clock spans count from here, so it must not wait.
        let sent = boot_ns()?;
        // Without an answer, what was told before stands until its deadline.
        match newer(&place, seq, same).ok().and_then(|record| Some((number(&record, "seq")?, record))) {
            Some((newest, record)) if newest > seq => {
                seq = newest;
                same = text(&record, "boot_id").zip(text(&record, "time_ns")).as_ref() == Some(&ours);
                obey(&right, &place, &record, (seq, sent, same));
            }
            _ => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn obey(right: &Mutex<Right>, place: &Place, record: &str, (seq, sent, same): (u64, u64, bool)) {
    let token = text(record, "token");
    let soft = if same {
        number(record, "soft_deadline_boot_ns")
    } else {
        number(record, "remaining_soft_ms").map(|ms| sent + ms * 1_000_000)
    };
    // A4: with the lock in hand, no unit is under way.
    let mut right = locked(right);
    let state = match (text(record, "state").as_deref(), &token, soft) {
        (Some("ACTIVE"), Some(token), Some(soft)) => {
            right.extend(token, soft);
            "STARTED"
        }
        // QUIESCE, STOPPED, FENCED, and whatever a later version may say.
        _ => {
            right.token = None;
            "QUIESCED"
        }
    };
    let done = right.done;
    drop(right);
    let token = token.map_or("null".to_owned(), |token| format!("{token:?}"));
    let ack =
        format!(r#"{{"v":1,"token":{token},"seq":{seq},"state":"{state}","c_unit_ms":{C_UNIT_MS},"progress":{done}}}"#);
    // Refused: a newer record is there, and is read next.
    drop(ask(place, "POST", &format!("/v1/ack?instance={}", place.instance), &ack));
}

fn work(right: &Mutex<Right>, place: &Place) {
    loop {
        let mut right = locked(right);
        let now = boot_ns().unwrap_or(u64::MAX);
        // A1: immediately before each unit.
        if let Some(token) = right.token.clone().filter(|_| now < right.soft_boot_ns) {
            unit(place, now, &token, right.soft_boot_ns);
            right.done += 1;
        }
        drop(right);
        thread::sleep(PAUSE);
    }
}

/// One transaction that begins with `SELECT handover.fence_check('billing', token)`. Here: a line.
fn unit(place: &Place, now: u64, token: &str, soft: u64) {
    let file = OpenOptions::new().create(true).append(true).open(&place.log);
    if let Err(error) = file.and_then(|mut file| writeln!(file, "{} {now} {token} {soft}", place.instance)) {
        eprintln!("{}: {error}", place.log);
    }
    thread::sleep(Duration::from_millis(30));
}

/// CLOCK_BOOTTIME, which the standard library does not have. `/proc/uptime` is cut off at hundredths of a second, so one
/// is added: late is the safe side.
fn boot_ns() -> io::Result<u64> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    let hundredths = uptime.split(' ').next().and_then(|up| up.replace('.', "").parse::<u64>().ok());
    hundredths.map(|count| (count + 1) * 10_000_000).ok_or_else(|| io::Error::other("/proc/uptime has another form"))
}

/// Empty on kernels without them.
fn time_namespace() -> String {
    fs::read_link("/proc/self/ns/time").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

fn newer(place: &Place, seq: u64, same: bool) -> io::Result<String> {
    let wait = if same { format!("&seq={seq}&wait=20s") } else { String::new() };
    ask(place, "GET", &format!("/v1/lease?instance={}{wait}", place.instance), "")
}

/// One request; the body of an answer with a status below 300.
fn ask(place: &Place, method: &str, target: &str, body: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(&place.socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(25)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nhost: agent\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let good = answer.starts_with("HTTP/1.1 2");
    match answer.split_once("\r\n\r\n").filter(|_| good) {
        Some((_, body)) => Ok(body.to_owned()),
        None => Err(io::Error::other(answer)),
    }
}

/// A field of the record, which is a flat object; a quote within a string is escaped there, so that a name cannot be
/// found inside of one.
fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("\"{name}\":");
    let rest = record[record.find(&start)? + start.len()..].trim_start();
    Some(rest)
}

fn text(record: &str, name: &str) -> Option<String> {
    let rest = field(record, name)?.strip_prefix('"')?;
    Some(rest[..rest.find('"')?].to_owned())
}

fn number(record: &str, name: &str) -> Option<u64> {
    let rest = field(record, name)?;
    rest[..rest.find(|letter: char| !letter.is_ascii_digit())?].parse().ok()
}

fn locked(right: &Mutex<Right>) -> MutexGuard<'_, Right> {
    right.lock().unwrap_or_else(PoisonError::into_inner)
}
