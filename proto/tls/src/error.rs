//! Key files that cannot be used.

use std::path::PathBuf;
use std::time::Duration;

/// What is wrong with the files; each names the field, the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One or two of the three are given.
    #[error("`{missing}` is missing: TLS needs a CA, a certificate and its key; give all three, or none")]
    Incomplete {
        /// The field that is not there.
        missing: String,
    },
    /// A file cannot be read.
    #[error("`{field}` = {}: cannot be read; check the path, and that this process may read it", file.display())]
    Unreadable {
        /// The field.
        field: String,
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file has not what it should have.
    #[error("`{field}` = {}: {problem}; {fix}", file.display())]
    Content {
        /// The field.
        field: String,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
        /// What would do.
        fix: &'static str,
    },
    /// Certificate and key are not a pair.
    #[error(
        "`{cert_field}` = {} and `{key_field}` = {} do not belong together; give the key for which the certificate was made",
        cert.display(), key.display()
    )]
    NotAPair {
        /// The certificate's field.
        cert_field: String,
        /// The certificate's file.
        cert: PathBuf,
        /// The key's field.
        key_field: String,
        /// The key's file.
        key: PathBuf,
    },
    /// The certificate is past its time.
    #[error("`{field}` = {}: the certificate expired {} ago; have it renewed", file.display(), rough(*ago))]
    Expired {
        /// The field.
        field: String,
        /// The file.
        file: PathBuf,
        /// Since when.
        ago: Duration,
    },
    /// The certificate's time has not come.
    #[error("`{field}` = {}: the certificate is valid only in {}; check this host's clock", file.display(), rough(*within))]
    NotYetValid {
        /// The field.
        field: String,
        /// The file.
        file: PathBuf,
        /// From when on.
        within: Duration,
    },
}

/// A span of time for people, in one unit.
fn rough(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_one_unit() {
        let told = [(5, "5 s"), (600, "10 min"), (7_200, "2 h"), (259_200, "3 days")];
        for (seconds, text) in told {
            assert_eq!(rough(Duration::from_secs(seconds)), text);
        }
    }
}
