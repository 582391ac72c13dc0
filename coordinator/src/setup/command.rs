//! A step as the `etcdctl` command that does the same.

use handover_proto::keys::EnvKeys;
use handover_proto::lease::Guard;
use handover_proto::roles::{Right, Span};
use handover_proto::stored::{Rest, STORED_VERSION};
use handover_store::client::AuthChange;

use super::Step;

/// The guard key's value: `at_ms` is the wall clock in Unix milliseconds, for people.
pub fn guard(at_ms: u64) -> Guard {
    Guard { v: STORED_VERSION, at_ms, rest: Rest::new() }
}

/// The command; `at_ms` goes into the guard key.
pub fn command(keys: &EnvKeys, step: &Step, at_ms: u64) -> String {
    match step {
        Step::Auth(AuthChange::AddRole(role)) => format!("etcdctl role add {role}"),
        Step::Auth(AuthChange::Grant { role, span, right }) => {
            let right = match right {
                Right::Read => "read",
                Right::Write => "write",
                Right::ReadWrite => "readwrite",
            };
            format!("etcdctl role grant-permission {role} {right} {}", words(span))
        }
        Step::Auth(AuthChange::Revoke { role, span }) => {
            format!("etcdctl role revoke-permission {role} {}", words(span))
        }
        Step::Auth(AuthChange::AddUser(user)) => format!("etcdctl user add {user} --no-password"),
        Step::Auth(AuthChange::Give { user, role }) => format!("etcdctl user grant-role {user} {role}"),
        Step::Auth(AuthChange::Take { user, role }) => format!("etcdctl user revoke-role {user} {role}"),
        Step::Auth(AuthChange::Enable) => "etcdctl auth enable".to_owned(),
        Step::WriteGuard => {
            format!("etcdctl put {} '{{\"v\":{STORED_VERSION},\"at_ms\":{at_ms}}}'", keys.guard())
        }
        Step::DeleteGuard => format!("etcdctl del {}", keys.guard()),
    }
}

fn words(span: &Span) -> String {
    let text = |bytes: &[u8]| quoted(&String::from_utf8_lossy(bytes));
    match &span.end[..] {
        [] => text(&span.key),
        [0] => format!("--from-key=true {}", text(&span.key)),
        _ if span.is_prefix() => format!("--prefix=true {}", text(&span.key)),
        end => format!("{} {}", text(&span.key), text(end)),
    }
}

/// For a shell. Our own keys need no quotes; other people's may.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.:=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
