//! What is recorded while a schedule runs: every revision under the environment's keys as each member's watch brings it,
//! probes that read holder key and beat through each member, and what agents and gates say of themselves.
//!
//! The observer sits on the bridge, where no cut reaches it. It uses etcd's own protocol and none of our client's code.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use etcd_client::{Client, EventType, Txn, TxnOp, TxnOpResponse, WatchOptions};
use serde_json::Value;

use super::checkers::register::{Keys, Read};
use super::site::etcd::Cluster;
use super::site::host::{Host, ask};
use crate::clock::BootNs;

/// From one look at a thing to the next.
const EVERY: Duration = Duration::from_millis(100);
/// A read that has no answer after this is given up; it saw nothing.
const LIMIT: Duration = Duration::from_secs(1);
/// Before a broken watch is made anew.
const AGAIN: Duration = Duration::from_millis(50);

/// One change of one key.
#[derive(Debug, Clone)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its new value; `None`: deleted.
    pub value: Option<Vec<u8>>,
    /// When the first member's watch brought it.
    pub heard: BootNs,
}

/// What an agent said of itself.
#[derive(Debug, Clone)]
pub struct Said {
    /// When the answer came.
    pub at: BootNs,
    /// Which agent.
    pub agent: String,
    /// Its report; `None`: no answer.
    pub report: Option<Value>,
}

/// One life of the cluster: a restore begins the next.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Its first revision is above this one; that is where the life before is taken up.
    pub after: i64,
    /// Changes by revision.
    pub changes: BTreeMap<i64, Vec<Change>>,
    /// What the probes read.
    pub reads: Vec<Read>,
    /// A watch could not be told of some revisions any more.
    pub missed: bool,
}

/// Everything that was recorded.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// Lives of the cluster, in order.
    pub lives: Vec<Life>,
    /// What agents said, in the order of time.
    pub said: Vec<Said>,
    /// How long the machine let somebody wait at worst: a sleeper that was due, or a few bytes on their way to the disk.
    pub waited: Duration,
}

/// Which keys are watched and read.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The prefix whose changes are recorded.
    pub prefix: String,
    /// The holder key.
    pub holder: String,
    /// The beat.
    pub beat: String,
    /// The coordinators' leader key.
    pub leader: String,
}

type Shared = Arc<Mutex<Record>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Record> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running recorder.
#[derive(Debug)]
pub struct Recorder {
    shared: Shared,
    holder: String,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Recorder {
    /// Begins with etcd; agents are added once they run.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(endpoints: Vec<String>, watched: &Watched, dir: &Path) -> Result<Self> {
        let record = Record { lives: vec![Life::default()], ..Record::default() };
        let (shared, holder) = (Arc::new(Mutex::new(record)), watched.holder.clone());
        let mut recorder = Self { shared, holder, stop: Arc::default(), threads: Vec::new() };
        let (shared, stop, watched) = (recorder.shared.clone(), recorder.stop.clone(), watched.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let observe = move || {
            runtime.block_on(async move {
                for (member, endpoint) in endpoints.into_iter().enumerate() {
                    drop(tokio::spawn(watch(shared.clone(), endpoint.clone(), watched.prefix.clone())));
                    drop(tokio::spawn(probe(shared.clone(), member, endpoint, watched.clone())));
                }
                while !stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(EVERY).await;
                }
            });
        };
        recorder.threads.push(std::thread::Builder::new().name("observer".into()).spawn(observe)?);
        let probe = File::create(dir.join("disk-probe"))?;
        recorder.sample("machine", move || {
            let before = BootNs::now();
            std::thread::sleep(EVERY);
            let mut waited = BootNs::now().since(before).saturating_sub(EVERY);
            let before = BootNs::now();
            // A disk that is full is found by those who need it.
            let _written = (&probe).write_all(b"x").and_then(|()| probe.sync_data());
            waited = waited.max(BootNs::now().since(before));
            move |record: &mut Record| record.waited = record.waited.max(waited)
        })?;
        Ok(recorder)
    }

