//! What can go wrong between us and the store, sorted by what the caller must do next.

use std::error::Error as _;

use etcd_client::Error as EtcdError;
use tonic::{Code, ConnectError, Status};

use handover_proto::txn::LeaseId;
use handover_tls::TlsError;

/// A call to the store that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nobody answered, and nothing was changed by this call. Safe to try again.
    #[error(
        "no store member answered for {operation}, and nothing was changed: {reason}; check that the store runs at {endpoints}"
    )]
    Unreachable {
        /// What was asked.
        operation: String,
        /// Whom, all of them.
        endpoints: String,
        /// What the last one tried said.
        reason: String,
    },
    /// The request may have been carried out or not.
    #[error("{operation} at {endpoint} has an unknown outcome: {reason}; read the keys back before trying again")]
    Unknown {
        /// What was asked.
        operation: String,
        /// The member that it went to.
        endpoint: String,
        /// What broke.
        reason: String,
    },
    /// The etcd lease is expired or revoked; the whole request did nothing.
    #[error("{operation} did nothing, because its etcd lease{} is gone (expired or revoked); grant a new lease first", describe(.lease))]
    LeaseGone {
        /// What was asked.
        operation: String,
        /// The lease, as far as the request names a single one.
        lease: Option<LeaseId>,
    },
    /// The store understood and said no; nothing was changed. The same request will be refused again.
    #[error("the store at {endpoint} refused {operation} ({code:?}): {message}{}", role_hint(message))]
    Refused {
        /// What was asked.
        operation: String,
        /// Who refused.
        endpoint: String,
        /// The gRPC code.
        code: Code,
        /// The store's own words.
        message: String,
    },
    /// A configured endpoint cannot be one.
    #[error("store endpoint {endpoint:?} is not usable: {rule}; a valid one looks like \"http://10.0.0.1:2379\"")]
    BadEndpoint {
        /// As configured.
        endpoint: String,
        /// Which rule it breaks.
        rule: String,
    },
}

/// Why there can be no way to the store with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An endpoint that cannot be one.
    #[error(transparent)]
    Endpoint(#[from] StoreError),
    /// The files for TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// etcd's words for a user without a role, without a name, and one that there is not.
fn role_hint(message: &str) -> &'static str {
    let about_users = ["permission denied", "user name is empty", "user name not found"];
    if about_users.iter().any(|words| message.contains(words)) {
        "; the certificate's common name is the user, `handover store setup --check` says which roles it needs"
    } else {
        ""
    }
}

fn describe(lease: &Option<LeaseId>) -> String {
    lease.map(|lease| format!(" {lease:x}")).unwrap_or_default()
}

/// How one attempt at one member failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The member certainly did nothing: ask the next one.
    NotDone(String),
    /// It may have been done.
    Uncertain(String),
    /// A lease that the request names is gone; nothing was done.
    LeaseGone,
    /// The store said no; nothing was done.
    Refused(Code, String),
}

impl Failure {
    pub(super) fn of(error: EtcdError) -> Self {
        match error {
            EtcdError::GRpcStatus(status) => Self::of_status(&status),
            EtcdError::InvalidArgs(text) => Self::Refused(Code::InvalidArgument, text),
            other => Self::Uncertain(other.to_string()),
        }
    }

    pub(super) fn of_status(status: &Status) -> Self {
        if let Some(connect) = connect_error(status) {
            return Self::NotDone(connect);
        }
        let message = status.message().to_owned();
        if status.source().is_some() {
            return Self::Uncertain(format!("{message} ({:?})", status.code()));
        }
        match status.code() {
            Code::NotFound if message.contains("lease not found") => Self::LeaseGone,
            // etcd answers this before it proposes anything.
            Code::Unavailable if message == "etcdserver: no leader" => Self::NotDone(message),
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted
            | Code::Unimplemented => Self::Refused(status.code(), message),
            // Without the prefix it is our own side that found the *reply* too large: the request was carried out.
            Code::OutOfRange if message.starts_with("etcdserver:") => Self::Refused(status.code(), message),
            code => Self::Uncertain(format!("{message} ({code:?})")),
        }
    }

    /// Nothing is changed by reading, so that an open outcome is just no answer.
    pub(super) fn of_reading(self) -> Self {
        match self {
            Self::Uncertain(reason) => Self::NotDone(reason),
            other => other,
        }
    }

    /// The error of a call that is not tried elsewhere.
    pub(super) fn at(self, operation: &str, endpoint: &str, lease: Option<LeaseId>) -> StoreError {
        let (operation, endpoint) = (operation.to_owned(), endpoint.to_owned());
        match self {
            Self::NotDone(reason) => StoreError::Unreachable { operation, endpoints: endpoint, reason },
            Self::Uncertain(reason) => StoreError::Unknown { operation, endpoint, reason },
            Self::LeaseGone => StoreError::LeaseGone { operation, lease },
            Self::Refused(code, message) => StoreError::Refused { operation, endpoint, code, message },
        }
    }
}

/// The connector's own error means that no connection stood, so that nothing was sent.
fn connect_error(status: &Status) -> Option<String> {
    let mut next = status.source();
    while let Some(error) = next {
        if error.is::<ConnectError>() {
            let mut root = error;
            while let Some(cause) = root.source() {
                root = cause;
            }
            let (text, cause) = (error.to_string(), root.to_string());
            return Some(if text == cause { text } else { format!("{text}: {cause}") });
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_etcd_gives_before_it_proposes_is_not_done() {
        let failure = Failure::of_status(&Status::unavailable("etcdserver: no leader"));
        assert_eq!(failure, Failure::NotDone("etcdserver: no leader".to_owned()));
    }

    #[test]
    fn answers_that_etcd_gives_while_a_proposal_is_under_way_are_uncertain() {
        for message in ["etcdserver: request timed out", "etcdserver: leader changed", "etcdserver: server stopped"] {
            assert!(matches!(Failure::of_status(&Status::unavailable(message)), Failure::Uncertain(_)), "{message}");
        }
        let too_large = Status::out_of_range("Error, decoded message length too large");
        assert!(matches!(Failure::of_status(&too_large), Failure::Uncertain(_)), "a reply we could not read");
    }

    #[test]
    fn a_refusal_keeps_code_and_words() {
        let status = Status::invalid_argument("etcdserver: duplicate key given in txn request");
        let error = Failure::of_status(&status).at("commit a txn", "http://h:1", None);
        assert_eq!(
            error.to_string(),
            "the store at http://h:1 refused commit a txn (InvalidArgument): etcdserver: duplicate key given in txn request"
        );
    }

    #[test]
    fn a_gone_lease_has_an_error_of_its_own() {
        let failure = Failure::of_status(&Status::not_found("etcdserver: requested lease not found"));
        assert_eq!(failure, Failure::LeaseGone);
        assert!(failure.at("commit a txn", "h", Some(255)).to_string().contains("lease ff is gone"));
    }
}
