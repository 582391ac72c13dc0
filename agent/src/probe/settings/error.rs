//! What a `[[probe]]` table may have wrong. The texts name the values and the fix.

use crate::probe::field::FieldPathError;

/// A `[[probe]]` that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ProbeSettingsError {
    /// A name that would break a line of a report.
    #[error("probe name {name:?}: use letters, digits, '.', '-' and '_', at least one and at most 64")]
    Name {
        /// What was given.
        name: String,
    },
    /// None or several ways to look.
    #[error("probe {name}: give exactly one of http, tcp and exec, not {given}")]
    Kind {
        /// Which probe.
        name: String,
        /// How many were given.
        given: usize,
    },
    /// Readings would overlap.
    #[error("probe {name}: timeout {timeout} is longer than interval {interval}; shorten one or lengthen the other")]
    TimeoutOverInterval {
        /// Which probe.
        name: String,
        /// The one value.
        timeout: String,
        /// The other.
        interval: String,
    },
    /// The quicker rhythm of the start is slower.
    #[error(
        "probe {name}: start_interval {start_interval} is longer than interval {interval}; leave it out or shorten it"
    )]
    StartOverInterval {
        /// Which probe.
        name: String,
        /// The one value.
        start_interval: String,
        /// The other.
        interval: String,
    },
    /// A number that must not be zero.
    #[error("probe {name}: {field} is 0; give at least {least}")]
    Zero {
        /// Which probe.
        name: String,
        /// Which field.
        field: &'static str,
        /// What would do.
        least: &'static str,
    },
    /// Part of the request is malformed.
    #[error("probe {name}: {what} {given:?} {rule}")]
    Request {
        /// Which probe.
        name: String,
        /// Which part.
        what: &'static str,
        /// What was given.
        given: String,
        /// What would do.
        rule: &'static str,
    },
    /// The field is none.
    #[error("probe {name}: {source}")]
    Field {
        /// Which probe.
        name: String,
        /// Why.
        source: FieldPathError,
    },
    /// There is a value and nothing to compare it with.
    #[error(
        "probe {name}: `equals` is given without `field`; name the field of the JSON body that it is compared with"
    )]
    EqualsWithoutField {
        /// Which probe.
        name: String,
    },
    /// There is no program.
    #[error("probe {name}: exec's `command` is empty; name a program in it")]
    NoCommand {
        /// Which probe.
        name: String,
    },
    /// Two conditions could not be told apart.
    #[error("two probes are named {name}; rename one")]
    Twice {
        /// The name.
        name: String,
    },
    /// An instance would be ready the moment its process exists.
    #[error("no probe has affects = \"ready\"; without one an instance would get traffic before it can serve")]
    NothingForReady,
}
