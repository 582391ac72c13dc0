//! A host with a `builds` directory, a place where builds are published, and a server for it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use handover_agent::config::Config;
use handover_artifact::secret::SecretKey;
use handover_artifact::tree::Listing;
use handover_artifact::{MANIFEST, Manifest, SIGNATURE};
use handover_proto::ids::Version;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) secret: SecretKey,
}

pub(crate) fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

impl Site {
    pub(crate) fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// On another file system.
    pub(crate) fn within(place: &Path) -> Self {
        let dir = tempfile::tempdir_in(place).expect("a directory");
        for name in ["builds", "published", "state", "run"] {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        Self { dir, secret: SecretKey::make().expect("a key").0 }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn built(&self, version: &str) -> PathBuf {
        self.path("builds").join(version)
    }

    /// Publishes a version: a program, and data in a directory.
    pub(crate) fn publish(&self, version: &str) -> PathBuf {
        let dir = self.path("published").join(version);
        fs::create_dir_all(dir.join("lib")).expect("made");
        fs::write(dir.join("run"), format!("#!/bin/sh\n# {version}\nexec sleep 60\n")).expect("written");
        fs::set_permissions(dir.join("run"), Permissions::from_mode(0o755)).expect("executable");
        fs::write(dir.join("lib/some data"), vec![7; 100_000]).expect("written");
        symlink("some data", dir.join("lib/current")).expect("linked");
        self.pack(&dir, version, &[]);
        dir
    }

    pub(crate) fn pack(&self, dir: &Path, version: &str, compatible_with: &[&str]) {
        let files = Listing::of(dir).and_then(|listing| listing.entries(dir)).expect("listed");
        let service = "billing".parse().expect("a service");
        let mut manifest = Manifest::of(service, self::version(version), "2026-11-22T00:00:00Z".into(), files);
        manifest.compatible_with = compatible_with.iter().map(|range| range.parse().expect("a range")).collect();
        self.write(dir, &manifest);
    }

    pub(crate) fn write(&self, dir: &Path, manifest: &Manifest) {
        let bytes = manifest.to_bytes().expect("bytes");
        fs::write(dir.join(SIGNATURE), self.secret.sign(&bytes, "a test")).expect("written");
        fs::write(dir.join(MANIFEST), bytes).expect("written");
    }

    pub(crate) fn key(&self) -> String {
        self.secret.public_text().lines().nth(1).expect("a line").to_owned()
    }

    /// The command copies from where builds are published.
    pub(crate) fn copying(&self) -> String {
        let from = self.path("published");
        format!("fetch = {{ exec = [\"cp\", \"{}/{{version}}/{{file}}\", \"{{to}}\"] }}", from.display())
    }

    pub(crate) fn config(&self, artifact: &str) -> Config {
        let text = format!(
            r#"
            agent = "app-01"
            service = "billing"
            listen = "127.0.0.1:7001"
            operations = "127.0.0.1:7002"
            state_dir = "{state}"
            runtime_dir = "{run}"
            [gate]
            mode = "signal"
            [balancer]
            settle = "3s"
            [driver]
            kind = "process"
            builds = "{builds}"
            command = ["{{builds}}/{{version}}/run"]
            [[probe]]
            name = "ready"
            http = {{ path = "/" }}
            affects = "ready"
            [artifact]
            keys = ["{key}"]
            {artifact}
            [[slot]]
            name = "a"
            port = 7003
            [[slot]]
            name = "b"
            port = 7004
            "#,
            state = self.path("state").display(),
            run = self.path("run").display(),
            builds = self.path("builds").display(),
            key = self.key(),
        );
        Config::parse(Path::new("test.toml"), &text).expect("a config")
    }

    /// Everything in `builds` but the lock.
    pub(crate) fn builds(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("builds")).expect("listed");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !name.ends_with(".lock"));
        names.sort();
        names
    }
}

/// Serves files by HTTP, one request a connection.
pub(crate) struct Server {
    pub(crate) port: u16,
    asked: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn of(root: PathBuf) -> Self {
        Self::with(move |path| answer(&root, path)).await
    }

    /// Answers each path with these bytes.
    pub(crate) async fn with(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let (answer, asked) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = Arc::clone(&answer);
                tokio::spawn(async move { converse(stream, answer.as_ref()).await });
            }
        });
        Self { port, asked }
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn fetch(&self) -> String {
        format!("fetch = {{ url = \"http://127.0.0.1:{}/{{service}}/{{version}}/{{file}}\" }}", self.port)
    }
}

/// One request, one answer, and the end.
pub(crate) async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &(dyn Fn(&str) -> Vec<u8> + Sync),
) {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(count @ 1..) => head.extend_from_slice(&part[..count]),
            Ok(_) | Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    // Whoever hangs up early does not want the rest.
    if stream.write_all(&answer(&path)).await.is_ok() {
        stream.shutdown().await.ok();
    }
}

pub(crate) fn answer(root: &Path, path: &str) -> Vec<u8> {
    let file = path.strip_prefix("/billing/").map(|file| root.join(file.replace("%20", " ")));
    match file.and_then(|file| fs::read(file).ok()) {
        Some(body) => ok(&body),
        None => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
    }
}

pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}
