//! The peer: the same hosts, without anything of ours on them, upgraded by an Ansible playbook ([`PLAYBOOK`]) over ssh. HAProxy
//! sends straight to the service then, which is one plain unit.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::rolling::{Upgrades, slow_start, upgrades};
use super::{CANDIDATE, CURRENT};
use crate::bench::FleetSizes;
use crate::booted::BootedHost;
use crate::booted::front::Front;
use crate::booted::site::{Site, until};
use crate::docs::venv;
use crate::span;

const PLAYBOOK: &str = include_str!("upgrade.yml");

/// Where the plain service listens.
const PORT: u16 = 8081;

/// As somebody who cares for speed sets it up: one connection per host that is kept, and no copying of files.
const SETTINGS: &str = "[defaults]
inventory = hosts.ini
host_key_checking = False
[ssh_connection]
pipelining = True
ssh_args = -o ControlMaster=auto -o ControlPersist=60s
control_path = ./%%h
";

/// Root may come in with our key only.
const SSHD: &str = "Port 22
HostKey /srv/site/ssh/host
AuthorizedKeysFile /srv/site/ssh/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
";

/// Its programs.
pub(super) struct Ansible {
    playbook: PathBuf,
    sshd: PathBuf,
}

impl Ansible {
    /// Looks for them where `tests/bench hosts` puts them.
    pub(super) fn find() -> Result<Self> {
        let playbook = venv().join("bin/ansible-playbook");
        let unpacked = venv().join("../sshd/usr/sbin/sshd");
        let sshd = [Path::new("/usr/sbin/sshd"), &unpacked].into_iter().find(|path| path.is_file());
        ensure!(playbook.is_file(), "there is no {}; tests/ansible installs it", playbook.display());
        let sshd = sshd.context("there is no sshd; tests/ansible unpacks one")?;
        Ok(Self { playbook, sshd: sshd.to_owned() })
    }

    /// Puts the plain service on the hosts, on which nothing runs, and upgrades it there and back.
    pub(super) fn run(&self, site: &Site, sizes: &FleetSizes) -> Result<Upgrades> {
        let dir = site.hosts.shared().join("ssh");
        self.keys(&dir)?;
        for host in site.hosts.hosts() {
            plain_service(host, sizes)?;
            accept_ssh(host)?;
        }
        let front = Front::start(&site.hosts, PORT)?;
        let variables = [
            ("haproxy_socket", front.socket().display().to_string()),
            ("step_soak_s", span::parse(sizes.step_soak)?.as_secs_f64().to_string()),
            ("soak_s", span::parse(sizes.soak)?.as_secs_f64().to_string()),
            ("ansible_python_interpreter", "/usr/bin/python3".to_owned()),
        ];
        self.write(site, &dir, &variables)?;
        let versions = [CANDIDATE, CURRENT].into_iter().cycle().take(sizes.upgrades);
        let done = upgrades(versions, |version| self.upgrade(&dir, version));
        for host in site.hosts.hosts() {
            hang_up(&dir, host);
        }
        done
    }

    /// Keys of both sides, and the server.
    fn keys(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir.join("lib"))?;
        for key in ["key", "host"] {
            let file = dir.join(key).display().to_string();
            said(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &file]))?;
        }
        std::fs::copy(&self.sshd, dir.join("sshd"))?;
        // An unpacked one has brought a library of its own.
        let root = self.sshd.ancestors().nth(3).context("the root of sshd")?;
        for entry in std::fs::read_dir(root.join("lib/own")).into_iter().flatten().flatten() {
            std::fs::copy(entry.path(), dir.join("lib").join(entry.file_name()))?;
        }
        Ok(std::fs::write(dir.join("sshd_config"), SSHD)?)
    }

    /// Playbook, settings and hosts.
    fn write(&self, site: &Site, dir: &Path, variables: &[(&str, String)]) -> Result<()> {
        let key = dir.join("key");
        let line = |host: &BootedHost| {
            let (name, address, key) = (host.name(), host.address(), key.display());
            format!("{name} ansible_host={address} ansible_user=root ansible_ssh_private_key_file={key}\n")
        };
        let lines: String = site.hosts.hosts().iter().map(line).collect();
        let variables: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let hosts = format!(
            "localhost ansible_connection=local\n[billing]\n{lines}[billing:vars]\n\
             ansible_ssh_common_args=-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR\n[all:vars]\n{variables}"
        );
        std::fs::write(dir.join("hosts.ini"), hosts)?;
        std::fs::write(dir.join("ansible.cfg"), SETTINGS)?;
        Ok(std::fs::write(dir.join("upgrade.yml"), PLAYBOOK)?)
    }

    fn upgrade(&self, dir: &Path, version: &str) -> Result<Duration> {
        let mut command = Command::new(&self.playbook);
        command.args(["--extra-vars", &format!("version={version}"), "upgrade.yml"]).current_dir(dir);
        command.env("HOME", dir).env("LC_ALL", "C.UTF-8").env("ANSIBLE_CONFIG", "ansible.cfg");
        let began = Instant::now();
        let text = said(&mut command)?;
        let took = began.elapsed();
        ensure!(!text.contains("WARNING"), "Ansible warns: {text}");
        Ok(took)
    }
}

/// What a command says that must succeed.
fn said(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?} ended with {}: {text}", done.status);
    Ok(text)
}

/// The service as one has it without us: one unit, one link.
fn plain_service(host: &BootedHost, sizes: &FleetSizes) -> Result<()> {
    let unit = format!(
        "[Service]\nType=notify\nEnvironmentFile=/builds/billing/current/version.env\n{start}\
         ExecStart=/builds/billing/current/billing --version-name ${{VERSION}} --address {address} --port {PORT} \
         --ledger /srv/site/ledger.db --lease-socket /run/nobody.sock\nTimeoutStopSec=20s\n",
        start = slow_start(sizes),
        address = host.address(),
    );
    host.put("/etc/systemd/system/billing.service", &unit)?;
    for version in [CURRENT, CANDIDATE] {
        host.put(&format!("/builds/billing/{version}/version.env"), &format!("VERSION={version}\n"))?;
    }
    host.must(&["ln", "-sfn", &format!("/builds/billing/{CURRENT}"), "/builds/billing/current"])?;
    host.must(&["systemctl", "daemon-reload"])?;
    host.must(&["systemctl", "start", "billing.service"])?;
    Ok(())
}

fn accept_ssh(host: &BootedHost) -> Result<()> {
    let user =
        "mkdir -p /run/sshd; grep -q ^sshd: /etc/passwd || echo sshd:x:74:65534::/run/sshd:/bin/false >>/etc/passwd";
    host.must(&["sh", "-c", user])?;
    let serve = ["/srv/site/ssh/sshd", "-D", "-e", "-f", "/srv/site/ssh/sshd_config"];
    let unit = ["systemd-run", "--unit=sshd", "--setenv=LD_LIBRARY_PATH=/srv/site/ssh/lib"];
    host.must(&[&unit[..], &serve].concat())?;
    until("sshd to listen", || TcpStream::connect((host.address(), 22)).is_ok());
    Ok(())
}

/// Ends the connection that was kept.
fn hang_up(dir: &Path, host: &BootedHost) {
    let (socket, address) = (format!("ControlPath=./{}", host.address()), host.address().to_string());
    let mut command = Command::new("ssh");
    command.args(["-O", "exit", "-o", &socket, &address]).current_dir(dir);
    if let Err(error) = said(&mut command) {
        eprintln!("bench: {error:#}; it ends by itself in a moment");
    }
}
