//! Texts of the config with `{placeholders}`, parsed once and filled in at each start.

use std::fmt;
use std::path::PathBuf;

use handover_proto::ids::{InstanceId, SlotId, Version};
use serde::Deserialize;

/// A text with placeholders. Two braces, `{{` or `}}`, stand for one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Name),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Port,
    Version,
    Slot,
    Builds,
    Instance,
    StateDir,
}

const NAMES: [(&str, Name); 6] = [
    ("port", Name::Port),
    ("version", Name::Version),
    ("slot", Name::Slot),
    ("builds", Name::Builds),
    ("instance", Name::Instance),
    ("state_dir", Name::StateDir),
];

/// What the placeholders stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    /// The slot's port.
    pub port: u16,
    /// The version that runs.
    pub version: Version,
    /// The slot.
    pub slot: SlotId,
    /// The directory that holds one directory per version.
    pub builds: PathBuf,
    /// The instance.
    pub instance: InstanceId,
    /// The agent's state directory.
    pub state_dir: PathBuf,
}

/// A text that is no template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Nothing is known under that name.
    #[error(
        "unknown placeholder {{{name}}} in {text:?}; known are {known}; write {{{{ for a brace that is meant as one",
        known = known()
    )]
    Unknown {
        /// The name.
        name: String,
        /// The whole text.
        text: String,
    },
    /// An opening brace without a closing one, or the other way round.
    #[error("a brace stands alone in {text:?}; write {{{{ or }}}} for a brace that is meant as one")]
    Unpaired {
        /// The whole text.
        text: String,
    },
}

fn known() -> String {
    NAMES.map(|(name, _)| format!("{{{name}}}")).join(", ")
}

impl Template {
    /// The text with every placeholder filled in.
    pub fn render(&self, values: &Values) -> String {
        self.0.iter().map(|part| part.render(values)).collect()
    }
}

impl Part {
    fn render(&self, values: &Values) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Value(Name::Port) => values.port.to_string(),
            Self::Value(Name::Version) => values.version.to_string(),
            Self::Value(Name::Slot) => values.slot.to_string(),
            Self::Value(Name::Builds) => values.builds.to_string_lossy().into_owned(),
            Self::Value(Name::Instance) => values.instance.to_string(),
            Self::Value(Name::StateDir) => values.state_dir.to_string_lossy().into_owned(),
        }
    }
}

impl TryFrom<String> for Template {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        let unpaired = || TemplateError::Unpaired { text: text.clone() };
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['{', '}']) {
            parts.push(Part::Text(rest[..at].to_owned()));
            let (brace, after) = rest[at..].split_at(1);
            rest = if let Some(after) = after.strip_prefix(brace) {
                parts.push(Part::Text(brace.to_owned()));
                after
            } else if brace == "{" {
                let (name, after) = after.split_once('}').ok_or_else(unpaired)?;
                parts.push(Part::Value(named(name, &text)?));
                after
            } else {
                return Err(unpaired());
            };
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }
}

fn named(name: &str, text: &str) -> Result<Name, TemplateError> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    found.map(|(_, name)| *name).ok_or_else(|| TemplateError::Unknown { name: name.to_owned(), text: text.to_owned() })
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Part::Value(value) => {
                    let name = NAMES.iter().find(|(_, name)| name == value).map_or("", |(text, _)| *text);
                    write!(f, "{{{name}}}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Result<Template, TemplateError> {
        Template::try_from(text.to_owned())
    }

    fn values() -> Values {
        Values {
            port: 8081,
            version: "1.5.0".parse().expect("version"),
            slot: "b".parse().expect("slot"),
            builds: "/srv/builds".into(),
            instance: "00000000000000aa".parse().expect("id"),
            state_dir: "/var/lib/h".into(),
        }
    }

    #[test]
    fn every_placeholder_is_filled_in() {
        let text = "{builds}/{version}/run -p {port} {slot}{instance} {state_dir}";
        let parsed = template(text).expect("a template");
        assert_eq!(parsed.render(&values()), "/srv/builds/1.5.0/run -p 8081 b00000000000000aa /var/lib/h");
        assert_eq!(parsed.to_string(), text);
    }

    #[test]
    fn doubled_braces_stand_for_themselves() {
        let parsed = template(r#"{{"port": {port}}}"#).expect("a template");
        assert_eq!(parsed.render(&values()), r#"{"port": 8081}"#);
        assert_eq!(parsed.to_string(), r#"{{"port": {port}}}"#);
    }

    #[test]
    fn an_unknown_placeholder_is_named_with_those_that_exist() {
        let error = template("--listen={prot}").expect_err("a typo").to_string();
        assert!(error.contains("{prot}") && error.contains("--listen={prot}") && error.contains("{port}"), "{error}");
    }

    #[test]
    fn a_lone_brace_is_refused() {
        for bad in ["a{", "a}", "{port", "{port}}"] {
            assert!(matches!(template(bad), Err(TemplateError::Unpaired { .. })), "{bad}");
        }
    }
}
