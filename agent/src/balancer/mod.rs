//! Balancers in front of the host: they are told where requests may go, and say that they do so (`DESIGN.md` §7,
//! `SAFETY.md` R5).
//!
//! The pure core decides what they are to do ([`crate::core::front`]) and waits for their word. Here each balancer has a
//! task of its own that brings it there and keeps it there: [`haproxy`] (Runtime API), [`agent_check`], [`envoy`] (a file
//! of endpoints), and [`settled`] for those that ask `/ready`. What was set and must be undone is in [`record`]. With the
//! agent away nothing changes: every one of them keeps what it was told last (R3).

pub mod agent_check;
mod envoy;
pub mod haproxy;
mod post;
pub mod record;
pub mod settings;
mod settled;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::core::front::{By, FrontSeen, Target, Wishes};
use post::{Post, Said, Told};
use record::Record;
use settings::BalancerSettings;

/// All balancers of a config.
pub struct Balancers {
    by: By,
    told: watch::Sender<Told>,
    said: Vec<watch::Receiver<Said>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Balancers {
    /// Starts a task for each. `addresses`: where the targets listen.
    ///
    /// # Errors
    /// If the agent-check port cannot be opened, or the record of what is ours cannot be read.
    pub async fn open(
        settings: &BalancerSettings,
        by: By,
        addresses: BTreeMap<Target, SocketAddr>,
        state_dir: &Path,
        wake: &Arc<Notify>,
    ) -> Result<Self> {
        let record = Record::open(state_dir)?;
        let mut all = Self { by, told: watch::Sender::default(), said: Vec::new(), tasks: Vec::new() };
        if !settings.settle.is_zero() {
            let post = all.post(settled::READINESS, wake);
            all.tasks.push(tokio::spawn(settled::wait(settings.settle, post)));
        }
        if let Some(check) = &settings.agent_check {
            let taken = || format!("`balancer.agent_check.listen`: cannot listen on {}; free the port", check.listen);
            let listener = TcpListener::bind(check.listen).await.with_context(taken)?;
            let post = all.post("agent-check", wake);
            let (check, record) = (check.clone(), record.clone());
            all.tasks.push(tokio::spawn(async move { agent_check::serve(listener, &check, record, post).await }));
        }
        for haproxy in &settings.haproxy {
            let haproxy = haproxy::Haproxy::new(haproxy.clone(), record.clone());
            let post = all.post(&haproxy.name(), wake);
            all.tasks.push(tokio::spawn(haproxy.keep(post)));
        }
        for envoy in &settings.envoy {
            let envoy = envoy::Envoy::new(envoy.clone(), addresses.clone());
            let post = all.post(&envoy.name(), wake);
            all.tasks.push(tokio::spawn(envoy.keep(post)));
        }
        Ok(all)
    }

    fn post(&mut self, name: &str, wake: &Arc<Notify>) -> Post {
        let (post, said) = Post::new(name, self.told.subscribe(), wake.clone());
        self.said.push(said);
        post
    }

    /// Says what they are to do from now on.
    pub fn tell(&self, wishes: &Wishes) {
        self.told.send_if_modified(|told| told.renew(wishes));
    }

    /// What they are to do; empty before the first decision.
    pub fn wishes(&self) -> Wishes {
        self.told.borrow().wishes()
    }

    /// What they say of the order that they were told last.
    pub fn seen(&self) -> FrontSeen {
        let told = self.told.borrow();
        FrontSeen { by: self.by, balancers: self.said.iter().map(|said| said.borrow().about(&told)).collect() }
    }
}

impl Drop for Balancers {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