    /// Begins to ask these agents.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn ask(&mut self, hosts: &[Host]) -> Result<()> {
        for host in hosts {
            let (name, port) = (host.spot.name.clone(), host.operations);
            self.sample("agents", move || {
                let (agent, report) = (name.clone(), ask(port).ok());
                let said = Said { at: BootNs::now(), agent, report };
                move |record: &mut Record| record.said.push(said)
            })?;
        }
        Ok(())
    }

    fn sample<N: FnOnce(&mut Record)>(&mut self, name: &str, look: impl Fn() -> N + Send + 'static) -> Result<()> {
        let (shared, stop) = (self.shared.clone(), self.stop.clone());
        let run = move || {
            while !stop.load(Ordering::Relaxed) {
                let note = look();
                note(&mut lock(&shared));
                std::thread::sleep(EVERY);
            }
        };
        self.threads.push(std::thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// The cluster begins a new life out of a snapshot of this revision. To be said while no member runs.
    pub fn reborn(&self, snapshot: i64) {
        lock(&self.shared).lives.push(Life { after: snapshot, ..Life::default() });
    }

    /// The last report of an agent.
    pub fn last_said(&self, agent: &str) -> Option<Value> {
        let record = lock(&self.shared);
        let last = record.said.iter().rev().find(|said| said.agent == agent);
        last.and_then(|said| said.report.clone())
    }

    /// The agent whose turn it is, as the holder key says; none: it is free, or cannot be read.
    pub fn holders_agent(&self) -> Option<String> {
        let record = lock(&self.shared);
        let mut changes = record.lives.last()?.changes.values().rev().flatten();
        let value = changes.find(|change| change.key == self.holder)?.value.as_deref()?;
        let value: Value = serde_json::from_slice(value).ok()?;
        value["owner"]["agent"].as_str().map(str::to_owned)
    }

    /// Ends it.
    ///
    /// # Errors
    /// If a thread has panicked: what it recorded is worth nothing.
    pub fn stop(self) -> Result<Record> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow!("a recorder's thread panicked"))?;
        }
        let mut record = lock(&self.shared).clone();
        record.said.sort_by_key(|said| said.at);
        Ok(record)
    }
}

/// Watches through one member for ever.
async fn watch(shared: Shared, endpoint: String, prefix: String) {
    loop {
        // Whatever ends a watch, the next one begins where this member's life has been followed to.
        let _ended = follow(&shared, &endpoint, &prefix).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow(shared: &Shared, endpoint: &str, prefix: &str) -> Result<()> {
    let (life, mut next) = {
        let record = lock(shared);
        let last = record.lives.len() - 1;
        let seen = record.lives[last].changes.keys().next_back().copied().unwrap_or_default();
        (last, seen.max(record.lives[last].after) + 1)
    };
    let mut client = tokio::time::timeout(LIMIT, Cluster::client(endpoint)).await??;
    let options = WatchOptions::new().with_prefix().with_start_revision(next);
    let mut stream = tokio::time::timeout(LIMIT, client.watch(prefix, Some(options))).await??;
    while let Some(message) = stream.message().await? {
        let heard = BootNs::now();
        let mut record = lock(shared);
        if record.lives.len() - 1 != life {
            return Ok(());
        }
        if message.compact_revision() >= next {
            record.lives[life].missed = true;
            next = message.compact_revision();
        }
        for event in message.events() {
            let kv = event.kv().context("an event without a key")?;
            let value = (event.event_type() == EventType::Put).then(|| kv.value().to_vec());
            let key = String::from_utf8_lossy(kv.key()).into_owned();
            let changes = record.lives[life].changes.entry(kv.mod_revision()).or_default();
            match changes.iter_mut().find(|change| change.key == key) {
                Some(known) => known.heard = known.heard.min(heard),
                None => changes.push(Change { key, value, heard }),
            }
        }
        if message.canceled() {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads through one member for ever.
async fn probe(shared: Shared, member: usize, endpoint: String, watched: Watched) {
    let mut client: Option<Client> = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let life = lock(&shared).lives.len();
        let Some(open) = client.as_mut() else {
            client = tokio::time::timeout(LIMIT, Cluster::client(&endpoint)).await.ok().and_then(Result::ok);
            continue;
        };
        let get = |key: &str| TxnOp::get(key, None);
        let both = Txn::new().and_then(vec![get(&watched.holder), get(&watched.beat)]);
        let invoke = BootNs::now();
        let answer = tokio::time::timeout(LIMIT, open.txn(both)).await;
        let ret = BootNs::now();
        let Ok(Ok(answer)) = answer else {
            client = None;
            continue;
        };
        let mut revisions = answer.op_responses().into_iter().map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map_or(0, etcd_client::KeyValue::mod_revision),
            _ => 0,
        });
        let keys = Keys { holder: revisions.next().unwrap_or(0), beat: revisions.next().unwrap_or(0) };
        let mut record = lock(&shared);
        // An answer of the life before may come in the next.
        if record.lives.len() == life {
            record.lives[life - 1].reads.push(Read { member, invoke, ret, keys });
        }
    }
}
