//! `handover artifact`: what can be typed.

use std::path::PathBuf;

use clap::Subcommand;
use handover_artifact::Range;
use handover_proto::ids::Version;

pub(super) const EXAMPLES: &str = "\
An artifact is the directory of one version, with a manifest that lists the digest of every file. Agents take it from
wherever `handover-agent stage` finds it, and start it only if the manifest, its signature and every file are right.

Examples:
  handover artifact key release.key           once: the key; put release.key.pub into the agents' [artifact] keys
  handover --service billing artifact pack dist --version 1.5.0 --commit 3f2a1bc --compatible-with '>=1.4, <2'
  handover artifact sign dist --secret-key release.key
  handover artifact verify dist --key release.key.pub

Exit code of verify: 0 it is right, 5 it is not.";

/// Write, sign or check the manifest of a version's directory.
#[derive(Debug, Clone, Subcommand)]
pub enum Artifact {
    /// Write the manifest: what it is, and the digest of every file
    Pack(Pack),
    /// Sign the manifest, after every file was compared with it
    Sign(Sign),
    /// Check signature, manifest and every file
    Verify(Verify),
    /// Make a pair of keys, as minisign would; the secret one is not encrypted
    Key {
        /// Where to put the secret key; the public one goes beside it, with .pub
        file: PathBuf,
    },
}

/// What the manifest is to say. The service is given with --service.
#[derive(Debug, Clone, clap::Args)]
pub struct Pack {
    /// The version's directory
    pub dir: PathBuf,
    /// The version
    #[arg(long)]
    pub version: Version,
    /// The commit it was built from
    #[arg(long, default_value = "", value_name = "ID")]
    pub commit: String,
    /// When it was built, such as 2026-11-22T00:00:00Z; left out: SOURCE_DATE_EPOCH, or now
    #[arg(long, value_name = "TIME")]
    pub built: Option<jiff::Timestamp>,
    /// Versions that may run beside it, such as '>=1.4, <2'; may be given several times
    #[arg(long, value_name = "RANGE")]
    pub compatible_with: Vec<Range>,
    /// The database schema that it needs
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub schema_version: String,
    /// A file with release notes
    #[arg(long, value_name = "FILE")]
    pub notes: Option<PathBuf>,
}

/// With what to sign.
#[derive(Debug, Clone, clap::Args)]
pub struct Sign {
    /// The version's directory, packed
    pub dir: PathBuf,
    /// The secret key's file, minisign's or one made by `handover artifact key`
    #[arg(long, env = "HANDOVER_SECRET_KEY", value_name = "FILE")]
    pub secret_key: PathBuf,
    /// A file with the key's password on its first line; /dev/stdin to type it
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// Whose signature is to be believed.
#[derive(Debug, Clone, clap::Args)]
pub struct Verify {
    /// The version's directory
    pub dir: PathBuf,
    /// A public key, or its file; may be given several times; none: the signature is not looked at
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// The version that it has to be
    #[arg(long)]
    pub version: Option<Version>,
}
