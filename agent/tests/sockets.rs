//! Connections are counted by the kernel: both families, the states that are work, and other network namespaces.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use handover_agent::signal_mode::sockets::{Kernel, SocketsError};

fn me() -> i32 {
    i32::try_from(std::process::id()).expect("a pid")
}

fn count(kernel: &mut Kernel, port: u16) -> usize {
    kernel.connections(me(), port).expect("counted").len()
}

/// Ends are closed in the background when the machine is busy.
fn falls_to(kernel: &mut Kernel, port: u16, wanted: usize) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let counted = count(kernel, port);
        if counted == wanted {
            return;
        }
        assert!(counted > wanted && Instant::now() < end, "{counted} counted, {wanted} wanted");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn pairs(listener: &TcpListener, to: SocketAddr, count: usize) -> Vec<(TcpStream, TcpStream)> {
    let pair = |_| (TcpStream::connect(to).expect("connected"), listener.accept().expect("accepted").0);
    (0..count).map(pair).collect()
}

#[test]
fn connections_of_one_port_are_counted_among_many_others() {
    let (ours, others) =
        (TcpListener::bind("127.0.0.1:0").expect("a port"), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let (here, there) = (ours.local_addr().expect("address"), others.local_addr().expect("address"));
    let _others = pairs(&others, there, 300);
    let mut kernel = Kernel::default();
    assert_eq!(count(&mut kernel, here.port()), 0, "a listener alone is no work");
    let mut clients = pairs(&ours, here, 50);
    let began = Instant::now();
    assert_eq!(count(&mut kernel, here.port()), 50);
    eprintln!("50 of 350 connections counted in {} us", began.elapsed().as_micros());
    let peers = kernel.connections(me(), here.port()).expect("counted");
    assert!(clients.iter().all(|(client, _)| peers.contains(&client.local_addr().expect("address"))));
    clients.truncate(20);
    falls_to(&mut kernel, here.port(), 20);
}

#[test]
fn a_client_that_has_closed_its_half_is_work_until_the_service_closes_too() {
    let ours = TcpListener::bind("127.0.0.1:0").expect("a port");
    let here = ours.local_addr().expect("address");
    let (client, server) = pairs(&ours, here, 1).remove(0);
    client.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!((&server).read(&mut [0; 1]).expect("the end"), 0);
    let mut kernel = Kernel::default();
    assert_eq!(count(&mut kernel, here.port()), 1);
    drop((server, client));
    falls_to(&mut kernel, here.port(), 0);
}

#[test]
fn version_6_and_mapped_version_4_are_counted_together() {
    let ours = TcpListener::bind("[::]:0").expect("a port");
    let port = ours.local_addr().expect("address").port();
    let _six = pairs(&ours, SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port)), 2);
    let four = pairs(&ours, SocketAddr::from(([127, 0, 0, 1], port)), 3);
    let peers = Kernel::default().connections(me(), port).expect("counted");
    assert_eq!(peers.len(), 5);
    assert!(four.iter().all(|(client, _)| peers.contains(&client.local_addr().expect("address"))), "as version 4");
}

/// A service in a container: the same port number, another world.
#[test]
fn connections_are_counted_in_the_namespace_of_the_process() {
    let script = "import socket,sys\n\
        l=socket.create_server(('127.0.0.1',0)); p=l.getsockname()[1]\n\
        c=[socket.create_connection(('127.0.0.1',p)) for _ in range(7)]; s=[l.accept()[0] for _ in c]\n\
        print(p,flush=True); sys.stdin.read()";
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", "ip link set lo up && exec python3 -c \"$0\"", script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare runs");
    let mut line = String::new();
    let out = child.stdout.take().expect("its output");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a port");
    let port: u16 = line.trim().parse().expect("a port; may this test make network namespaces?");
    let pid = i32::try_from(child.id()).expect("a pid");
    let mut kernel = Kernel::default();
    assert_eq!(kernel.connections(pid, port).expect("counted").len(), 7);
    assert_eq!(count(&mut kernel, port), 0, "not ours");
    assert_eq!(kernel.connections(pid, port).expect("counted").len(), 7, "and back");
    child.kill().expect("it was running");
    child.wait().expect("it ends");
    let error = kernel.connections(pid, port).expect_err("it is gone");
    assert!(matches!(error, SocketsError::Namespace { .. }), "{error}");
}

#[test]
fn three_connections_are_found_among_four_thousand_each_time() {
    let others = TcpListener::bind("127.0.0.1:0").expect("a port");
    let _others = pairs(&others, others.local_addr().expect("address"), 2000);
    let ours = TcpListener::bind("127.0.0.1:0").expect("a port");
    let here = ours.local_addr().expect("address");
    let _clients = pairs(&ours, here, 3);
    let mut kernel = Kernel::default();
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let began = Instant::now();
        assert_eq!(count(&mut kernel, here.port()), 3);
        best = best.min(began.elapsed());
    }
    eprintln!("3 among 4,003 sockets: {} us at best", best.as_micros());
}
