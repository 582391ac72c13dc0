//! The agent's part for a gate that is measured alone: it says where requests go.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use handover_agent::gate::client::GateLink;
use handover_agent::gate::control::{Admission, GateState, Upstream};
use handover_proto::ids::InstanceId;

const LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Routes {
    link: GateLink,
    upstreams: [Upstream; 2],
    seq: u64,
    runtime: tokio::runtime::Runtime,
}

impl Routes {
    /// Sends everything to the first.
    pub(super) fn connect(control: &Path, backends: [SocketAddr; 2]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // The link moves only while this is driven, which is when something is told and its effect awaited.
        let link = runtime.block_on(async { GateLink::connect(control) });
        let version = "1.0.0".parse()?;
        let upstream = |address| Upstream {
            instance: InstanceId::random(),
            version: Clone::clone(&version),
            address,
            reads: 0,
            writes: 0,
            ready: true,
        };
        let mut routes = Self { link, upstreams: backends.map(upstream), seq: 0, runtime };
        routes.all_to(0)?;
        Ok(routes)
    }

    /// All requests go to this one from now on; returns when the gate says that they do.
    pub(super) fn all_to(&mut self, index: usize) -> Result<()> {
        self.seq += 1;
        let mut upstreams = self.upstreams.to_vec();
        (upstreams[index].reads, upstreams[index].writes) = (100, 100);
        self.link.send(GateState { seq: self.seq, admission: Admission::Open, upstreams });
        let mut reports = self.link.reports();
        let applied = |report: &Option<_>| {
            let report: &Option<handover_agent::gate::control::GateReport> = report;
            report.as_ref().is_some_and(|report| report.applied == self.seq)
        };
        let waited = self.runtime.block_on(async { tokio::time::timeout(LIMIT, reports.wait_for(applied)).await });
        waited.context("the gate did not apply its routes")??;
        Ok(())
    }
}
