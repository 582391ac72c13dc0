//! A real PostgreSQL of its own for a test: made by `initdb` in a directory of its own, on a port of its own.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::{User, chown};
use postgres::{Client, NoTls};

use crate::fleet::{Process, free_ports};

/// Where Debian puts the servers, one directory for each major version.
const SERVERS: &str = "/usr/lib/postgresql";
/// PostgreSQL refuses to run as root; Debian's package makes this user.
const USER: &str = "postgres";
/// From start to answering; 0.3 s on a quiet machine.
const START: Duration = Duration::from_secs(30);

/// Where a server runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The address that it listens on.
    pub ip: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Its network namespace, if that is not ours; clients of any address are let in there.
    pub namespace: Option<String>,
}

/// A running server, ended with this value.
#[derive(Debug)]
pub struct Postgres {
    process: Process,
    place: Place,
    dir: PathBuf,
    bin: PathBuf,
}

impl Postgres {
    /// Makes a cluster in `dir` and starts it on a free port of loopback.
    ///
    /// # Errors
    /// If no server is installed (Debian: `apt-get install postgresql`), or it does not start.
    pub fn start(dir: &Path) -> Result<Self> {
        let port = free_ports(1)?[0];
        Self::start_at(dir, Place { ip: Ipv4Addr::LOCALHOST, port, namespace: None })
    }

    /// The same at another place.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub fn start_at(dir: &Path, place: Place) -> Result<Self> {
        let bin = servers()?;
        let data = dir.join("postgres");
        std::fs::create_dir_all(&data)?;
        own(&data)?;
        let mut initdb = Command::new(bin.join("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"]);
        let made = unprivileged(initdb.arg(&data))?.current_dir("/").output().context("running initdb")?;
        if !made.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&made.stderr));
        }
        if place.namespace.is_some() {
            let mut rules = File::options().append(true).open(data.join("pg_hba.conf"))?;
            writeln!(rules, "host all all 0.0.0.0/0 trust")?;
        }
        let process = spawn(&bin, &data, &place, dir)?;
        let server = Self { process, place, dir: dir.to_owned(), bin };
        server.wait()?;
        Ok(server)
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}:{}/postgres", self.place.ip, self.place.port)
    }

    /// A connection as the superuser.
    ///
    /// # Errors
    /// If it is refused.
    pub fn connect(&self) -> Result<Client, postgres::Error> {
        Client::connect(&self.url(), NoTls)
    }

    /// The server's own process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills the server as a crash would, and starts it again on the same data and port.
    ///
    /// # Errors
    /// If it does not come back.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        // SIGQUIT: immediate shutdown of all its processes, without a checkpoint. SIGKILL would leave them behind.
        self.process.signal(Signal::SIGQUIT)?;
        self.process.wait()?;
        self.process = spawn(&self.bin, &self.dir.join("postgres"), &self.place, &self.dir)?;
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        let until = Instant::now() + START;
        loop {
            match self.connect() {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= until => {
                    return Err(error).context(format!("PostgreSQL did not start:\n{}", self.process.output()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Immediate shutdown; the data go with the directory.
        if self.process.signal(Signal::SIGQUIT).is_ok() {
            drop(self.process.wait());
        }
    }
}

fn spawn(bin: &Path, data: &Path, place: &Place, dir: &Path) -> Result<Process> {
    let setting = |name: &str, value: &str| ["-c".to_owned(), format!("{name}={value}")];
    let mut args = vec!["-D".to_owned(), data.display().to_string()];
    args.extend(setting("port", &place.port.to_string()));
    args.extend(setting("listen_addresses", &place.ip.to_string()));
    args.extend(setting("unix_socket_directories", ""));
    args.extend(setting("max_connections", "200"));
    let program = bin.join("postgres");
    let Some(namespace) = &place.namespace else {
        return Process::spawn_as("postgres", &program, &args, dir, &[], user()?);
    };
    // Entering a namespace takes root's rights, which the server must not have; both programs become the next.
    let mut words = vec![format!("--net=/run/netns/{namespace}")];
    if user()?.is_some() {
        words.extend(["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"].map(str::to_owned));
    }
    words.push(program.display().to_string());
    words.extend(args);
    Process::spawn("postgres", Path::new("/usr/bin/nsenter"), &words, dir, &[])
}

/// The user that the server runs as; none: we are not root, so it runs as us.
fn user() -> Result<Option<User>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let found = User::from_name(USER)?;
    found.map(Some).with_context(|| format!("PostgreSQL does not run as root, and there is no user {USER:?}"))
}

fn own(dir: &Path) -> Result<()> {
    let Some(user) = user()? else { return Ok(()) };
    chown(dir, Some(user.uid), Some(user.gid))?;
    // initdb and the server have to pass through the directories above.
    let mut above = dir.parent();
    while let Some(parent) =
        above.filter(|parent| parent.starts_with(std::env::temp_dir()) && *parent != std::env::temp_dir())
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(parent, mode)?;
        above = parent.parent();
    }
    Ok(())
}

fn unprivileged(command: &mut Command) -> Result<&mut Command> {
    Ok(match user()? {
        Some(user) => command.uid(user.uid.as_raw()).gid(user.gid.as_raw()),
        None => command,
    })
}

/// The programs of the newest server that is installed.
///
/// # Errors
/// If there is none.
pub fn servers() -> Result<PathBuf> {
    let missing = || format!("no PostgreSQL server under {SERVERS}: apt-get install postgresql");
    let mut versions: Vec<(u32, OsString)> = std::fs::read_dir(SERVERS)
        .with_context(missing)?
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.file_name())))
        .filter(|(_, name)| Path::new(SERVERS).join(name).join("bin/initdb").exists())
        .collect();
    versions.sort();
    let (_, name) = versions.pop().with_context(missing)?;
    Ok(Path::new(SERVERS).join(name).join("bin"))
}
