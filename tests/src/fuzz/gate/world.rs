//! A gate in this process, a client of it, and a service behind it that takes requests by the letter.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use handover_agent::gate::client::GateLink;
use handover_agent::gate::control::{Admission, GateState, Upstream};
use handover_agent::gate::server::Server;
use handover_agent::gate::settings::GateSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use super::strict::{Message, Parsed, parse};

/// Nothing here takes this long unless it hangs; a busy machine may stop us for seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one client did.
#[derive(Debug, Default)]
pub struct Seen {
    /// Requests that the service got.
    pub messages: Vec<Message>,
    /// What it got that is no request by the letter.
    pub faults: Vec<String>,
    /// What the client got; none if its connection was reset, which can take answers away.
    pub answers: Option<Vec<u8>>,
}

#[derive(Default)]
struct Log {
    messages: Vec<Message>,
    faults: Vec<String>,
    answered: u64,
    /// Connections in the middle of a request.
    unfinished: usize,
}

/// A gate with its service.
pub struct World {
    runtime: Runtime,
    address: SocketAddr,
    log: Arc<Mutex<Log>>,
    _gate: Option<(GateLink, tempfile::TempDir)>,
}

impl World {
    /// The real gate.
    ///
    /// # Errors
    /// If it does not start.
    pub fn with_gate() -> anyhow::Result<Self> {
        let (runtime, log) = (runtime()?, Arc::default());
        let (address, gate) = runtime.block_on(async {
            let service = service(Arc::clone(&log)).await?;
            let directory = tempfile::tempdir()?;
            let at = |name: &str| directory.path().join(name);
            let settings = GateSettings::new(SocketAddr::from(([127, 0, 0, 1], 0)), at("gate.sock"), at("gate.json"));
            let server = Server::bind(settings.clone()).await?;
            let address = server.address();
            tokio::spawn(server.serve(std::future::pending()));
            let link = GateLink::connect(&settings.control);
            let (instance, version) = ("00000000000000aa".parse()?, "1.0.0".parse()?);
            let upstream = Upstream { instance, version, address: service, reads: 1, writes: 1, ready: true };
            link.send(GateState { seq: 1, admission: Admission::Open, upstreams: vec![upstream] });
            let mut reports = link.reports();
            let applied = reports.wait_for(|report| report.as_ref().is_some_and(|report| report.applied == 1));
            tokio::time::timeout(PATIENCE, applied).await.context("the routes are not applied")??;
            anyhow::Ok((address, (link, directory)))
        })?;
        Ok(Self { runtime, address, log, _gate: Some(gate) })
    }

    /// What is no gate at all, and passes every byte on as it is: for the test that the property can fail.
    ///
    /// # Errors
    /// If it does not start.
    pub fn with_relay() -> anyhow::Result<Self> {
        let (runtime, log) = (runtime()?, Arc::default());
        let address = runtime.block_on(async {
            let service = service(Arc::clone(&log)).await?;
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            tokio::spawn(async move {
                while let Ok((mut client, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let mut upstream = TcpStream::connect(service).await?;
                        tokio::io::copy_bidirectional(&mut client, &mut upstream).await
                    });
                }
            });
            anyhow::Ok(address)
        })?;
        Ok(Self { runtime, address, log, _gate: None })
    }

    /// One client that sends this and ends its side.
    ///
    /// # Errors
    /// If its connection does not come to an end.
    pub fn send(&mut self, data: &[u8]) -> anyhow::Result<Seen> {
        self.exchange(data, |_| true)
    }

    /// One client that sends this, and ends its side once `heard` is true of what it has got.
    ///
    /// # Errors
    /// If its connection does not come to an end.
    pub fn exchange(&mut self, data: &[u8], heard: impl Fn(&[u8]) -> bool) -> anyhow::Result<Seen> {
        let visit = async {
            let answers = visit(self.address, data, heard).await?;
            while lock(&self.log).unfinished > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            anyhow::Ok(answers)
        };
        let visit = async { tokio::time::timeout(PATIENCE, visit).await };
        let answers = self.runtime.block_on(visit).context("the connection does not come to an end")??;
        let mut log = lock(&self.log);
        let (messages, faults) = (std::mem::take(&mut log.messages), std::mem::take(&mut log.faults));
        Ok(Seen { messages, faults, answers })
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn visit(address: SocketAddr, data: &[u8], heard: impl Fn(&[u8]) -> bool) -> anyhow::Result<Option<Vec<u8>>> {
    let stream = TcpStream::connect(address).await.context("cannot connect to the gate")?;
    stream.set_nodelay(true)?;
    let (mut read, mut write) = stream.into_split();
    let sent = data.to_vec();
    let writing = tokio::spawn(async move {
        // A gate that has refused the client takes no more of it.
        let _ = write.write_all(&sent).await;
        write
    });
    let (mut answers, mut writing) = (Vec::new(), Some(writing));
    loop {
        if let Some(written) = writing.take_if(|_| heard(&answers)) {
            let _ = written.await?.shutdown().await;
        }
        match read.read_buf(&mut answers).await {
            Ok(0) => return Ok(Some(answers)),
            Ok(_) => {}
            Err(_) => return Ok(None),
        }
    }
}

async fn service(log: Arc<Mutex<Log>>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&log)));
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, log: Arc<Mutex<Log>>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let begun = !bytes.is_empty();
        let read = stream.read_buf(&mut bytes).await;
        let mut answers = String::new();
        {
            let mut log = lock(&log);
            log.unfinished -= usize::from(begun);
            if read? == 0 {
                return Ok(());
            }
            take(&mut bytes, &mut log, &mut answers).map_err(std::io::Error::other)?;
            log.unfinished += usize::from(!bytes.is_empty());
        }
        stream.write_all(answers.as_bytes()).await?;
    }
}

/// Takes all whole messages.
fn take(bytes: &mut Vec<u8>, log: &mut Log, answers: &mut String) -> Result<(), String> {
    while !bytes.is_empty() {
        match parse(bytes) {
            Ok(Parsed::More) => break,
            Ok(Parsed::Whole(mut message, length)) => {
                bytes.drain(..length);
                log.answered += 1;
                message.number = log.answered;
                let body = if message.method == "HEAD" { "" } else { "ok" };
                let number = message.number;
                answers.push_str(&format!("HTTP/1.1 200 OK\r\nx-answer: {number}\r\nContent-Length: 2\r\n\r\n{body}"));
                log.messages.push(message);
            }
            Err(fault) => {
                log.faults.push(fault.clone());
                return Err(fault);
            }
        }
    }
    Ok(())
}
