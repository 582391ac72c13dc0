//! Real etcd members on loopback.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;

use super::process::Process;

/// One member's two addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    pub(super) client: SocketAddr,
    pub(super) peer: SocketAddr,
}

/// Starts all members; their data lie in `dir`.
pub(super) fn start(program: &Path, dir: &Path, members: &[Addresses]) -> Result<Vec<Process>> {
    let name = |index: usize| format!("etcd-{}", index + 1);
    let url = |address: SocketAddr| format!("http://{address}");
    let all = members.iter().enumerate().map(|(index, member)| format!("{}={}", name(index), url(member.peer)));
    let cluster = all.collect::<Vec<_>>().join(",");
    let member = |(index, member): (usize, &Addresses)| {
        let (client, peer) = (url(member.client), url(member.peer));
        let args = [
            ("--name", name(index)),
            ("--data-dir", dir.join(name(index)).display().to_string()),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", cluster.clone()),
        ];
        let args: Vec<String> = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        Process::spawn(&name(index), program, &args, dir, &[])
    };
    members.iter().enumerate().map(member).collect()
}
