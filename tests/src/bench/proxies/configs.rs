//! The configs: each proxy as its users would write it for one core, keep-alive to the backend, without logs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::peers::{Peer, Variant};

/// Where one process of a proxy listens.
pub(super) struct Front {
    pub(super) dir: PathBuf,
    pub(super) variant: Variant,
    pub(super) listen: SocketAddr,
    /// For what else it must listen on.
    pub(super) others: [SocketAddr; 2],
}

impl Front {
    pub(super) fn run_dir(&self) -> PathBuf {
        self.dir.join(format!("run-{:?}", self.variant))
    }

    /// The config that sends everything to this backend.
    pub(super) fn config(&self, peer: Peer, backend: SocketAddr) -> String {
        match peer {
            Peer::Gate => self.gate(),
            Peer::Haproxy => self.haproxy(backend),
            Peer::Nginx | Peer::Direct => self.nginx(backend),
        }
    }

    fn gate(&self) -> String {
        let (dir, run, listen) = (self.dir.display(), self.run_dir(), self.listen);
        let [agent, operations] = self.others;
        let tls = match self.variant {
            Variant::Tls => format!("[gate.tls]\ncertificate = \"{dir}/cert.pem\"\nkey = \"{dir}/key.pem\"\n"),
            Variant::Plain | Variant::Http2 => String::new(),
        };
        format!(
            r#"agent = "bench"
service = "bench"
listen = "{agent}"
operations = "{operations}"
state_dir = "{run}"
runtime_dir = "{run}"
store = []
[gate]
mode = "proxy"
listen = "{listen}"
{tls}
[driver]
kind = "process"
builds = "{run}"
command = ["true"]
[[probe]]
name = "ready"
http = {{ path = "/" }}
affects = "ready"
[[slot]]
name = "a"
port = 1
"#,
            run = run.display(),
        )
    }

    fn haproxy(&self, backend: SocketAddr) -> String {
        let how = match self.variant {
            Variant::Plain => String::new(),
            Variant::Http2 => " proto h2".to_owned(),
            Variant::Tls => format!(" ssl crt {}/both.pem alpn h2,http/1.1", self.dir.display()),
        };
        format!(
            "global\n  nbthread 1\n  maxconn 4096\n  stats socket {run}.sock mode 600 level admin expose-fd listeners\n\
             defaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  timeout connect 1s\n  option forwardfor\n\
             frontend f\n  bind {listen}{how}\n  default_backend b\n\
             backend b\n  http-reuse safe\n  server s {backend}\n",
            run = self.run_dir().display(),
            listen = self.listen,
        )
    }

    fn nginx(&self, backend: SocketAddr) -> String {
        let how = match self.variant {
            Variant::Plain => "",
            Variant::Http2 => " http2",
            Variant::Tls => " ssl http2",
        };
        let server = format!(
            "  upstream b {{ server {backend}; keepalive 64; keepalive_requests 1000000000; }}\n\
             \x20 server {{\n    listen {listen}{how} backlog=4096;\n    location / {{\n      proxy_pass http://b;\n      proxy_http_version 1.1;\n\
             \x20     proxy_set_header Connection \"\";\n      proxy_set_header X-Forwarded-For $remote_addr;\n    }}\n  }}\n",
            listen = self.listen,
        );
        nginx(&self.dir, &format!("nginx-{:?}", self.variant), &server)
    }
}

/// The backend: two plain listeners, one for HTTP/2, one with TLS.
pub(super) fn backend(dir: &Path, plain: [SocketAddr; 2], http2: SocketAddr, tls: SocketAddr) -> String {
    let [first, second] = plain;
    let files = dir.display();
    let server = format!(
        "  open_file_cache max=10;\n\
         \x20 server {{ listen {first} backlog=4096; listen {second} backlog=4096; listen {http2} http2; listen {tls} ssl http2; root {files}; }}\n"
    );
    nginx(dir, "backend", &server)
}

fn nginx(dir: &Path, name: &str, server: &str) -> String {
    let dir = dir.display();
    format!(
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile 16384;\nuser root;\npid {dir}/{name}.pid;\nerror_log stderr;\n\
         events {{ worker_connections 8192; }}\nhttp {{\n  access_log off;\n  sendfile on;\n  tcp_nodelay on;\n\
         \x20 keepalive_requests 1000000000;\n  keepalive_timeout 75s;\n  ssl_certificate {dir}/cert.pem;\n  ssl_certificate_key {dir}/key.pem;\n\
         {server}}}\n"
    )
}
