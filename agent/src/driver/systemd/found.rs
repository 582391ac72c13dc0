//! A unit that runs although no state file knows of it: which instance is it?

use std::path::Path;

use handover_proto::ids::{InstanceId, SlotId, Version};

use super::files;
use super::unit::Seen;
use crate::driver::{DriverError, Found, Owner, marks};

/// By the variables that it was started with; one that was started before there was an agent, by the link to its version,
/// under an id made of its invocation's.
pub(super) fn of(slot: &SlotId, unit: &str, seen: &Seen, link: &Path, owner: &Owner) -> Result<Found, DriverError> {
    if let Some(marks) = marks::read(seen.main_pid).filter(|marks| marks.are_of(owner)) {
        return Ok(Found { instance: marks.instance, slot: marks.slot, version: marks.version, main: None });
    }
    let named = from_link(files::linked(link), &seen.invocation);
    let (version, instance) = named.ok_or_else(|| DriverError::UnknownUnit {
        unit: unit.to_owned(),
        pid: seen.main_pid,
        link: link.to_owned(),
    })?;
    Ok(Found { instance, slot: slot.clone(), version, main: None })
}

fn from_link(linked: Option<String>, invocation: &str) -> Option<(Version, InstanceId)> {
    Some((linked?.parse().ok()?, invocation.get(..16)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::from_link;

    #[test]
    fn a_unit_from_before_the_agent_is_named_by_its_link_and_its_invocation() {
        let (version, instance) = from_link(Some("1.4.2".into()), "00112233445566778899aabbccddeeff").expect("named");
        assert_eq!((version.as_str(), instance.as_str()), ("1.4.2", "0011223344556677"));
        assert_eq!(from_link(None, "00112233445566778899aabbccddeeff"), None);
        assert_eq!(from_link(Some("1.4.2".into()), ""), None);
    }
}
