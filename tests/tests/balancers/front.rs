//! A balancer that runs with a sample of our documentation.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use handover_tests::fleet::{Fleet, Process, free_ports};
use nix::sys::signal::Signal;

/// The program, or a sentence that says how to get it.
pub(crate) fn program(name: &str) -> PathBuf {
    handover_tests::docs::program(name).expect("a program")
}

/// The `number`-th block of this language in a page of `docs/balancers`.
pub(crate) fn sample(page: &str, language: &str, number: usize) -> String {
    handover_tests::docs::sample(&format!("balancers/{page}"), language, number).expect("a sample")
}

/// One running balancer.
pub(crate) struct Front {
    /// Where clients connect.
    pub(crate) listen: SocketAddr,
    /// Its process.
    pub(crate) process: Process,
}

impl Drop for Front {
    /// nginx writes over its environment, by which the fleet finds what it has to end.
    fn drop(&mut self) {
        if self.process.has_ended() {
            return;
        }
        let _ended_already = self.process.signal(Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(5);
        while !self.process.has_ended() {
            if Instant::now() > until {
                let _ended_just_now = self.process.kill();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Where clients will connect; known before the balancer runs.
pub(crate) fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_ports(1).expect("a port")[0]))
}

/// The sample, with the addresses of this fleet: each is replaced as it stands in the documentation.
pub(crate) fn fitted(text: &str, fleet: &Fleet, listen: SocketAddr, more: &[(&str, String)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in more {
        text = text.replace(from, to);
    }
    for (number, host) in fleet.hosts.iter().enumerate() {
        let documented = format!("10.0.0.{}", 11 + number);
        for (slot, port) in host.slots.iter().zip([9001, 9002]) {
            text = text.replace(&format!("{documented}:{port}"), &slot.to_string());
        }
        text = text.replace(&documented, &host.gate_listen.ip().to_string());
    }
    let first = &fleet.hosts[0];
    let ports = [("8080", first.gate_listen), ("7102", first.operations), ("7001", first.check)];
    for (documented, address) in ports {
        text = text.replace(documented, &address.port().to_string());
    }
    let port = listen.port();
    for (from, to) in [
        ("10.0.0.1:80", listen.to_string()),
        ("{ address: 10.0.0.1, port_value: 80 }", format!("{{ address: 127.0.0.1, port_value: {port} }}")),
        ("http://:80 {", format!("http://:{port} {{")),
        ("bind 10.0.0.1", "bind 127.0.0.1".to_owned()),
    ] {
        text = text.replace(from, &to);
    }
    let left = text.lines().find(|line| line.contains("10.0.0."));
    assert!(left.is_none(), "an address of the sample was not replaced: {left:?}");
    text
}

/// Starts the program, and waits until it listens. It ends with the fleet.
pub(crate) fn start(fleet: &Fleet, name: &str, args: &[&str], listen: SocketAddr) -> Front {
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let home = ("HOME", fleet.dir().display().to_string());
    let process = Process::spawn(name, &program(name), &args, fleet.dir(), &[home]).expect("started");
    let listens = |_: &Fleet| Ok(TcpStream::connect(listen).is_ok());
    if let Err(error) = fleet.wait_for(&format!("{name} to listen on {listen}"), listens) {
        panic!("{error:#}: {}", process.output());
    }
    Front { listen, process }
}
