//! The way of a request's head through the gate in one step, for whoever has heads and no connections.

use std::net::SocketAddr;

use hyper::Version;
use hyper::header::HeaderValue;
use hyper::http::request;

use super::{Hop, Origin, RequestIds, check, to_upstream, upgrade_offer};
use crate::gate::control::{Reason, Upstream};
use crate::gate::settings::Forwarded;

/// What a head's way depends on, beside itself.
#[derive(Debug)]
pub struct Passage<'a> {
    /// Where the client is.
    pub peer: SocketAddr,
    /// It speaks TLS.
    pub secure: bool,
    /// A body follows.
    pub has_body: bool,
    /// What becomes of the client's own claims.
    pub forwarded: Forwarded,
    /// Where the request goes.
    pub upstream: &'a Upstream,
    /// It goes by HTTP/2.
    pub http2: bool,
}

impl Passage<'_> {
    /// The head as the upstream gets it, with the request's id.
    ///
    /// # Errors
    /// Why the request is answered by the gate itself.
    pub fn of(&self, mut head: request::Parts) -> Result<(request::Parts, HeaderValue), (Reason, &'static str)> {
        let offered = !self.http2 && head.version == Version::HTTP_11;
        let upgrade = upgrade_offer(head.version, &head.headers, self.has_body).filter(|_| offered);
        let id = RequestIds::new("id").of(&mut head.headers, self.forwarded);
        check(&head)?;
        let origin = Origin::new(self.peer, self.secure);
        let hop = Hop {
            has_body: self.has_body,
            origin: &origin,
            forwarded: self.forwarded,
            upstream: self.upstream,
            upgrade: upgrade.as_ref(),
            http2: self.http2,
        };
        to_upstream(&mut head, &hop);
        Ok((head, id))
    }
}
