//! Whether a unit of the operator's can be a slot of ours. Pure; asked when the agent starts, so that what does not fit is
//! found before a rollout meets it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::duration::render;

/// A unit's settings, as far as they matter to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnitFile {
    pub(super) name: String,
    /// `LoadState`.
    pub(super) load: String,
    /// What systemd complained of when it read it.
    pub(super) load_error: String,
    /// `Restart=`
    pub(super) restart: String,
    /// `Type=`
    pub(super) kind: String,
    /// `RemainAfterExit=`
    pub(super) remains: bool,
    /// `TimeoutStopSec=`; none: no limit.
    pub(super) stop_limit: Option<Duration>,
    /// `EnvironmentFile=`
    pub(super) environment_files: Vec<PathBuf>,
}

/// What we need of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need<'a> {
    /// Where the slot's variables are.
    pub(super) variables: &'a Path,
    /// The longest that the config lets an instance finish its work, and the field that says so.
    pub(super) finish: (&'a str, Duration),
}

/// A unit that cannot be a slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is none of that name.
    #[error("unit {unit} is not to be had ({load}{why}); install it, then run systemctl daemon-reload")]
    NotLoaded {
        /// Which.
        unit: String,
        /// What systemd says instead of `loaded`.
        load: String,
        /// Its reason, after a colon.
        why: String,
    },
    /// Its processes would not know whose they are.
    #[error(
        "unit {unit} does not read the variables of its slot; write EnvironmentFile={path} into its [Service] section, \
         without a - before the path, then run systemctl daemon-reload", path = path.display()
    )]
    NoVariables {
        /// Which.
        unit: String,
        /// The file that it must read.
        path: PathBuf,
    },
    /// systemd would start processes beside the agent.
    #[error(
        "unit {unit} has Restart={restart}: systemd would start a process of which the scheduler lease knows nothing; \
         write Restart=no, the agent starts it again by itself"
    )]
    Restarts {
        /// Which.
        unit: String,
        /// Its setting.
        restart: String,
    },
    /// It would be up after its end.
    #[error(
        "unit {unit} has RemainAfterExit=yes: systemd would take it for up after its process has ended, and its end would \
         never be seen; take that line out"
    )]
    Remains {
        /// Which.
        unit: String,
    },
    /// It would be up only after its end.
    #[error(
        "unit {unit} has Type={kind}: systemd waits until its process has ended, and never takes it for up before; write \
         Type=notify, or Type=exec"
    )]
    NoService {
        /// Which.
        unit: String,
        /// Its setting.
        kind: String,
    },
    /// systemd would kill it while it may still finish its work.
    #[error(
        "unit {unit} has TimeoutStopSec={stop}, but the agent's config lets an instance take {needed} to finish ({field}): \
         systemd would kill it early; write TimeoutStopSec={needed} or more, or lower {field}",
        stop = render(*stop), needed = render(*needed)
    )]
    StopsEarly {
        /// Which.
        unit: String,
        /// The unit's limit.
        stop: Duration,
        /// What the config allows.
        needed: Duration,
        /// Where the config says so.
        field: String,
    },
}

/// Whether it fits.
pub(super) fn fits(unit: &UnitFile, need: &Need<'_>) -> Result<(), UnitError> {
    let name = || unit.name.clone();
    if unit.load != "loaded" {
        let why = if unit.load_error.is_empty() { String::new() } else { format!(": {}", unit.load_error) };
        return Err(UnitError::NotLoaded { unit: name(), load: unit.load.clone(), why });
    }
    if unit.restart != "no" {
        return Err(UnitError::Restarts { unit: name(), restart: unit.restart.clone() });
    }
    if unit.remains {
        return Err(UnitError::Remains { unit: name() });
    }
    if unit.kind == "oneshot" {
        return Err(UnitError::NoService { unit: name(), kind: unit.kind.clone() });
    }
    if !unit.environment_files.iter().any(|file| file == need.variables) {
        return Err(UnitError::NoVariables { unit: name(), path: need.variables.to_owned() });
    }
    let (field, needed) = need.finish;
    match unit.stop_limit {
        Some(stop) if stop < needed => {
            Err(UnitError::StopsEarly { unit: name(), stop, needed, field: field.to_owned() })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> UnitFile {
        UnitFile {
            name: "billing@a.service".into(),
            load: "loaded".into(),
            load_error: String::new(),
            restart: "no".into(),
            kind: "notify".into(),
            remains: false,
            stop_limit: Some(Duration::from_secs(40)),
            environment_files: vec!["/etc/default/billing".into(), "/run/h/slots/a.env".into()],
        }
    }

    fn said(unit: &UnitFile) -> String {
        let need =
            Need { variables: Path::new("/run/h/slots/a.env"), finish: ("driver.grace", Duration::from_secs(30)) };
        fits(unit, &need).expect_err("does not fit").to_string()
    }

    #[test]
    fn a_unit_that_fits_is_taken_also_one_without_a_stop_limit() {
        let need =
            Need { variables: Path::new("/run/h/slots/a.env"), finish: ("driver.grace", Duration::from_secs(40)) };
        assert_eq!(fits(&good(), &need), Ok(()));
        assert_eq!(fits(&UnitFile { stop_limit: None, ..good() }, &need), Ok(()));
    }

    #[test]
    fn a_unit_that_would_be_killed_while_it_finishes_is_refused_with_both_numbers() {
        let error = said(&UnitFile { stop_limit: Some(Duration::from_secs(10)), ..good() });
        assert!(error.contains("TimeoutStopSec=10s") && error.contains("take 30s"), "{error}");
        assert!(error.contains("driver.grace"), "{error}");
    }

    #[test]
    fn what_else_does_not_fit_is_said_with_the_line_to_write() {
        let error = said(&UnitFile { restart: "on-failure".into(), ..good() });
        assert!(error.contains("Restart=on-failure") && error.contains("write Restart=no"), "{error}");
        let error = said(&UnitFile { environment_files: vec![], ..good() });
        assert!(error.contains("EnvironmentFile=/run/h/slots/a.env"), "{error}");
        let error = said(&UnitFile { remains: true, ..good() });
        assert!(error.contains("RemainAfterExit=yes") && error.contains("take that line out"), "{error}");
        let error = said(&UnitFile { kind: "oneshot".into(), ..good() });
        assert!(error.contains("Type=oneshot") && error.contains("write Type=notify"), "{error}");
        let error = said(&UnitFile { load: "not-found".into(), load_error: "no such file".into(), ..good() });
        assert!(error.contains("billing@a.service") && error.contains("not-found: no such file"), "{error}");
    }
}
