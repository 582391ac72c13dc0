//! The service's own part of a hand-over, measured at an instance beside the fleet that does nothing else: how long it
//! takes from the end of its work to its QUIESCED, and from ACTIVE to its work.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use handover_proto::ids::InstanceId;
use hyper::Method;

use super::exchange;
use crate::billing::activity::{Event, Line};
use crate::billing::contract::{Ack, Answer, LeaseRecord, Token, Told};
use crate::clock::{BootNs, ClockName};
use crate::fleet::{Fleet, Process, free_ports};
use crate::receipt::rows;

/// The service is never silent so long here.
const RIGHT: Duration = Duration::from_secs(600);

pub(super) struct Service {
    _process: Process,
    address: SocketAddr,
    instance: InstanceId,
    clock: ClockName,
    activity: std::path::PathBuf,
    seq: u64,
    token: i64,
}

/// What one turn of it took. Only what lies between the end of its work and the next begin is in a dark window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answers {
    /// From the last moment of its right to the arrival of its QUIESCED.
    pub(super) quiesced: Duration,
    /// From the call with ACTIVE until it may work: the token is installed in its ledger.
    pub(super) active: Duration,
}

impl Answers {
    pub(super) fn sum(self) -> Duration {
        self.quiesced + self.active
    }
}

impl Service {
    /// Starts one in the fleet's directory, with a ledger of its own, and waits until it answers.
    pub(super) fn start(fleet: &Fleet) -> Result<Self> {
        let port = *free_ports(1)?.first().context("a port")?;
        let (instance, activity) = (InstanceId::random(), fleet.dir().join("beside.jsonl"));
        let path = |name: &str| fleet.dir().join(name).display().to_string();
        let args = [
            ("--version-name", "1.0.0".to_owned()),
            ("--port", port.to_string()),
            ("--ledger", path("beside.db")),
            ("--activity", path("beside.jsonl")),
            ("--lease-socket", path("nobody.sock")),
            ("--instance", instance.to_string()),
        ];
        let args: Vec<_> = args.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect();
        let process = Process::spawn("beside", &fleet.binaries().path("billing"), &args, fleet.dir(), &[])?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        fleet.wait_for("the service to listen", |_| Ok(std::net::TcpStream::connect(address).is_ok()))?;
        let clock = ClockName::ours()?;
        Ok(Self { _process: process, address, instance, clock, activity, seq: 0, token: 0 })
    }

    /// Gives it the right to work under a new token, and takes it back.
    pub(super) async fn turn(&mut self) -> Result<Answers> {
        self.token += 1;
        let called = BootNs::now();
        self.tell(Told::Active, Answer::Started).await?;
        let answered = self.tell(Told::Quiesce, Answer::Quiesced).await?;
        let token = Token::try_from(self.token)?;
        let lines = rows::activity(&[&self.activity])?;
        let edge = |is: fn(&Event) -> bool| {
            let found = lines.iter().find(|line: &&Line| line.token == token && is(&line.event));
            found.map(|line| line.at_boot_ns).context("the service left no trace of its turn")
        };
        let active = edge(|event| matches!(event, Event::Active))?.since(called);
        let quiesced = answered.since(edge(|event| matches!(event, Event::Inactive { .. }))?);
        Ok(Answers { quiesced, active })
    }

    /// Says when the answer was there.
    async fn tell(&mut self, state: Told, wanted: Answer) -> Result<BootNs> {
        self.seq += 1;
        let end = BootNs::now().after(RIGHT).0;
        let record = LeaseRecord {
            v: 1,
            instance: self.instance.clone(),
            state,
            token: Some(Token::try_from(self.token)?),
            seq: self.seq,
            op: None,
            boot_id: self.clock.boot_id.clone(),
            time_ns: self.clock.time_ns.clone(),
            soft_deadline_boot_ns: end,
            hard_deadline_boot_ns: end,
            remaining_soft_ms: 0,
            remaining_hard_ms: 0,
            reason: "measured".to_owned(),
        };
        let answer =
            exchange::once(self.address, Method::POST, "/handover/lease", serde_json::to_vec(&record)?).await?;
        let at = BootNs::now();
        let ack: Ack = serde_json::from_slice(&answer.body)?;
        if ack.state != wanted {
            bail!("told {state:?}, the service answered {:?}: {}", ack.state, ack.detail);
        }
        Ok(at)
    }
}
