//! The core's modules know no runtime, no network, no store, no clock and no file (`DESIGN.md` §11).
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// What a pure module may not name. `std::net::SocketAddr` is a value, sockets are not.
const FORBIDDEN: [&str; 17] = [
    "tokio",
    "tonic",
    "hyper",
    "etcd_client",
    "handover_store",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "std::time::Instant",
    "SystemTime",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "tracing",
    "crate::clock",
];

/// The pure parts of the agent, files or folders under `src`. The gate's and the lease's cores are listed one by one.
const PURE: [&str; 33] = [
    "balancer/agent_check/answer.rs",
    "balancer/agent_check/askers.rs",
    "balancer/agent_check/recorded.rs",
    "balancer/envoy/file.rs",
    "balancer/haproxy/state.rs",
    "balancer/haproxy/step.rs",
    "conformance/judge.rs",
    "core",
    "driver/exec/judge.rs",
    "gate/admission.rs",
    "gate/balance.rs",
    "gate/class.rs",
    "gate/line.rs",
    "lease/deadline.rs",
    "lease/next.rs",
    "lease/order.rs",
    "lease/moves.rs",
    "lease/taking.rs",
    "lease/belief.rs",
    "lease/versions.rs",
    "lease/certificate.rs",
    "lease/socket/peer.rs",
    "lease/socket/question.rs",
    "lease/doubt.rs",
    "lease/fitness.rs",
    "lease/ladder.rs",
    "lease/stall.rs",
    "lease/suspect.rs",
    "probe/condition.rs",
    "probe/readiness.rs",
    "signal_mode/diag.rs",
    "signal_mode/tracked.rs",
    "wrap/next.rs",
];

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.flat_map(|entry| files(&entry.expect("an entry").path())).collect()
}

#[test]
fn the_core_names_no_runtime_no_store_and_no_clock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    for part in PURE {
        for file in files(&root.join(part)) {
            let text = std::fs::read_to_string(&file).expect("a source file");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (number, line) in code.enumerate() {
                let found = FORBIDDEN.iter().find(|word| line.contains(**word));
                assert!(found.is_none(), "{}: code line {number} names {found:?}: {line}", file.display());
            }
            looked_at += 1;
        }
    }
    assert!(looked_at >= PURE.len() + 4, "only {looked_at} files were looked at");
}
