//! The real program `handover-agent gate`, as processes of one site.

use std::io::{Read, Seek};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use handover_agent::gate::client::GateLink;
use handover_agent::gate::control::{Admission, GateReport, GateState, Upstream};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{PATIENCE, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_handover-agent");
/// Plays the part of the service manager between fork and exec: the listener is descriptor 3, and the variables say so.
const PASS_ON: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec \"$@\"";

/// One gate's config and files, whichever process has them.
pub(crate) struct Site {
    directory: tempfile::TempDir,
    pub(crate) listen: SocketAddr,
    pub(crate) control: PathBuf,
    config: PathBuf,
}

impl Site {
    /// With a port that was free a moment ago; `gate` goes into the gate's table.
    pub(crate) fn new(gate: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        Self::at(free, gate)
    }

    pub(crate) fn at(listen: SocketAddr, gate: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let site = Self {
            listen,
            control: directory.path().join("run/gate.sock"),
            config: directory.path().join("config.toml"),
            directory,
        };
        site.configure(listen, gate);
        site
    }

    /// Writes the config anew.
    pub(crate) fn configure(&self, listen: SocketAddr, gate: &str) {
        let directory = self.directory.path().display();
        // The agent's own ports are not used: there is no agent.
        let text = format!(
            "agent = 'a'\nservice = 's'\nlisten = '127.0.0.1:1'\noperations = '127.0.0.1:2'\n\
             state_dir = '{directory}/state'\nruntime_dir = '{directory}/run'\n\
             [driver]\nkind = 'process'\nbuilds = '/none'\ncommand = ['{{builds}}/{{version}}']\n\
             [[slot]]\nname = 'a'\nport = 3\n\
             [[probe]]\nname = 'ready'\nhttp = {{ path = '/' }}\naffects = 'ready'\n[gate]\nlisten = '{listen}'\n{}{gate}\n",
            if gate.contains("mode =") { "" } else { "mode = 'proxy'\n" },
        );
        std::fs::write(&self.config, text).expect("written");
    }

    /// Writes a config without a gate.
    pub(crate) fn signal_mode(&self) {
        let text = std::fs::read_to_string(&self.config).expect("a config");
        let without = text.split("[gate]").next().expect("what is before");
        std::fs::write(&self.config, format!("{without}[gate]\nmode = 'signal'\n[balancer]\nsettle = '3s'\n"))
            .expect("written");
    }

    fn command(&self, program: &str, before: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(before).arg("gate").arg("--config").arg(&self.config).args(arguments);
        command.stdout(Stdio::null()).env("HANDOVER_LOG", "debug");
        command.env_remove("NOTIFY_SOCKET").env_remove("LISTEN_FDS");
        command
    }

    /// Starts the program.
    pub(crate) fn start(&self, arguments: &[&str]) -> Gate {
        self.spawn(self.command(PROGRAM, &[], arguments))
    }

    /// Starts it with an open listener, as a service manager would, under this name.
    pub(crate) fn start_given(&self, listener: &TcpListener, name: &str, environment: &[(&str, &str)]) -> Gate {
        let listener: OwnedFd = listener.try_clone().expect("another descriptor").into();
        let mut command = self.command("/bin/sh", &["-c", PASS_ON, "sh", PROGRAM], &[]);
        command.stdin(listener).env("LISTEN_FDNAMES", name).envs(environment.iter().copied());
        self.spawn(command)
    }

    pub(crate) fn start_with(&self, environment: &[(&str, &str)]) -> Gate {
        let mut command = self.command(PROGRAM, &[], &[]);
        command.envs(environment.iter().copied());
        self.spawn(command)
    }

    fn spawn(&self, mut command: Command) -> Gate {
        let log = tempfile::tempfile_in(self.directory.path()).expect("a log");
        command.stderr(log.try_clone().expect("another descriptor"));
        Gate { child: command.spawn().expect("started"), log }
    }

    pub(crate) fn link(&self) -> GateLink {
        GateLink::connect(&self.control)
    }
}

/// One process.
pub(crate) struct Gate {
    child: Child,
    log: std::fs::File,
}

impl Gate {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a pid")), signal).expect("sent");
    }

    /// Kills it, and returns when its sockets are closed.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its end");
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits until it is the one that agents find.
    pub(crate) async fn in_charge(&mut self, link: &GateLink) -> GateReport {
        let pid = self.pid();
        let ours = |report: &Option<GateReport>| report.as_ref().is_some_and(|report| report.pid == pid);
        let mut reports = link.reports();
        let found = tokio::time::timeout(PATIENCE, reports.wait_for(ours)).await;
        match found {
            Ok(report) => report.expect("the link lives").clone().expect("a report"),
            Err(_) => panic!("process {pid} never was in charge; it said:\n{}", self.said()),
        }
    }

    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("it ends", async || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        })
        .await;
        status.expect("a status")
    }

    /// Its log so far.
    pub(crate) fn said(&mut self) -> String {
        let mut text = String::new();
        self.log.rewind().expect("to the beginning");
        self.log.read_to_string(&mut text).expect("text");
        text
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a report.
pub(crate) async fn report_when(link: &GateLink, what: &str, condition: impl Fn(&GateReport) -> bool) -> GateReport {
    let mut reports = link.reports();
    let found = reports.wait_for(|report| report.as_ref().is_some_and(&condition));
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(report) => report.expect("the link lives").clone().expect("a report"),
        Err(_) => panic!("never reported: {what}; last: {:#?}", link.reports().borrow()),
    }
}

/// Puts a state in force and waits until it is saved.
pub(crate) async fn route(link: &GateLink, seq: u64, upstreams: &[Upstream]) {
    link.send(GateState { seq, admission: Admission::Open, upstreams: upstreams.to_vec() });
    report_when(link, "the state in force and saved", |report| report.applied == seq && report.saved == seq).await;
}
