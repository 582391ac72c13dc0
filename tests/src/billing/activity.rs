//! The activity file: when this process held the right to schedule, and when each unit ran. One JSON line each, appended
//! in one write, so that processes may share a file and a killed one loses at most the line that it was writing.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use handover_proto::ids::{InstanceId, Version};
use serde::{Deserialize, Serialize};

use crate::billing::contract::Token;
use crate::clock::BootNs;

/// Why an interval of activity ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Told to quiesce: a planned hand-over.
    Quiesced,
    /// Told that it does not hold.
    Stopped,
    /// Told, or found in the ledger, that the token is dead.
    Fenced,
    /// The agent does not know.
    Unknown,
    /// The soft deadline passed without a message.
    Silence,
    /// The process was told to end.
    Terminated,
}

/// How a unit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitEnd {
    /// Its tick is in the ledger.
    Charged,
    /// The fence refused it.
    Fenced,
    /// Its hard deadline came first.
    TooLate,
    /// The ledger failed.
    Failed,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// From here on units may start.
    Active,
    /// From here on none may, and none is in flight.
    Inactive {
        /// What ended it.
        why: Why,
    },
    /// A unit starts.
    UnitStart {
        /// The tick that it means to charge.
        tick: u64,
    },
    /// It ended.
    UnitEnd {
        /// The same tick.
        tick: u64,
        /// How.
        end: UnitEnd,
    },
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub at_boot_ns: BootNs,
    /// Who.
    pub instance: InstanceId,
    /// Of which version.
    pub version: Version,
    /// Under which token.
    pub token: Token,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// Appends lines.
#[derive(Debug)]
pub struct Activity {
    file: Option<File>,
    instance: InstanceId,
    version: Version,
}

impl Activity {
    /// Opens the file for appending; without a path nothing is recorded.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: Option<&Path>, instance: InstanceId, version: Version) -> std::io::Result<Self> {
        let file = path.map(|path| OpenOptions::new().create(true).append(true).open(path)).transpose()?;
        Ok(Self { file, instance, version })
    }

    /// Appends one line. It is in the kernel's hands when this returns: it survives the process, not the host.
    ///
    /// # Errors
    /// When the file cannot be written. Work that leaves no trace must not go on.
    pub fn note(&mut self, at: BootNs, token: Token, event: Event) -> std::io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let (instance, version) = (self.instance.clone(), self.version.clone());
        let mut line = serde_json::to_vec(&Line { at_boot_ns: at, instance, version, token, event })?;
        line.push(b'\n');
        file.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_flat_json_and_read_back_as_they_were() {
        let line = Line {
            at_boot_ns: BootNs(9),
            instance: "00000000000000aa".parse().expect("id"),
            version: "1.0.0".parse().expect("version"),
            token: Token::try_from(281_474_976_710_705).expect("token"),
            event: Event::UnitEnd { tick: 3, end: UnitEnd::Charged },
        };
        let text = serde_json::to_string(&line).expect("json");
        assert!(text.contains(r#""event":"unit-end","tick":3,"end":"charged""#), "{text}");
        assert_eq!(serde_json::from_str::<Line>(&text).expect("back"), line);
    }
}
