//! HAProxy in front of booted hosts. It runs beside us, on their bridge.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Booted;
use crate::docs::program;
use crate::fleet::Process;

/// Where hosts tell it where requests may go.
pub const ADMIN: &str = "10.88.0.254:9999";
/// Where clients connect.
const FRONT: ([u8; 4], u16) = ([127, 0, 0, 1], 2788);
/// It listens within moments.
const START: Duration = Duration::from_secs(20);

/// A running HAProxy. Its backend is called `billing`, each server in it as its host. Dropping it ends it.
pub struct Front {
    process: Process,
    socket: PathBuf,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
    }
}

impl Front {
    /// Sends to this port of every host.
    ///
    /// # Errors
    /// If it is missing, or does not listen.
    pub fn start(hosts: &Booted, port: u16) -> Result<Self> {
        let dir = hosts.shared();
        let (file, socket) = (dir.join("haproxy.cfg"), dir.join("haproxy.sock"));
        let servers: String = hosts
            .hosts()
            .iter()
            .map(|host| {
                let (name, address) = (host.name(), host.address());
                format!(
                    "    server {name} {address}:{port} weight 100 check inter 200ms fastinter 100ms rise 1 fall 3\n"
                )
            })
            .collect();
        let text = format!(
            "global\n    stats socket ipv4@{ADMIN} level admin\n    stats socket {socket} level admin\n\
             defaults\n    mode http\n    timeout connect 1s\n    timeout client 60s\n    timeout server 60s\n    option redispatch\n    retries 3\n\
             frontend billing\n    bind {front}\n    default_backend billing\n\
             backend billing\n    balance roundrobin\n{servers}",
            front = Self::address(),
            socket = socket.display(),
        );
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let args = ["-db".to_owned(), "-f".into(), file.display().to_string()];
        let front = Self { process: Process::spawn("haproxy", &program("haproxy")?, &args, dir, &[])?, socket };
        let end = Instant::now() + START;
        while TcpStream::connect(Self::address()).is_err() {
            ensure!(Instant::now() < end, "HAProxy does not listen on {}", Self::address());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(front)
    }

    /// Where clients connect.
    pub fn address() -> SocketAddr {
        SocketAddr::from(FRONT)
    }

    /// Where it is told what to do by those who are beside it.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// The lines by which a host's agent finds it.
    pub fn lines_for(host: &super::BootedHost) -> String {
        let name = host.name();
        format!("\n[[balancer.haproxy]]\nsocket = \"tcp:{ADMIN}\"\nbackend = \"billing\"\nserver = \"{name}\"\n")
    }
}
