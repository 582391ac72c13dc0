//! etcd's users and roles: what stands, and one change after the other.

use etcd_client::{Permission, PermissionType, RoleRevokePermissionOptions, UserAddOptions};
use handover_proto::roles::{Access, Grants, Right, Span};
use tonic::Code;

use super::Store;
use super::error::{Failure, StoreError};
use super::member::Link;
use super::store::Repeat;

/// Nobody's name: asking etcd to authenticate it tells whether authentication is on, also before 3.5, which has a call
/// for that.
const NOBODY: &str = "handover.nobody";

/// One change of users and roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthChange {
    /// A role without rights.
    AddRole(String),
    /// A role gets this right over this span, in place of any other over the same span.
    Grant {
        /// The role.
        role: String,
        /// The span.
        span: Span,
        /// The right.
        right: Right,
    },
    /// A role loses its right over exactly this span.
    Revoke {
        /// The role.
        role: String,
        /// The span.
        span: Span,
    },
    /// A user without a password, known by the common name of a certificate.
    AddUser(String),
    /// A user gets a role.
    Give {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// A user loses a role.
    Take {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// From now on every caller has to be a user.
    Enable,
}

impl Store {
    /// Whether the store asks who calls.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn auth_enabled(&self) -> Result<bool, StoreError> {
        let call = |link: Link| async move {
            match link.client.auth_client().authenticate(NOBODY.into(), String::new()).await.map_err(Failure::of) {
                Ok(_) => Ok(true),
                Err(Failure::Refused(_, text)) if text.contains("authentication is not enabled") => Ok(false),
                Err(Failure::Refused(Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated, _)) => {
                    Ok(true)
                }
                Err(other) => Err(other),
            }
        };
        self.ask("asking whether authentication is on", Repeat::Read, call).await
    }

    /// Every role and every user.
    ///
    /// # Errors
    /// [`StoreError::Refused`] for anybody but root once authentication is on.
    pub async fn access(&self) -> Result<Access, StoreError> {
        let call = |link: Link| async move {
            let mut auth = link.client.auth_client();
            let mut access = Access::default();
            for role in auth.role_list().await.map_err(Failure::of)?.roles() {
                let found = auth.role_get(role.as_str()).await.map_err(Failure::of)?;
                let grants = found.permissions().iter().map(grant).collect::<Grants>();
                access.roles.insert(role.clone(), grants);
            }
            for user in auth.user_list().await.map_err(Failure::of)?.users() {
                let found = auth.user_get(user.as_str()).await.map_err(Failure::of)?;
                access.users.insert(user.clone(), found.roles().iter().cloned().collect());
            }
            Ok(access)
        };
        self.ask("reading users and roles", Repeat::Read, call).await
    }

    /// Makes one change.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]: it may have been made. [`StoreError::Refused`], for anybody but root among others.
    pub async fn change_access(&self, change: &AuthChange) -> Result<(), StoreError> {
        let call = |link: Link| carry_out(link, change.clone());
        self.ask(&format!("changing users and roles ({change:?})"), Repeat::Never(None), call).await
    }
}

async fn carry_out(link: Link, change: AuthChange) -> Result<(), Failure> {
    let mut auth = link.client.auth_client();
    let done = match change {
        AuthChange::AddRole(role) => auth.role_add(role).await.map(drop),
        AuthChange::Grant { role, span, right } => {
            let kind = match right {
                Right::Read => PermissionType::Read,
                Right::Write => PermissionType::Write,
                Right::ReadWrite => PermissionType::Readwrite,
            };
            let permission = Permission::new(kind, span.key);
            let permission = if span.end.is_empty() { permission } else { permission.with_range_end(span.end) };
            auth.role_grant_permission(role, permission).await.map(drop)
        }
        AuthChange::Revoke { role, span } => {
            let options = RoleRevokePermissionOptions::new();
            let options = if span.end.is_empty() { options } else { options.with_range_end(span.end) };
            auth.role_revoke_permission(role, span.key, Some(options)).await.map(drop)
        }
        AuthChange::AddUser(user) => {
            auth.user_add(user, String::new(), Some(UserAddOptions::new().with_no_pwd())).await.map(drop)
        }
        AuthChange::Give { user, role } => auth.user_grant_role(user, role).await.map(drop),
        AuthChange::Take { user, role } => auth.user_revoke_role(user, role).await.map(drop),
        AuthChange::Enable => auth.auth_enable().await.map(drop),
    };
    done.map_err(Failure::of)
}

fn grant(permission: &Permission) -> (Span, Right) {
    let right = match permission.get_type() {
        kind if kind == PermissionType::Read as i32 => Right::Read,
        kind if kind == PermissionType::Write as i32 => Right::Write,
        _ => Right::ReadWrite,
    };
    (Span { key: permission.key().to_vec(), end: permission.range_end().to_vec() }, right)
}
