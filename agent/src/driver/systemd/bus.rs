//! systemd's manager on the system bus: the few calls that are needed, and the signals of one unit.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use tokio_stream::StreamExt;
use zbus::connection::Builder;
use zbus::message::Type;
use zbus::{
    Connection, DBusError, MatchRule, Message, MessageStream, OwnedMatchRule, OwnedObjectPath, OwnedVariant, Variant,
};

use super::check::UnitFile;
use super::unit::{Seen, State};

const SYSTEMD: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// For a connection, for sending, and for an answer. systemd answers within milliseconds; a manager that reloads a thousand
/// units takes seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a call could not do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}: {source}")]
pub struct BusError {
    /// What was tried, on what.
    pub(super) operation: String,
    pub(super) source: zbus::Error,
}

impl BusError {
    /// systemd's own word. After any other error nobody knows whether it was done.
    pub(super) fn is_refusal(&self) -> bool {
        let unanswered = ["NoReply", "Timeout", "TimedOut", "Disconnected"];
        self.name().is_some_and(|name| !unanswered.contains(&by_the_bus(&name)))
    }

    /// This user may not have it done.
    pub(super) fn is_denial(&self) -> bool {
        let denials = ["AccessDenied", "InteractiveAuthorizationRequired"];
        self.name().is_some_and(|name| denials.contains(&by_the_bus(&name)))
    }

    /// What the answer is called; none: there was none.
    fn name(&self) -> Option<String> {
        match &self.source {
            zbus::Error::MethodError(name, ..) => Some(name.to_string()),
            // Errors that every service may answer with have a type of their own.
            zbus::Error::FDO(error) => Some(error.name().to_string()),
            _ => None,
        }
    }
}

/// An error's name without what all of the bus's own begin with.
fn by_the_bus(name: &str) -> &str {
    name.strip_prefix("org.freedesktop.DBus.Error.").unwrap_or_default()
}

fn failed<E: Into<zbus::Error>>(operation: impl Into<String>) -> impl FnOnce(E) -> BusError {
    let operation = operation.into();
    move |source| BusError { operation, source: source.into() }
}

type Properties = HashMap<String, OwnedVariant>;

/// The way to systemd. Opened when it is first needed, and again after it broke. Nothing here waits without a limit.
#[derive(Debug)]
pub(super) struct Bus {
    connection: Mutex<Option<Connection>>,
    patience: Duration,
}

impl Default for Bus {
    fn default() -> Self {
        Self { connection: Mutex::default(), patience: PATIENCE }
    }
}

