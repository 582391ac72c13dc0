//! Our own processes among each other: how they are reached, and how they are recognised (`DESIGN.md` §3).
//!
//! With files, every connection is mutual TLS, and both sides look at the other's URI name. Without, only loopback is
//! left, where nobody else can listen in.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use handover_proto::ids::Env;
use handover_proto::peer::{PeerName, Role};
use handover_proto::wire::{kind, refusal};
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Code, Request, Status};

use crate::connect::{Connector, Expect};
use crate::files::Tls;
use crate::names::{NameError, caller, name_in};

/// The processes of one environment, seen from one of them.
#[derive(Debug, Clone)]
pub struct Parties {
    env: Env,
    tls: Option<Tls>,
}

/// What is wrong with an address or with our own certificate.
#[derive(Debug, thiserror::Error)]
pub enum PartyError {
    /// Plain text that others could read and change.
    #[error(
        "{address} is not a loopback address, and there only TLS is spoken; give a CA, a certificate and its key \
         (agent: ca, cert and key in [tls]; coordinator and command line: --tls-ca, --tls-cert and --tls-key), or use 127.0.0.1"
    )]
    Plain {
        /// The address.
        address: String,
    },
    /// It cannot be an address.
    #[error("{address:?} is not an address; write it like 10.0.0.1:2791")]
    Address {
        /// As given.
        address: String,
    },
    /// Nobody can dial it.
    #[error("{address} is every address of this host and no single one that others can dial; name one")]
    Unspecified {
        /// As given.
        address: SocketAddr,
    },
    /// Our certificate is somebody else's.
    #[error("`{field}` = {file}: it is {name}'s certificate, and this is {wanted}; give the one that was made for it")]
    WrongName {
        /// The field.
        field: String,
        /// The file.
        file: String,
        /// The name in it.
        name: String,
        /// The name that it should have.
        wanted: String,
    },
    /// Our certificate names nobody.
    #[error("`{field}` = {file}: {reason}; have it made with the URI name {wanted}")]
    Nameless {
        /// The field.
        field: String,
        /// The file.
        file: String,
        /// What is wrong with the names.
        reason: String,
        /// The name that it should have.
        wanted: String,
    },
}

impl Parties {
    /// The processes of `env`; without files only those on loopback.
    pub fn new(env: Env, tls: Option<Tls>) -> Self {
        Self { env, tls }
    }

    /// Those on loopback, in plain text.
    pub fn plain() -> Self {
        Self { env: Env::default(), tls: None }
    }

    /// The files, if there are any.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Whether we may listen there: on a single address, and beyond loopback only with TLS.
    ///
    /// # Errors
    /// [`PartyError::Plain`], [`PartyError::Unspecified`].
    pub fn may_listen(&self, address: SocketAddr) -> Result<(), PartyError> {
        if self.tls.is_none() && !address.ip().is_loopback() {
            return Err(PartyError::Plain { address: address.to_string() });
        }
        if address.ip().is_unspecified() { Err(PartyError::Unspecified { address }) } else { Ok(()) }
    }

    /// Whether our certificate was made for `role`: others would find out later, and one by one.
    ///
    /// # Errors
    /// [`PartyError::WrongName`], [`PartyError::Nameless`].
    pub fn am(&self, role: Role) -> Result<(), PartyError> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let wanted = PeerName::new(&self.env, role);
        let field = format!("{}cert", tls.files().prefix);
        let file = tls.files().cert.display().to_string();
        let material = tls.material();
        let found = material.identity.cert.first().map_or(Err(NameError::None), name_in);
        match found {
            Ok(name) if name == wanted => Ok(()),
            Ok(name) => Err(PartyError::WrongName { field, file, name: name.to_string(), wanted: wanted.to_string() }),
            Err(error) => {
                let reason = error.to_string();
                Err(PartyError::Nameless { field, file, reason, wanted: wanted.to_string() })
            }
        }
    }

    /// Where to dial; limits and pings are the caller's to set. Refused before a byte is sent if it would be plain text
    /// beyond loopback.
    ///
    /// # Errors
    /// [`PartyError::Plain`], [`PartyError::Address`].
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, PartyError> {
        let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
        let bad = || PartyError::Address { address: address.to_owned() };
        let endpoint = Endpoint::from_shared(format!("http://{rest}")).map_err(|_| bad())?;
        let host = endpoint.uri().host().ok_or_else(bad)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if self.tls.is_none() && !loopback {
            return Err(PartyError::Plain { address: address.to_owned() });
        }
        Ok(endpoint)
    }

    /// Connects within `limit`, and with TLS only to whoever is `role`.
    ///
    /// # Errors
    /// tonic's, with the reason as its deepest cause.
    pub async fn connect(&self, endpoint: Endpoint, role: Role, limit: Duration) -> Result<Channel, Error> {
        match &self.tls {
            None => endpoint.connect_timeout(limit).connect().await,
            Some(tls) => {
                let expect = Expect::Name(PeerName::new(&self.env, role));
                endpoint.connect_with_connector(Connector::new(tls.clone(), expect, limit)).await
            }
        }
    }

    /// Whether the caller is one of those who may make this call; `allowed` says who they are, for the refusal. Returns
    /// what the caller is; `None`: on loopback without TLS everybody may, and nobody has a name.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, with the caller's name and who may.
    pub fn admit<T>(
        &self,
        request: &Request<T>,
        allowed: &str,
        may: impl Fn(&Role) -> bool,
    ) -> Result<Option<Role>, Status> {
        if self.tls.is_none() {
            return Ok(None);
        }
        let no = |who: String| {
            let sentence = format!("this is for {allowed} of environment {} alone, and the caller {who}", self.env);
            refusal(Code::PermissionDenied, kind::POLICY, sentence)
        };
        match caller(request) {
            Ok(Some(name)) if name.env == self.env && may(&name.role) => Ok(Some(name.role)),
            Ok(Some(name)) => Err(no(format!("is {name}"))),
            Ok(None) => Err(no("has shown no certificate".to_owned())),
            Err(error) => Err(no(format!("cannot be recognised: {error}"))),
        }
    }
}
