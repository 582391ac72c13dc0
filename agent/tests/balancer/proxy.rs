//! A HAProxy of a test's own, and its stats socket.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use handover_agent::balancer::Balancers;
use handover_agent::balancer::haproxy::state::{Server, servers};
use handover_agent::balancer::settings::BalancerSettings;
use handover_agent::core::front::{By, FrontSeen, Target, Wish, Wishes};
use handover_agent::core::next::Waiting;
use tokio::sync::{Notify, oneshot};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const ALL: Wish = Wish::Serve { percent: 100 };

pub(crate) fn host(wish: Wish) -> Wishes {
    Wishes::from([(Target::Host, wish)])
}

#[path = "../../../tests/src/fleet/ports.rs"]
mod ports;

/// A port that is free now, and that no outgoing connection takes.
pub(crate) fn free() -> SocketAddr {
    let port = ports::free_ports(1).expect("a port")[0];
    ([127, 0, 0, 1], port).into()
}

pub(crate) struct Proxy {
    pub(crate) dir: tempfile::TempDir,
    child: Option<Child>,
    server: String,
    /// Answers HAProxy's own checks, so that the server is up.
    _backend: TcpListener,
}

impl Proxy {
    /// One backend, `billing`, with the server `app-01`.
    pub(crate) fn new(extra: &str) -> Self {
        let backend = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = format!("server app-01 {} weight 100 {extra}", backend.local_addr().expect("an address"));
        Self { dir: tempfile::tempdir().expect("a directory"), child: None, server, _backend: backend }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("admin.sock")
    }

    /// Starts it; what it was told before is forgotten, as after a restart.
    pub(crate) fn start(&mut self) {
        let config = self.dir.path().join("haproxy.cfg");
        let text = format!(
            "global\n  stats socket {} mode 600 level admin\ndefaults\n  mode http\n  timeout connect 1s\n  timeout client 5s\n  \
             timeout server 5s\nfrontend in\n  bind {}\n  default_backend billing\nbackend billing\n  {}\n",
            self.socket().display(),
            free(),
            self.server
        );
        std::fs::write(&config, text).expect("a config");
        let log = File::create(self.dir.path().join("haproxy.log")).expect("a log");
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("haproxy runs; `tests/run --tools` installs it"));
        self.until("HAProxy to answer", |it| it.find().is_some());
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it was running");
            child.wait().expect("it ends");
        }
    }

    /// An operator's command.
    pub(crate) fn say(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).expect("the socket");
        writeln!(stream, "{command}").expect("said");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn find(&self) -> Option<Server> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        writeln!(stream, "show servers state billing").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        servers(&answer).ok()?.remove("app-01")
    }

    pub(crate) fn server(&self) -> Server {
        self.find().expect("HAProxy answers")
    }

    /// How its last agent-check ended, in its own letters.
    pub(crate) fn agent_status(&self) -> String {
        let answer = self.say("show stat");
        let fields = |line: &str| -> Vec<String> { line.split(',').map(str::to_owned).collect() };
        let at = answer.lines().next().map(fields).expect("a head").iter().position(|name| name == "agent_status");
        let line = answer.lines().find(|line| line.starts_with("billing,app-01,")).map(fields).expect("the server");
        line[at.expect("a column")].clone()
    }

    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !condition(self) {
            assert!(Instant::now() < end, "waited for {what}: {:?}", self.find());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An agent's balancers, as its main loop uses them, on a runtime of their own. Dropped, it is dead.
pub(crate) struct Agent {
    balancers: Option<Balancers>,
    runtime: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Agent {
    pub(crate) fn start(settings: &str, state_dir: &Path) -> Self {
        let settings: BalancerSettings = toml::from_str(settings).expect("settings");
        let state_dir = state_dir.to_owned();
        let ((out, opened), (stop, stopped)) = (std::sync::mpsc::channel(), oneshot::channel());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let wake = Arc::new(Notify::new());
                let all = Balancers::open(&settings, By::Host, Default::default(), &state_dir, &wake).await;
                out.send(all).expect("somebody waits");
                let _dropped = stopped.await;
            });
        });
        let balancers = opened.recv().expect("an answer").expect("balancers");
        Self { balancers: Some(balancers), runtime: Some((stop, thread)) }
    }

    fn balancers(&self) -> &Balancers {
        self.balancers.as_ref().expect("it lives")
    }

    pub(crate) fn tell(&self, wish: Wish) {
        self.balancers().tell(&host(wish));
    }

    fn until(&self, what: &str, fits: impl Fn(&FrontSeen) -> bool) -> FrontSeen {
        let end = Instant::now() + LIMIT;
        loop {
            let seen = self.balancers().seen();
            if fits(&seen) {
                return seen;
            }
            assert!(Instant::now() < end, "waited for {what}: {seen:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn confirmed(&self, wish: Wish) {
        self.tell(wish);
        self.until(&format!("{wish:?} to be confirmed"), |seen| seen.pending(&host(wish)).is_none());
    }

    /// Why this is not so, as far as is known now.
    pub(crate) fn pending(&self, wish: Wish) -> Option<Waiting> {
        self.balancers().seen().pending(&host(wish))
    }

    /// Waits for a reason that says this.
    pub(crate) fn waits(&self, wish: Wish, says: &str) -> Waiting {
        self.tell(wish);
        let fits = |seen: &FrontSeen| seen.pending(&host(wish)).is_some_and(|waiting| waiting.sentence.contains(says));
        let seen = self.until(&format!("a reason with {says:?}"), fits);
        seen.pending(&host(wish)).expect("a reason")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.balancers = None;
        if let Some((stop, thread)) = self.runtime.take() {
            drop(stop);
            let _ended = thread.join();
        }
    }
}
