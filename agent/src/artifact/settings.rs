//! The `[artifact]` table of the agent's config.

use std::path::PathBuf;
use std::time::Duration;

use handover_artifact::{Key, Trust};
use serde::Deserialize;

use super::pattern::{Name, Pattern};

/// What is demanded of a version before it is started, and where versions come from.
///
/// ```toml
/// [artifact]
/// keys = ["RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3", "/etc/handover/release.pub"]
/// require_signature = true
/// keep = 3
/// keep_free_bytes = 67108864
/// fetch = { url = "https://builds.example/{service}/{version}/{file}", timeout = "10m" }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ArtifactSettings {
    /// Whose signatures are believed, and what is demanded.
    pub trust: Trust,
    /// Versions that are kept beside those in use; older ones are pruned when another one is staged.
    pub keep: usize,
    /// Left free on the disk for whatever else writes there: a host with a full disk serves nobody.
    pub keep_free_bytes: u64,
    /// Where versions come from; none: they are put in place by somebody else.
    pub fetch: Option<Fetch>,
}

/// How one file of a version is brought here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawFetch")]
pub struct Fetch {
    /// By what.
    pub by: By,
    /// How long one file may take.
    pub timeout: Duration,
}

/// By what a file is brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A command that writes `{file}` to `{to}`.
    Exec(Vec<Pattern>),
    /// GET.
    Http {
        /// From where.
        url: Pattern,
        /// Certificates of the authorities that are believed with `https`, in PEM form.
        ca: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    keys: Vec<String>,
    require_signature: Option<bool>,
    #[serde(default = "default_keep")]
    keep: usize,
    #[serde(default = "default_keep_free_bytes")]
    keep_free_bytes: u64,
    fetch: Option<Fetch>,
}

/// As without the table: nothing is demanded, fetched or pruned.
impl Default for ArtifactSettings {
    fn default() -> Self {
        let keep_free_bytes = default_keep_free_bytes();
        Self { trust: Trust::default(), keep: usize::MAX, keep_free_bytes, fetch: None }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFetch {
    #[serde(default)]
    exec: Vec<Pattern>,
    url: Option<Pattern>,
    ca: Option<PathBuf>,
    #[serde(with = "crate::duration", default = "default_timeout")]
    timeout: Duration,
}

/// The one that serves, the one to go back to, and what is staged ahead are kept anyhow; these are for the week after.
fn default_keep() -> usize {
    3
}

/// Enough for logs and state files while somebody makes room.
fn default_keep_free_bytes() -> u64 {
    64 * 1024 * 1024
}

/// A gigabyte at 2 MB/s.
fn default_timeout() -> Duration {
    Duration::from_secs(600)
}

/// Debian's, Arch's and Alpine's; elsewhere `ca` says.
const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// An `[artifact]` table that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactSettingsError {
    /// A signature by nobody.
    #[error("`require_signature` = true without `keys`: name the public keys whose signature is to be believed")]
    NoKeys,
    /// A key that is none.
    #[error("`keys`: {0}")]
    Key(#[from] handover_artifact::KeyError),
    /// Not one way, or two.
    #[error(
        "`fetch` needs either exec = [\"program\", …, \"{{file}}\", \"{{to}}\"] or url = \"https://…/{{version}}/{{file}}\""
    )]
    OneWay,
    /// It could not bring more than one file.
    #[error("`fetch.{field}` does not name {placeholder}: it is used once for each file of a version")]
    Lacks {
        /// Which field.
        field: &'static str,
        /// What is missing in it.
        placeholder: &'static str,
    },
    /// Only `https` has authorities.
    #[error("`fetch.ca` is for a `url` alone; leave it away with `exec`")]
    CaWithExec,
}

impl TryFrom<Raw> for ArtifactSettings {
    type Error = ArtifactSettingsError;

