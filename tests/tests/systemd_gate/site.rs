//! A booted host with one gate, as its operator would set it up.

use std::net::SocketAddr;
use std::time::Duration;

use handover_agent::gate::client::GateLink;
use handover_agent::gate::control::{Admission, GateState};
use handover_tests::booted::{Booted, BootedHost};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinHandle;

use crate::service::Service;

/// Nothing here takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

const UNIT: &str = "handover-gate@billing.service";
const SOCKET: &str = "handover-gate@billing.socket";
const PORT: u16 = 8080;

/// No agent runs here, so its part of the config names nothing that is there.
const CONFIG: &str = "agent = 'app-01'\nservice = 'billing'\nlisten = '127.0.0.1:1'\noperations = '127.0.0.1:2'
state_dir = '/var/lib/handover/billing'\nruntime_dir = '/run/handover/billing'
[driver]\nkind = 'process'\nbuilds = '/none'\ncommand = ['{builds}/{version}']
[[slot]]\nname = 'a'\nport = 3\n[[probe]]\nname = 'ready'\nhttp = { path = '/' }\naffects = 'ready'
# The clients here share a thread with the whole test, and may be seconds late on a busy machine.
[gate]\nmode = 'proxy'\nlisten = '0.0.0.0:8080'\nlimits = { leave_grace = '20s' }\n";

/// Who holds the listening socket while no gate runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// `handover-gate@.socket`.
    SocketUnit,
    /// The copy that the gate gave to systemd.
    DescriptorStore,
}

/// The host.
pub(crate) struct Site {
    booted: Booted,
    listener: Listener,
}

/// Waits for a condition of another system.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let looked = tokio::time::timeout(PATIENCE, async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(looked.await.is_ok(), "never came: {what}");
}

impl Site {
    /// None, said loudly, where no host can be booted.
    pub(crate) fn boot(listener: Listener) -> Option<Self> {
        let site = Self { booted: Booted::or_skip(1)?, listener };
        let host = site.host();
        host.put("/etc/handover/billing.toml", CONFIG).expect("a config");
        if listener == Listener::SocketUnit {
            let listen = format!("[Socket]\nListenStream=0.0.0.0:{PORT}\n");
            host.put(&format!("/etc/systemd/system/{SOCKET}.d/listen.conf"), &listen).expect("a drop-in");
        }
        host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
        if listener == Listener::SocketUnit {
            host.must(&["systemctl", "enable", "--now", SOCKET]).expect("listening");
        }
        host.must(&["systemctl", "start", UNIT]).unwrap_or_else(|error| {
            panic!("the gate does not start: {error:#}\n{}", host.journal(UNIT).unwrap_or_default());
        });
        let by_socket = host.must(&["systemctl", "is-active", UNIT]).expect("active");
        assert_eq!(by_socket.trim(), "active");
        Some(site)
    }

    fn host(&self) -> &BootedHost {
        self.booted.host(0)
    }

    pub(crate) fn listener(&self) -> Listener {
        self.listener
    }

    /// Where clients connect.
    pub(crate) fn gate(&self) -> SocketAddr {
        SocketAddr::new(self.host().address(), PORT)
    }

    /// Plays the agent: sends the routes, waits until they are on disk, and leaves.
    pub(crate) async fn route(&self, seq: u64, service: &Service) {
        let link = GateLink::connect(self.host().path("/run/handover/billing/gate.sock").expect("a path"));
        link.send(GateState { seq, admission: Admission::Open, upstreams: vec![service.upstream()] });
        let mut reports = link.reports();
        let saved = reports.wait_for(|report| report.as_ref().is_some_and(|report| report.saved == seq));
        tokio::time::timeout(PATIENCE, saved).await.expect("in time").expect("saved");
    }

    /// `systemctl VERB` of the gate, beside what goes on here; the error is what it said.
    pub(crate) fn systemctl(&self, verb: &'static str) -> JoinHandle<Result<(), String>> {
        let host = self.host().clone();
        tokio::task::spawn_blocking(move || {
            let said = host.must(&["systemctl", verb, UNIT]);
            said.map(drop).map_err(|error| format!("{error:#}\n{}", host.journal(UNIT).unwrap_or_default()))
        })
    }

    pub(crate) fn property(&self, name: &str) -> String {
        let value = self.host().must(&["systemctl", "show", "--value", "--property", name, UNIT]);
        value.expect("a property").trim().to_owned()
    }

    /// As the host numbers it.
    pub(crate) fn main_pid(&self) -> u32 {
        self.property("MainPID").parse().expect("a number")
    }

    /// The gate's main process, as this machine numbers it.
    pub(crate) fn gate_process(&self) -> Pid {
        let root = self.host().path("/proc/self").expect("a path");
        let leader = root.components().nth(2).expect("its PID 1").as_os_str().to_owned();
        let namespace =
            |pid: &std::ffi::OsStr| std::fs::read_link(std::path::Path::new("/proc").join(pid).join("ns/pid")).ok();
        let (ours, number) = (namespace(&leader), self.main_pid().to_string());
        let is_it = |pid: &std::ffi::OsStr| {
            let status = std::fs::read_to_string(std::path::Path::new("/proc").join(pid).join("status"));
            let status = status.unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            numbers.and_then(|line| line.split_whitespace().last()) == Some(&number) && namespace(pid) == ours
        };
        let all = std::fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.file_name());
        let found = all.into_iter().find(|pid| is_it(pid)).expect("the gate's process");
        Pid::from_raw(found.to_str().and_then(|pid| pid.parse().ok()).expect("a number"))
    }

    pub(crate) fn kill(&self, pid: Pid) {
        kill(pid, Signal::SIGKILL).expect("killed");
    }
}
