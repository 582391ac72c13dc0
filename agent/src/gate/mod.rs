//! The gate: a proxy in a process of its own, in front of the host's instances: of HTTP, or ([`tcp`]) of connections.
//!
//! It holds the listener and the last routes. The agent, another process, sends it whole states ([`control::GateState`])
//! over a Unix socket; without an agent the last state stays in force (`SAFETY.md` R3, R10). From one gate process to the
//! next: [`handover`].
//!
//! The road of one connection: [`server`] and `clients` accept → `connection` finds out what it speaks ([`tls`], `socket`),
//! hands it to hyper's HTTP/1.1 or HTTP/2 and watches it by [`mod@line`] and [`streams`]. The road of one request on it: `proxy`
//! classes it ([`class`], [`pin`]) → `ticket` asks the pure core ([`admission`], which picks with [`balance`]) → `headers`
//! make it fit → `forward` sends it over a connection of its own (`pool`) or a shared one (`multiplex`) → `upload` and `body`
//! keep the ticket until both bodies have ended; what the gate says itself is in `reply` and `grpc`, what is cut off is told by `cut`. A request that switches
//! to another protocol becomes a `tunnel` of two `pipe`s, closed by [`upgraded`] between two frames of [`websocket`].
//! `docs/gate.md` says what all this does to whom.

pub mod admission;
pub mod balance;
pub mod class;
pub mod client;
pub mod control;
pub mod control_socket;
pub mod counts;
pub mod handover;
pub mod line;
pub mod pin;
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
mod cut;
mod endpoint;
mod forward;
mod grpc;
mod headers;
mod heap;
mod keep_alive;
mod multiplex;
mod open_files;
mod patience;
mod peers;
mod pipe;
mod places;
mod pool;
mod proxy;
mod quiet;
mod replay;
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
mod wire;

pub use headers::Passage;

#[cfg(test)]
mod tests {
    /// `DESIGN.md` §11: what decides is reachable without I/O and reads no clock.
    #[test]
    fn the_deciding_modules_import_no_runtime_no_network_and_no_clock() {
        let core = [
            ("admission", include_str!("admission.rs")),
            ("admission/door", include_str!("admission/door.rs")),
            ("admission/entry", include_str!("admission/entry.rs")),
            ("balance", include_str!("balance.rs")),
            ("class", include_str!("class.rs")),
            ("class/rule", include_str!("class/rule.rs")),
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