    fn try_from(raw: Raw) -> Result<Self, ArtifactSettingsError> {
        let keys = raw.keys.iter().map(|key| Key::read(key)).collect::<Result<Vec<_>, _>>()?;
        let require_signature = raw.require_signature.unwrap_or(!keys.is_empty());
        if require_signature && keys.is_empty() {
            return Err(ArtifactSettingsError::NoKeys);
        }
        let trust = Trust { keys, require_signature, require_manifest: require_signature };
        Ok(Self { trust, keep: raw.keep, keep_free_bytes: raw.keep_free_bytes, fetch: raw.fetch })
    }
}

impl TryFrom<RawFetch> for Fetch {
    type Error = ArtifactSettingsError;

    fn try_from(raw: RawFetch) -> Result<Self, ArtifactSettingsError> {
        let lacks = |field, placeholder| ArtifactSettingsError::Lacks { field, placeholder };
        let by = match (raw.url, raw.exec) {
            (Some(url), exec) if exec.is_empty() => {
                if !url.has(Name::File) {
                    return Err(lacks("url", "{file}"));
                }
                By::Http { url, ca: raw.ca.unwrap_or_else(|| SYSTEM_CA.into()) }
            }
            (None, exec) if !exec.is_empty() => {
                let has = |name| exec.iter().any(|word: &Pattern| word.has(name));
                for (name, placeholder) in [(Name::File, "{file}"), (Name::To, "{to}")] {
                    if !has(name) {
                        return Err(lacks("exec", placeholder));
                    }
                }
                if raw.ca.is_some() {
                    return Err(ArtifactSettingsError::CaWithExec);
                }
                By::Exec(exec)
            }
            _ => return Err(ArtifactSettingsError::OneWay),
        };
        Ok(Self { by, timeout: raw.timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ArtifactSettings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn with_keys_a_signature_is_required_unless_the_config_says_otherwise() {
        let settings = parse(&format!("keys = [\"{KEY}\"]")).expect("settings");
        assert!(settings.trust.require_signature && settings.trust.require_manifest);
        assert_eq!(settings.trust.keys[0].id(), "E7620F1842B4E81F");
        let settings = parse(&format!("keys = [\"{KEY}\"]\nrequire_signature = false")).expect("settings");
        assert!(!settings.trust.require_signature);
        assert!(!parse("").expect("settings").trust.require_signature);
    }

    #[test]
    fn a_key_may_stand_in_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("release.pub");
        std::fs::write(&file, format!("untrusted comment: minisign public key\n{KEY}\n")).expect("written");
        let settings = parse(&format!("keys = [\"{}\"]", file.display())).expect("settings");
        assert_eq!(settings.trust.keys[0].id(), "E7620F1842B4E81F");
    }

    #[test]
    fn each_mistake_is_refused_with_its_name() {
        for (text, expected) in [
            ("require_signature = true", "`require_signature` = true without `keys`"),
            ("keys = [\"abc\"]", "\"abc\" is no public key of minisign"),
            ("keys = [\"/no/such.pub\"]", "/no/such.pub"),
            ("key = []", "key"),
            ("fetch = {}", "`fetch` needs either"),
            ("fetch = { url = \"http://h/{file}\", exec = [\"{file}{to}\"] }", "`fetch` needs either"),
            ("fetch = { url = \"http://h/{version}\" }", "`fetch.url` does not name {file}"),
            ("fetch = { exec = [\"cp\", \"{file}\"] }", "`fetch.exec` does not name {to}"),
            ("fetch = { exec = [\"cp\", \"{to}\"] }", "`fetch.exec` does not name {file}"),
            ("fetch = { exec = [\"cp\", \"{file}\", \"{to}\"], ca = \"/ca\" }", "`fetch.ca`"),
            ("fetch = { url = \"http://h/{fiel}\" }", "{fiel}"),
            ("fetch = { url = \"http://h/{file}\", timeout = 5 }", "write \"5s\""),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
