//! Mutual TLS, for the way to etcd and for our own gRPC.
//!
//! Both use the same three files (CA, certificate, key), the same [`Connector`], TLS 1.3 only. What differs is how the
//! server proves who it is: an etcd member by the host name in its certificate, our own processes by their URI name
//! ([`handover_proto::peer`]), so that addresses may change without new certificates.
//!
//! The files are read again whenever a connection is made and they have changed: a renewed certificate takes effect
//! without a restart.

mod accept;
mod connect;
mod error;
mod expiry;
mod files;
mod identity;
mod names;
mod parties;
pub mod validity;

pub use accept::{Incoming, incoming};
pub use connect::{ConnectFailure, Connector, Expect};
pub use error::TlsError;
pub use files::{Tls, TlsFiles};
pub use names::{NameError, caller, name_in};
pub use parties::{Parties, PartyError};
