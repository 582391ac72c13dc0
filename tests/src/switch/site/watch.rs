//! What the host says of itself, and waiting for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use handover_proto::ids::InstanceId;
use serde_json::Value;

use super::{DONE, Site, tail};
use crate::billing::ledger::{Ledger, LedgerAt, Writer};
use crate::billing::traffic::jobs;

impl Site {
    /// The agent's own report.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> Result<Value> {
        let answer = ask(self.operations, "GET", "/status")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Waits until the condition holds of the report.
    ///
    /// # Errors
    /// If it does not in time; with the last report's blocker and the end of the agent's log.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Result<()> {
        let end = Instant::now() + DONE;
        loop {
            let status = self.status();
            if status.as_ref().is_ok_and(&condition) {
                return Ok(());
            }
            if Instant::now() >= end {
                let blocker = status.map(|status| status["blocker"].to_string());
                bail!("waited {} s for {what}: {blocker:?}\n{}", DONE.as_secs(), tail(&self.processes.agent));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the traffic is where it was assigned last, and the other instance is ready or gone, as it should be.
    ///
    /// Streams that do not end by themselves stay where they are: an instance without traffic may drain as long as it
    /// likes, unless it is to be stopped.
    ///
    /// # Errors
    /// If it is not in time.
    pub fn settled(&self) -> Result<()> {
        let (serial, both) = (self.serial, self.both);
        let (serving, other) = (super::SLOTS[self.serving], super::SLOTS[1 - self.serving]);
        self.wait_for("the traffic to be where it is assigned", |status| {
            let (serving, other) = (instance(status, serving), instance(status, other));
            let has_all = serving["reads"] == 100 && serving["writes"] == 100 && serving["ready"] == true;
            let has_none = other["reads"] == 0 && other["ready"] == true;
            let gone = other.is_null() && status["reached"] == serial;
            status["accepted"] == serial && has_all && if both { has_none } else { gone }
        })
    }

    /// Starts a job, longer than a drain takes, at the instance that has no traffic: straight, not through the gate.
    ///
    /// # Errors
    /// If it is not taken.
    pub fn start_a_job(&self) -> Result<()> {
        let slot = super::SLOTS[1 - self.serving];
        let answer = ask(self.address(slot)?, "POST", "/jobs?ms=3000")?;
        if !answer.starts_with("HTTP/1.1 202") {
            bail!("the job was not taken: {answer}");
        }
        Ok(())
    }

    /// Jobs that were started and never finished. Waits for those that still run.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn lost_jobs(&self) -> Result<i64> {
        let writer = Writer { instance: InstanceId::random(), version: "0.0.0".parse()? };
        let at = LedgerAt::File(self.dir.join("ledger.db"));
        let mut ledger = Ledger::open(&at, writer, Duration::from_secs(5))?;
        let end = Instant::now() + Duration::from_secs(10);
        while jobs::lost(&mut ledger)? != 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(jobs::lost(&mut ledger)?)
    }

    /// Where the instance of a slot listens.
    ///
    /// # Errors
    /// If the config does not say so.
    pub fn address(&self, slot: &str) -> Result<SocketAddr> {
        let config: toml::Table = std::fs::read_to_string(&self.config)?.parse()?;
        let slots = config["slot"].as_array().context("no slots")?;
        let named = slots.iter().find(|named| named["name"].as_str() == Some(slot)).context("no such slot")?;
        let port = named["port"].as_integer().context("no port")?;
        Ok(SocketAddr::from(([127, 0, 0, 1], u16::try_from(port)?)))
    }
}

/// What the report says of the instance in a slot.
fn instance<'a>(status: &'a Value, slot: &str) -> &'a Value {
    let slots = status["slots"].as_array().map(Vec::as_slice).unwrap_or_default();
    slots.iter().find(|found| found["slot"] == slot).map_or(&Value::Null, |found| &found["instance"])
}

fn ask(address: SocketAddr, method: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
