//! The gate: a proxy in a process of its own, in front of the host's instances: of HTTP, or ([`tcp`]) of connections.
//!
//! It holds the listener and the last routes. The agent, another process, sends it whole states ([`control::GateState`])
//! over a Unix socket; without an agent the last state stays in force (`SAFETY.md` R3, R10). From one gate process to the
//! next: [`handover`]. The road of one request:
//! [`server`] and [`clients`] accept → `connection` watches the line → `proxy` classes it ([`class`]) → `ticket` asks the pure core
//! ([`admission`], which picks with [`balance`]) → `forward` sends it through `pool` → `upload` and `body` keep the
//! ticket until both bodies have ended. HTTP/2 and TLS belong in `connection`, WebSocket and gRPC beside `forward`.

pub mod admission;
pub mod balance;
pub mod class;
pub mod client;
pub mod control;
pub mod control_socket;
pub mod counts;
pub mod handover;
pub mod line;
pub mod reload;
pub mod server;
pub mod settings;
pub mod streams;
pub mod tls;
pub mod upgraded;
pub mod websocket;

mod background;
mod body;
mod clients;
mod connection;
mod endpoint;
mod forward;
mod grpc;
mod headers;
mod multiplex;
mod open_files;
mod peers;
mod pipe;
mod pool;
mod proxy;
mod reply;
mod report;
mod saving;
mod socket;
mod state_file;
mod tcp;
mod text_lines;
mod ticket;
mod tunnel;
mod upload;
mod validity;

#[cfg(test)]
mod tests {
    /// `DESIGN.md` §11: what decides is reachable without I/O and reads no clock.
    #[test]
    fn the_deciding_modules_import_no_runtime_no_network_and_no_clock() {
        let core = [
            ("admission", include_str!("admission.rs")),
            ("balance", include_str!("balance.rs")),
            ("class", include_str!("class.rs")),
            ("counts", include_str!("counts.rs")),
            ("line", include_str!("line.rs")),
            ("streams", include_str!("streams.rs")),
            ("upgraded", include_str!("upgraded.rs")),
            ("websocket", include_str!("websocket.rs")),
        ];
        for (name, source) in core {
            for foreign in ["tokio", "hyper", "std::io", "std::fs", "std::env", "Instant", "SystemTime", "rand::"] {
                assert!(!source.contains(foreign), "{name}.rs uses {foreign}");
            }
        }
    }
}
