//! The agent's and the gate's own units, as `systemctl show` tells them. Asked by that command, which is there wherever
//! systemd is, and which needs no right.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is asked for.
pub(super) const PROPERTIES: &str = "--property=Id,LoadState,ActiveState,UnitFileState,ProtectSystem,TimeoutStopUSec";

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
    /// How long it may take to stop before it is killed; none: for ever, or not told.
    pub stop_limit: Option<Duration>,
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
            stop_limit: values.get("TimeoutStopUSec").and_then(|text| span(text)),
        })
    };
    text.split("\n\n").filter_map(unit).collect()
}

/// A time as systemd shows it, such as `1min 30s`; none for `infinity`.
fn span(text: &str) -> Option<Duration> {
    let part = |part: &str| {
        let (number, unit) = part.split_at(part.find(|c: char| c.is_ascii_alphabetic())?);
        let seconds = match unit {
            "us" => 0.000_001,
            "ms" => 0.001,
            "s" => 1.0,
            "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return None,
        };
        Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
    };
    text.split_whitespace().map(part).try_fold(Duration::ZERO, |sum, part| sum.checked_add(part?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_paragraph_is_a_unit() {
        let text = "TimeoutStopUSec=1min 30s\nProtectSystem=full\nId=handover-agent@billing.service\nLoadState=loaded\nActiveState=active\n\
                    UnitFileState=enabled\n\nProtectSystem=no\nId=b.service\nLoadState=not-found\nActiveState=inactive\n\
                    UnitFileState=\n";
        let name = "handover-agent@billing.service".to_owned();
        let stop_limit = Some(Duration::from_secs(90));
        let agent = UnitState { name, loaded: true, active: true, enabled: true, confined: true, stop_limit };
        assert_eq!(parse(text), [agent, UnitState { name: "b.service".to_owned(), ..UnitState::default() }]);
        assert_eq!(parse(""), []);
    }

    #[test]
    fn times_are_read_as_systemd_shows_them() {
        let ms = |text| span(text).map(|span| span.as_millis());
        assert_eq!(
            ["40s", "1min 30s", "2h", "1.500s", "250ms"].map(ms),
            [40_000, 90_000, 7_200_000, 1_500, 250].map(Some)
        );
        assert_eq!(["infinity", "4 parsecs"].map(ms), [None, None]);
    }
}