impl Bus {
    fn held(&self) -> MutexGuard<'_, Option<Connection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn standing(&self) -> Option<Connection> {
        self.held().as_ref().filter(|connection| !connection.is_closed()).cloned()
    }

    /// A connection that stands, or a new one. Whoever opens one does so beside the others: a bus that hangs must not keep
    /// them in a queue.
    async fn connection(&self) -> Result<Connection, BusError> {
        if let Some(standing) = self.standing() {
            return Ok(standing);
        }
        let fresh = open(Builder::system(), self.patience).await?;
        let mut held = self.held();
        // Somebody was quicker: units are kept, and systemd's signals heard, over one connection.
        if let Some(standing) = held.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(standing.clone());
        }
        *held = Some(fresh.clone());
        Ok(fresh)
    }

    /// The next call opens another one.
    fn forget(&self, connection: &Connection) {
        self.held().take_if(|held| held.unique_name() == connection.unique_name());
    }

    async fn call<B>(
        &self,
        path: &str,
        (interface, method): (&str, &str),
        body: &B,
    ) -> Result<zbus::Result<Message>, BusError>
    where
        B: serde::Serialize + zbus::DynamicType + Sync,
    {
        let connection = self.connection().await?;
        // The connection's own limit is for the answer alone. What could not be sent by then may be sent in part: nothing
        // that follows it would be understood.
        let answer = timeout(self.patience * 2, call(&connection, path, interface, method, body)).await;
        Ok(answer.unwrap_or_else(|_| {
            self.forget(&connection);
            Err(late())
        }))
    }

    /// Loads a unit if need be; its object.
    pub(super) async fn load(&self, unit: &str) -> Result<OwnedObjectPath, BusError> {
        let reply = self.manage("LoadUnit", &unit, unit).await?;
        reply.body().deserialize().map_err(failed(format!("read the path of unit {unit}")))
    }

    /// Keeps systemd from forgetting an ended unit, with how it ended, for as long as this connection stands.
    pub(super) async fn keep(&self, unit: &str) -> Result<(), BusError> {
        self.manage("RefUnit", &unit, unit).await.map(drop)
    }

    /// Orders a start; the order's number is in the path.
    pub(super) async fn start(&self, unit: &str) -> Result<OwnedObjectPath, BusError> {
        // A unit that failed often, or long ago, starts like any other: how often is the agent's decision.
        self.manage("ResetFailedUnit", &unit, unit).await.map(drop).or_else(not_loaded)?;
        let reply = self.manage("StartUnit", &(unit, "replace"), unit).await?;
        reply.body().deserialize().map_err(failed(format!("read what became of the order to start {unit}")))
    }

    /// Orders a stop, without waiting for it.
    pub(super) async fn stop(&self, unit: &str) -> Result<(), BusError> {
        self.manage("StopUnit", &(unit, "replace"), unit).await.map(drop)
    }

    /// Sends a signal to every process of a unit.
    pub(super) async fn kill(&self, unit: &str, signal: i32) -> Result<(), BusError> {
        self.manage("KillUnit", &(unit, "all", signal), unit).await.map(drop)
    }

    /// Starts a unit of our own with two processes, which ends by itself after a minute.
    pub(super) async fn start_trial(&self, unit: &str) -> Result<(), BusError> {
        let shell =
            ("/bin/sh".to_owned(), ["/bin/sh", "-c", "sleep 60 & exec sleep 60"].map(str::to_owned).to_vec(), false);
        let properties = vec![
            ("Description", Variant::from("Tries how long a kill takes on this host")),
            ("Type", Variant::from("exec")),
            ("CollectMode", Variant::from("inactive-or-failed")),
            ("RuntimeMaxUSec", Variant::from(60_000_000_u64)),
            ("ExecStart", Variant::new(vec![shell])),
        ];
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        self.manage("StartTransientUnit", &(unit, "fail", properties, none), unit).await.map(drop)
    }

    async fn manage<B>(&self, method: &'static str, body: &B, unit: &str) -> Result<Message, BusError>
    where
        B: serde::Serialize + zbus::DynamicType + Sync,
    {
        let answer = self.call(MANAGER_PATH, (MANAGER, method), body).await?;
        answer.map_err(failed(format!("call {method} of systemd for {unit}")))
    }

    /// How a unit is.
    pub(super) async fn look(&self, unit: &str, path: &OwnedObjectPath) -> Result<Seen, BusError> {
        let (generic, service) =
            (self.properties(unit, path, UNIT).await?, self.properties(unit, path, SERVICE).await?);
        let number = |name| number(&service, name);
        Ok(Seen {
            active: State::read(&text(&generic, "ActiveState")),
            sub: text(&generic, "SubState"),
            result: text(&service, "Result"),
            main_pid: number("MainPID"),
            main_code: number("ExecMainCode"),
            main_status: number("ExecMainStatus"),
            restarts: number("NRestarts"),
            invocation: hexadecimal(&generic, "InvocationID"),
            cgroup: text(&service, "ControlGroup"),
            memory_max: size(&service, "MemoryMax"),
            ordered: is_ordered(&generic),
        })
    }

    /// What its files say.
    pub(super) async fn file(&self, unit: &str, path: &OwnedObjectPath) -> Result<UnitFile, BusError> {
        let (generic, service) =
            (self.properties(unit, path, UNIT).await?, self.properties(unit, path, SERVICE).await?);
        let error: Option<(String, String)> = generic.get("LoadError").and_then(pair);
        Ok(UnitFile {
            name: unit.to_owned(),
            load: text(&generic, "LoadState"),
            load_error: error.map(|(_, message)| message).unwrap_or_default(),
            restart: text(&service, "Restart"),
            kind: text(&service, "Type"),
            remains: matches!(service.get("RemainAfterExit").map(|value| &**value), Some(Variant::Bool(true))),
            stop_limit: limit(&service, "TimeoutStopUSec"),
            environment_files: service.get("EnvironmentFiles").map(paths).unwrap_or_default(),
        })
    }

    async fn properties(&self, unit: &str, path: &OwnedObjectPath, of: &str) -> Result<Properties, BusError> {
        let operation = || format!("read the properties of unit {unit}");
        let reply = self.call(path.as_str(), (PROPERTIES, "GetAll"), &of).await?.map_err(failed(operation()))?;
        reply.body().deserialize().map_err(failed(operation()))
    }

    /// Everything that is said of a unit from now on: changes of its properties, and orders that have ended.
    pub(super) async fn listen(&self, unit: &str, path: &OwnedObjectPath) -> Result<Signals, BusError> {
        // As the orders' signals name it, whatever name it goes by here.
        let id = text(&self.properties(unit, path, UNIT).await?, "Id");
        let connection = self.connection().await?;
        let subscribe = async {
            let changed = rule(path.as_str(), "PropertiesChanged", None)?;
            // Of this unit alone: a host begins and ends hundreds of others at a time (timers, a boot, log rotation). What
            // is not taken out of a stream's queue of 64 in time keeps the whole connection from being read.
            let ended = rule(MANAGER_PATH, "JobRemoved", Some(&id))?;
            Ok::<_, zbus::Error>(Signals {
                changed: MessageStream::for_match_rule(changed, &connection, None).await?,
                ended: MessageStream::for_match_rule(ended, &connection, None).await?,
            })
        };
        let subscribed = timeout(self.patience, subscribe).await.unwrap_or_else(|_| {
            self.forget(&connection);
            Err(late())
        });
        subscribed.map_err(failed("listen to systemd's signals"))
    }
}

