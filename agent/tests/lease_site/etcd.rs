//! A real etcd of one member that can be restored from a backup.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use handover_store::client::Store;
use tempfile::TempDir;

use super::PATIENCE;

/// Names an etcd binary; etcdctl lies beside it.
const ETCD: &str = "HANDOVER_TEST_ETCD";

pub(crate) struct Etcd {
    binary: PathBuf,
    data: TempDir,
    directory: &'static str,
    pub(crate) address: SocketAddr,
    peer: SocketAddr,
    process: Option<Child>,
}

impl Etcd {
    /// `None`, said loudly, where there is no etcd.
    pub(crate) fn start() -> Option<Self> {
        let named = std::env::var_os(ETCD).map(PathBuf::from);
        let Some(binary) = named.or_else(|| Some("/usr/bin/etcd".into())).filter(|path| path.is_file()) else {
            eprintln!("SKIPPED: {ETCD} names no etcd, and there is no /usr/bin/etcd");
            return None;
        };
        let data = TempDir::new().expect("a directory");
        let mut etcd =
            Self { binary, data, directory: "first", address: free_port(), peer: free_port(), process: None };
        etcd.up();
        Some(etcd)
    }

    pub(crate) fn client(&self) -> Store {
        Store::connect(&[self.address.to_string()]).expect("an endpoint")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    fn up(&mut self) {
        let (client, peer) = (format!("http://{}", self.address), format!("http://{}", self.peer));
        let child = Command::new(&self.binary)
            .args(["--name", "one", "--logger", "zap", "--log-level", "error"])
            .arg("--data-dir")
            .arg(self.path(self.directory))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process = Some(child.expect("etcd starts"));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            assert!(Instant::now() < deadline, "etcd did not start on {}", self.address);
            std::thread::yield_now();
        }
    }

    fn down(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it can be killed");
            process.wait().expect("it ends");
        }
    }

    /// Takes a backup.
    pub(crate) fn back_up(&self) -> PathBuf {
        let file = self.path("backup");
        let endpoint = format!("http://{}", self.address);
        self.ctl(&["--endpoints", &endpoint, "snapshot", "save"], &[&file]);
        file
    }

    /// Stops it, and starts it again from a backup: as the same cluster, or under another token as another one.
    pub(crate) fn restore(&mut self, backup: &Path, token: &str) {
        self.down();
        self.directory = "second";
        let peer = format!("http://{}", self.peer);
        let cluster = format!("one={peer}");
        let place = ["--name", "one", "--initial-cluster", &cluster, "--initial-advertise-peer-urls", &peer];
        let to = self.path(self.directory);
        let args = [&["snapshot", "restore", "--initial-cluster-token", token][..], &place, &["--data-dir"]].concat();
        self.ctl(&args, &[&to, backup]);
        self.up();
    }

    fn ctl(&self, args: &[&str], paths: &[&Path]) {
        let program = self.binary.with_file_name("etcdctl");
        let output = Command::new(&program).env("ETCDCTL_API", "3").args(args).args(paths).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.down();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
