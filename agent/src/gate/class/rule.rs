//! One exception from "GET, HEAD and OPTIONS are reads and everything else is a write". Pure.

use http::Method;
use http::uri::PathAndQuery;
use serde::{Deserialize, Serialize};

use super::{Class, climbs, plain};

/// Which requests are of which class: by method, and by one of the path's prefix, its pattern or a gRPC method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct ClassRule {
    method: Option<String>,
    place: Place,
    class: Class,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Prefix(String),
    Pattern(String),
    Grpc(String),
}

/// A rule that says nothing, or two things.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// None, or more than one, of the three ways to name requests.
    #[error("a gate rule needs exactly one of `path_prefix`, `path` and `grpc`")]
    Place,
    /// A path is not a path.
    #[error(
        "gate rule {field} {given:?} must begin with \"/\" and be a path as requests have it: no \"?\", \"#\", blank or \"..\""
    )]
    Path {
        /// Which field.
        field: &'static str,
        /// What it says.
        given: String,
    },
    /// A method is not written as HTTP writes it.
    #[error("gate rule method {0:?} must be in capitals, as HTTP writes it")]
    Method(String),
    /// A gRPC method is not written as gRPC writes it.
    #[error(
        "gate rule grpc {0:?} must be \"package.Service/Method\"; `*` stands for any letters, as in \"billing.v1.Invoices/Get*\""
    )]
    Grpc(String),
    /// A gRPC call is always a POST.
    #[error("gate rule grpc {0:?} takes no `method`: every gRPC call is a POST")]
    GrpcMethod(String),
}

/// As it stands in the config.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// In capitals; without one the rule is for every method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    /// The beginning of the path, in whole segments: `/search` takes `/search` and `/search/x`, not `/searching`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_prefix: Option<String>,
    /// The whole path; `*` stands for any characters within one segment, a segment `**` for any number of segments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// A gRPC method, `package.Service/Method`, with `*` as in `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grpc: Option<String>,
    class: Class,
}

impl TryFrom<Written> for ClassRule {
    type Error = RuleError;

    fn try_from(written: Written) -> Result<Self, RuleError> {
        let Written { method, path_prefix, path, grpc, class } = written;
        if let Some(method) = method.as_ref().filter(|method| !is_method(method)) {
            return Err(RuleError::Method(method.clone()));
        }
        let place = match (path_prefix, path, grpc) {
            (Some(prefix), None, None) => Place::Prefix(absolute("path_prefix", prefix)?),
            (None, Some(pattern), None) => Place::Pattern(absolute("path", pattern)?),
            (None, None, Some(grpc)) if method.is_some() => return Err(RuleError::GrpcMethod(grpc)),
            (None, None, Some(grpc)) => Place::Grpc(grpc_path(grpc)?),
            _ => return Err(RuleError::Place),
        };
        Ok(Self { method, place, class })
    }
}

fn absolute(field: &'static str, given: String) -> Result<String, RuleError> {
    let plain = plain(&given);
    if is_path(&plain) { Ok(plain.into_owned()) } else { Err(RuleError::Path { field, given }) }
}

/// Some request can have it. A rule that no request fits would do nothing, and nobody would hear of it.
fn is_path(given: &str) -> bool {
    let as_sent = given.parse::<PathAndQuery>();
    given.starts_with('/') && !climbs(given) && as_sent.is_ok_and(|sent| sent.path() == given)
}

fn is_method(given: &str) -> bool {
    Method::from_bytes(given.as_bytes()).is_ok() && !given.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// A gRPC method's path is `/package.Service/Method` (gRPC over HTTP/2, "Requests").
fn grpc_path(given: String) -> Result<String, RuleError> {
    let path = format!("/{}", plain(&given));
    match given.split('/').collect::<Vec<_>>()[..] {
        [service, method] if !service.is_empty() && !method.is_empty() && is_path(&path) => Ok(path),
        _ => Err(RuleError::Grpc(given)),
    }
}

impl From<ClassRule> for Written {
    fn from(rule: ClassRule) -> Self {
        let mut written = Self { method: rule.method, path_prefix: None, path: None, grpc: None, class: rule.class };
        match rule.place {
            Place::Prefix(prefix) => written.path_prefix = Some(prefix),
            Place::Pattern(pattern) => written.path = Some(pattern),
            Place::Grpc(path) => written.grpc = Some(path.trim_start_matches('/').to_owned()),
        }
        written
    }
}

impl ClassRule {
    /// What such a request is.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Whether it is about this request.
    pub(super) fn takes(&self, method: &str, path: &str) -> bool {
        let method_fits = self.method.as_deref().is_none_or(|wanted| wanted == method);
        method_fits
            && match &self.place {
                Place::Prefix(prefix) => {
                    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                }
                Place::Pattern(pattern) => segments_fit(pattern, path),
                Place::Grpc(pattern) => method == "POST" && segments_fit(pattern, path),
            }
    }
}

/// Whether a whole path fits a pattern. Takes steps in the product of their segments at most, however many `**` there are.
fn segments_fit(pattern: &str, path: &str) -> bool {
    let path: Vec<&str> = path.split('/').collect();
    // `fits[n]`: the pattern so far takes exactly the first n segments.
    let mut fits = vec![false; path.len() + 1];
    fits[0] = true;
    for piece in pattern.split('/') {
        if piece == "**" {
            let from = fits.iter().position(|fit| *fit).unwrap_or(fits.len());
            fits.iter_mut().skip(from).for_each(|fit| *fit = true);
        } else {
            for at in (0..path.len()).rev() {
                fits[at + 1] = fits[at] && segment_fits(piece, path[at]);
            }
            fits[0] = false;
        }
    }
    fits[path.len()]
}

fn segment_fits(pattern: &str, segment: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == segment };
    let Some(mut left) = segment.strip_prefix(first) else { return false };
    let mut pieces = rest.split('*').peekable();
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return left.ends_with(piece);
        }
        let Some(at) = left.find(piece) else { return false };
        left = &left[at + piece.len()..];
    }
    true
}
