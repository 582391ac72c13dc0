//! The lines of the record of what is ours: to whom a drain was said. Pure.
//!
//! Where anybody may ask, strangers leave lines, too, and none of them comes back for its undo. So a line has to make
//! room once nobody has asked for it for long; only then, since an HAProxy that was cut off from here for a while
//! needs the undo.

use std::net::IpAddr;

use crate::core::front::Target;

/// What these lines begin with.
pub(super) const NAME: &str = "agent-check";

/// The line of one asker about one target.
pub(super) fn line(target: &Target, peer: IpAddr) -> String {
    match target {
        Target::Host => format!("{NAME} {peer}"),
        Target::Slot(slot) => format!("{NAME} {peer} {slot}"),
    }
}

/// Who asked about what; none: it is not a line of ours.
pub(super) fn asker(line: &str) -> Option<(Target, IpAddr)> {
    let mut words = line.strip_prefix(NAME)?.strip_prefix(' ')?.split(' ');
    let peer = words.next()?.parse().ok()?;
    let target = match words.next() {
        Some(slot) => Target::Slot(slot.parse().ok()?),
        None => Target::Host,
    };
    words.next().is_none().then_some((target, peer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_asked_about_what() {
        for target in [Target::Host, Target::Slot("a".parse().expect("a slot"))] {
            for peer in ["10.0.0.1", "fd00::1"] {
                let peer = peer.parse().expect("an address");
                assert_eq!(asker(&line(&target, peer)), Some((target.clone(), peer)));
            }
        }
        for other in ["haproxy /run/admin.sock billing/app-01", "agent-check", "agent-check x", "agent-check ::1 a b"] {
            assert_eq!(asker(other), None, "{other:?}");
        }
    }
}
