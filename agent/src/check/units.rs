//! The agent's and the gate's own units, as `systemctl show` tells them. Asked by that command, which is there wherever
//! systemd is, and which needs no right.

use std::collections::BTreeMap;

/// What is asked for.
pub(super) const PROPERTIES: &str = "--property=Id,LoadState,ActiveState,UnitFileState,ProtectSystem";

/// A unit as systemd has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnitState {
    /// Its name.
    pub name: String,
    /// It is installed and sound.
    pub loaded: bool,
    /// It runs.
    pub active: bool,
    /// It is started at each boot.
    pub enabled: bool,
    /// Whatever it starts lives in a sandbox.
    pub confined: bool,
}

/// One unit per paragraph.
pub(super) fn parse(text: &str) -> Vec<UnitState> {
    let unit = |paragraph: &str| {
        let values: BTreeMap<_, _> = paragraph.lines().filter_map(|line| line.split_once('=')).collect();
        let is = |name: &str, wanted: &[&str]| values.get(name).is_some_and(|value| wanted.contains(value));
        Some(UnitState {
            name: (*values.get("Id")?).to_owned(),
            loaded: is("LoadState", &["loaded"]),
            active: is("ActiveState", &["active", "reloading"]),
            enabled: is("UnitFileState", &["enabled", "enabled-runtime", "generated"]),
            confined: is("ProtectSystem", &["yes", "full", "strict"]),
        })
    };
    text.split("\n\n").filter_map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_paragraph_is_a_unit() {
        let text = "ProtectSystem=full\nId=handover-agent@billing.service\nLoadState=loaded\nActiveState=active\n\
                    UnitFileState=enabled\n\nProtectSystem=no\nId=b.service\nLoadState=not-found\nActiveState=inactive\n\
                    UnitFileState=\n";
        let name = "handover-agent@billing.service".to_owned();
        let agent = UnitState { name, loaded: true, active: true, enabled: true, confined: true };
        assert_eq!(parse(text), [agent, UnitState { name: "b.service".to_owned(), ..UnitState::default() }]);
        assert_eq!(parse(""), []);
    }
}
