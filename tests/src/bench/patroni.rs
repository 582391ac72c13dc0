//! The peer for a planned move of a whole database: Patroni's switchover between two PostgreSQL servers on the same etcd.
//! What is counted is what its clients see: how long no write is accepted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::{User, chown};
use postgres::{Client, NoTls};
use serde_json::Value;

use super::lock::find;
use super::site::Site;
use crate::fleet::{Process, free_ports};
use crate::postgres::servers;

/// From nothing to a streaming replica.
const UP: Duration = Duration::from_secs(60);
/// A switchover takes about three seconds.
const SWITCHED: Duration = Duration::from_secs(30);
/// Between two tries of the writer.
const AGAIN: Duration = Duration::from_millis(3);

/// One node: PostgreSQL under its Patroni.
struct Node {
    name: String,
    rest: u16,
    sql: u16,
    _process: Process,
}

/// So many switchovers: how long no write was accepted, each time. None without Patroni.
pub(super) fn gaps(site: &Site, count: usize) -> Result<Option<Vec<Duration>>> {
    let Some(program) = find("patroni") else { return Ok(None) };
    (0..count).map(|cluster| gap(site, &program, cluster)).collect::<Result<_>>().map(Some)
}

/// A cluster of its own for each switchover: Patroni 3.0.2 (Debian 12) does not always bring the old primary back.
fn gap(site: &Site, program: &std::path::Path, cluster: usize) -> Result<Duration> {
    let nodes = [Node::start(site, program, cluster, 1)?, Node::start(site, program, cluster, 2)?];
    let role =
        |node: &Node| -> Result<String> { Ok(node.get("/patroni")?["role"].as_str().unwrap_or_default().to_owned()) };
    let leads = |node: &Node| role(node).is_ok_and(|role| role == "master" || role == "primary");
    let follows = |node: &Node| {
        let state = node.get("/patroni").ok();
        state.is_some_and(|state| state["role"] == "replica" && state["state"] == "running")
    };
    let settled = || nodes.iter().any(leads) && nodes.iter().any(follows);
    site.fleet.wait_within(UP, "Patroni's primary and replica", |_| Ok(settled()))?;
    let mut writer = Writer::new(&nodes);
    writer.until_accepted(Instant::now() + UP)?;
    let from = nodes.iter().position(leads).context("a primary")?;
    switch(&nodes[from], &nodes[1 - from], &mut writer)
}

/// Asks for a switchover and writes all the while: the longest time between two accepted writes.
fn switch(from: &Node, to: &Node, writer: &mut Writer) -> Result<Duration> {
    let body = format!("{{\"leader\":\"{}\",\"candidate\":\"{}\"}}", from.name, to.name);
    let (rest, end) = (from.rest, Instant::now() + SWITCHED);
    let asked = std::thread::spawn(move || {
        exchange(
            rest,
            &format!(
                "POST /switchover HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        )
    });
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    let mut moved = false;
    while !(moved && asked.is_finished()) {
        let at = writer.until_accepted(end)?;
        longest = longest.max(at.duration_since(last));
        last = at;
        moved |= writer.at == Some(to.sql);
    }
    let answer = asked.join().map_err(|_| anyhow::anyhow!("the asking thread panicked"))??;
    if !answer.contains(" 200 ") {
        bail!("Patroni refused the switchover: {answer}");
    }
    Ok(longest)
}

/// Writes one row at a time to whichever node takes it.
struct Writer {
    ports: Vec<u16>,
    client: Option<Client>,
    at: Option<u16>,
}

impl Writer {
    fn new(nodes: &[Node]) -> Self {
        Self { ports: nodes.iter().map(|node| node.sql).collect(), client: None, at: None }
    }

    fn until_accepted(&mut self, end: Instant) -> Result<Instant> {
        loop {
            let mut last = None;
            for port in self.ports.clone() {
                match self.write(port) {
                    Ok(()) => return Ok(Instant::now()),
                    Err(error) => last = Some(error),
                }
            }
            if Instant::now() >= end {
                return Err(last.map_or_else(|| anyhow::anyhow!("no node"), Into::into))
                    .context("no write was accepted");
            }
            std::thread::sleep(AGAIN);
        }
    }

    fn write(&mut self, port: u16) -> Result<(), postgres::Error> {
        let known = self.client.take().filter(|client| self.at == Some(port) && !client.is_closed());
        let mut client = match known {
            Some(client) => client,
            None => {
                let limits = "connect_timeout=1 user=postgres password=bench dbname=postgres";
                Client::connect(&format!("host=127.0.0.1 port={port} {limits}"), NoTls)?
            }
        };
        client.batch_execute("CREATE TABLE IF NOT EXISTS bench (at timestamptz); INSERT INTO bench VALUES (now())")?;
        (self.client, self.at) = (Some(client), Some(port));
        Ok(())
    }
}

impl Node {
    fn start(site: &Site, program: &std::path::Path, cluster: usize, number: usize) -> Result<Self> {
        let ports = free_ports(2)?;
        let (name, rest, sql) = (format!("node{cluster}-{number}"), ports[0], ports[1]);
        let dir = site.fleet.dir().join(&name);
        std::fs::create_dir_all(dir.join("socket"))?;
        let config = dir.join("patroni.yml");
        std::fs::write(&config, text(site, cluster, &name, (rest, sql), &dir)?)?;
        let user = User::from_name("postgres")?.context("the user postgres, which Debian's postgresql makes")?;
        for path in [&dir, &dir.join("socket"), &config] {
            chown(path, Some(user.uid), Some(user.gid))?;
        }
        // The server has to pass through the fleet's directory.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(site.fleet.dir(), mode)?;
        let env = [("HOME", dir.display().to_string()), ("LC_ALL", "C.UTF-8".to_owned())];
        let args = [config.display().to_string()];
        let process = Process::spawn_as(&name, program, &args, site.fleet.dir(), &env, Some(user))?;
        Ok(Self { name, rest, sql, _process: process })
    }

    fn get(&self, path: &str) -> Result<Value> {
        let answer = exchange(self.rest, &format!("GET {path} HTTP/1.0\r\n\r\n"))?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        Ok(serde_json::from_str(body)?)
    }
}

fn exchange(port: u16, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SWITCHED))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn text(site: &Site, cluster: usize, name: &str, (rest, sql): (u16, u16), dir: &std::path::Path) -> Result<String> {
    let hosts = site.fleet.stores().join(", ");
    let (bin, dir): (PathBuf, _) = (servers()?, dir.display());
    Ok(format!(
        r#"
scope: bench{cluster}
name: {name}
restapi: {{listen: "127.0.0.1:{rest}", connect_address: "127.0.0.1:{rest}"}}
etcd3: {{hosts: [{hosts}]}}
bootstrap:
  dcs: {{ttl: 30, loop_wait: 10, retry_timeout: 10}}
  initdb: [{{encoding: UTF8}}, {{locale: C.UTF-8}}]
  pg_hba: ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]
postgresql:
  listen: "127.0.0.1:{sql}"
  connect_address: "127.0.0.1:{sql}"
  data_dir: {dir}/data
  bin_dir: {bin}
  pgpass: {dir}/pgpass
  authentication:
    superuser: {{username: postgres, password: bench}}
    replication: {{username: replicator, password: bench}}
  parameters: {{unix_socket_directories: "{dir}/socket"}}
"#,
        bin = bin.display(),
    ))
}
