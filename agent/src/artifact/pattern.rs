//! Texts of `[artifact.fetch]` with `{placeholders}`.

use std::path::PathBuf;

use handover_artifact::EntryPath;
use handover_proto::ids::{Service, Version};
use serde::Deserialize;

/// A text with placeholders; `{{` and `}}` stand for one brace.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Name),
}

/// What can be filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// The service.
    Service,
    /// The version.
    Version,
    /// The file's path within the artifact.
    File,
    /// Where the file is to be put.
    To,
}

const NAMES: [(&str, Name); 4] =
    [("service", Name::Service), ("version", Name::Version), ("file", Name::File), ("to", Name::To)];

/// One file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of which service.
    pub service: Service,
    /// Of which version.
    pub version: Version,
    /// Which.
    pub file: EntryPath,
    /// Where to put it.
    pub to: PathBuf,
    /// No more than this is taken.
    pub most_bytes: u64,
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("in {text:?}: {wrong}; known are {{service}}, {{version}}, {{file}} and {{to}}, and {{{{ stands for a brace")]
pub struct PatternError {
    text: String,
    wrong: String,
}

impl Pattern {
    /// Whether it has this placeholder.
    pub fn has(&self, name: Name) -> bool {
        self.0.contains(&Part::Value(name))
    }

    /// As an argument of a command.
    pub fn as_argument(&self, wanted: &Wanted) -> String {
        self.fill(wanted, str::to_owned)
    }

    /// As a URL: whatever is filled in is written so that it can only be a part of its path.
    pub fn as_url(&self, wanted: &Wanted) -> String {
        self.fill(wanted, percent)
    }

    fn fill(&self, wanted: &Wanted, write: impl Fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Value(Name::Service) => write(wanted.service.as_str()),
            Part::Value(Name::Version) => write(wanted.version.as_str()),
            Part::Value(Name::File) => write(wanted.file.as_str()),
            Part::Value(Name::To) => write(&wanted.to.to_string_lossy()),
        };
        self.0.iter().map(part).collect()
    }
}

/// RFC 3986: what may stand in a path as it is.
fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        let wrong = |wrong: String| PatternError { text: text.clone(), wrong };
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            parts.push(Part::Text(rest[..at].to_owned()));
            let (brace, after) = rest[at..].split_at(1);
            rest = if let Some(after) = after.strip_prefix(brace) {
                parts.push(Part::Text(brace.to_owned()));
                after
            } else if let Some((name, after)) = after.split_once('}').filter(|_| brace == "{") {
                let known = NAMES.iter().find(|(known, _)| *known == name);
                let (_, value) = known.ok_or_else(|| wrong(format!("unknown placeholder {{{name}}}")))?;
                parts.push(Part::Value(*value));
                after
            } else {
                return Err(wrong("a brace stands alone".to_owned()));
            };
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            service: "billing".parse().expect("a service"),
            version: "1.5.0+b1".parse().expect("a version"),
            file: "site/[id] ?.js".parse().expect("a path"),
            to: "/builds/.staging/x".into(),
            most_bytes: 1,
        }
    }

    fn pattern(text: &str) -> Result<Pattern, PatternError> {
        text.to_owned().try_into()
    }

    #[test]
    fn a_url_takes_no_more_than_a_path_from_what_is_filled_in() {
        let filled = pattern("http://h/{service}/{version}/{file}").expect("a pattern").as_url(&wanted());
        assert_eq!(filled, "http://h/billing/1.5.0%2Bb1/site/%5Bid%5D%20%3F.js");
    }

    #[test]
    fn an_argument_is_filled_in_as_it_is() {
        let filled = pattern("{{{to}}}={file}").expect("a pattern").as_argument(&wanted());
        assert_eq!(filled, "{/builds/.staging/x}=site/[id] ?.js");
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (text, expected) in [("{fiel}", "{fiel}"), ("{file", "alone"), ("file}", "alone")] {
            let error = pattern(text).expect_err(text).to_string();
            assert!(error.contains(expected) && error.contains("{version}"), "{error}");
        }
    }
}