/// A connection over which systemd speaks, within so much time.
async fn open(builder: Builder<'_>, patience: Duration) -> Result<Connection, BusError> {
    let reach = async {
        let operation = "reach systemd on the system bus (is dbus installed, and may this user speak to it?)";
        let fresh = builder.method_timeout(patience).build().await.map_err(failed(operation))?;
        // Without a subscriber systemd sends no signals.
        let subscribed = call(&fresh, MANAGER_PATH, MANAGER, "Subscribe", &()).await;
        subscribed.map_err(failed("subscribe to systemd's signals"))?;
        Ok(fresh)
    };
    let late = |_| Err(failed("reach systemd on the system bus, which takes connections and does not answer")(late()));
    timeout(patience, reach).await.unwrap_or_else(late)
}

/// What a signal must be to be heard; the third word of `JobRemoved` is the unit.
fn rule(path: &str, member: &str, unit: Option<&str>) -> zbus::Result<OwnedMatchRule> {
    let rule = MatchRule::builder().msg_type(Type::Signal).sender(SYSTEMD).path(path).member(member);
    let rule = unit.into_iter().fold(rule, |rule, unit| rule.arg(2, unit.to_owned()));
    Ok(rule.build()?.into_owned().into())
}

fn late() -> zbus::Error {
    zbus::Error::InputOutput(Arc::new(io::ErrorKind::TimedOut.into()))
}

/// What systemd says of one unit.
pub(super) struct Signals {
    changed: MessageStream,
    ended: MessageStream,
}

/// One signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signal {
    /// Properties of the unit have changed: look again.
    Changed,
    /// An order has ended so.
    Ended {
        /// Which.
        order: OwnedObjectPath,
        /// `done`, `failed`, …
        outcome: String,
    },
}

impl Signals {
    /// The next one; none: the connection has broken. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Signal> {
        loop {
            tokio::select! {
                changed = self.changed.next() => return changed?.ok().map(|_| Signal::Changed),
                ended = self.ended.next() => {
                    let ended = ended?.ok()?;
                    let body = ended.body().deserialize::<(u32, OwnedObjectPath, String, String)>();
                    if let Ok((_, order, _, outcome)) = body {
                        return Some(Signal::Ended { order, outcome });
                    }
                }
            }
        }
    }
}

async fn call<B>(connection: &Connection, path: &str, interface: &str, method: &str, body: &B) -> zbus::Result<Message>
where
    B: serde::Serialize + zbus::DynamicType + Sync,
{
    connection.call_method(Some(SYSTEMD), path, Some(interface), method, body).await
}

/// There is nothing to reset in a unit that is not loaded.
fn not_loaded(error: BusError) -> Result<(), BusError> {
    match &error.source {
        zbus::Error::MethodError(name, ..) if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
        _ => Err(error),
    }
}

fn text(properties: &Properties, name: &str) -> String {
    properties.get(name).and_then(|value| String::try_from(value.clone()).ok()).unwrap_or_default()
}

/// systemd's numbers are of several widths; what does not fit is none that we ask for.
fn number(properties: &Properties, name: &str) -> i32 {
    match properties.get(name).map(|value| &**value) {
        Some(Variant::I32(number)) => *number,
        Some(Variant::U32(number)) => i32::try_from(*number).unwrap_or_default(),
        _ => 0,
    }
}

/// Bytes, of which the greatest number means no limit.
fn size(properties: &Properties, name: &str) -> Option<u64> {
    match properties.get(name).map(|value| &**value) {
        Some(Variant::U64(bytes)) if *bytes != u64::MAX => Some(*bytes),
        _ => None,
    }
}

/// `(uo)`: the order's number, and 0 for none.
fn is_ordered(properties: &Properties) -> bool {
    let Some(Variant::Structure(order)) = properties.get("Job").map(|value| &**value) else { return false };
    matches!(order.fields(), [Variant::U32(1..), ..])
}

/// Microseconds, of which the greatest number means no limit.
fn limit(properties: &Properties, name: &str) -> Option<Duration> {
    match properties.get(name).map(|value| &**value) {
        Some(Variant::U64(u64::MAX)) | None => None,
        Some(Variant::U64(microseconds)) => Some(Duration::from_micros(*microseconds)),
        Some(_) => None,
    }
}

fn hexadecimal(properties: &Properties, name: &str) -> String {
    let bytes = properties.get(name).and_then(|value| Vec::<u8>::try_from(value.clone()).ok()).unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pair(value: &OwnedVariant) -> Option<(String, String)> {
    let Variant::Structure(pair) = &**value else { return None };
    match pair.fields() {
        [Variant::Str(first), Variant::Str(second)] => Some((first.to_string(), second.to_string())),
        _ => None,
    }
}

/// `a(sb)`: the path, and whether it may be missing. A file that may be missing is none to rest on.
fn paths(value: &OwnedVariant) -> Vec<PathBuf> {
    let Variant::Array(entries) = &**value else { return Vec::new() };
    let path = |entry: &Variant<'_>| match entry {
        Variant::Structure(entry) => match entry.fields() {
            [Variant::Str(path), Variant::Bool(false)] => Some(PathBuf::from(path.as_str())),
            _ => None,
        },
        _ => None,
    };
    entries.iter().filter_map(path).collect()
}

#[cfg(test)]
mod tests;
