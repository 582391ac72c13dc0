//! `handover-agent stage`: brings versions to this host ahead of their window.

use anyhow::Result;
use handover_agent::artifact::stage::{Staged, stage};
use handover_agent::config::Config;
use handover_proto::ids::Version;

pub(crate) const EXAMPLES: &str = "\
Nothing is started or stopped. A version that is here already is verified. Where the versions come from, whose signatures
are believed and how many are kept is said by [artifact] in the config.

Examples:
  handover-agent stage --config /etc/handover/billing.toml 1.5.0";

pub(crate) async fn go(config: &Config, versions: &[Version]) -> Result<()> {
    for version in versions {
        println!("{}", sentence(version, &stage(config, version).await?));
    }
    Ok(())
}

fn sentence(version: &Version, staged: &Staged) -> String {
    let stands = if staged.already { "was here already" } else { "is staged" };
    let what = match (&staged.verified.manifest, &staged.verified.signed_by) {
        (None, _) => "it has no manifest, and nothing of it was verified".to_owned(),
        (Some(manifest), signer) => {
            let signed = signer.as_ref().map_or("not signed".to_owned(), |key| format!("signed with key {key}"));
            format!("{} files, {} bytes, {signed}", manifest.files.len(), manifest.size_bytes())
        }
    };
    let names: Vec<&str> = staged.pruned.iter().map(Version::as_str).collect();
    let pruned = if names.is_empty() { String::new() } else { format!("; pruned: {}", names.join(", ")) };
    let not = staged.not_pruned.as_ref().map(|why| format!("; older versions were not pruned ({why})"));
    format!("{version} {stands}: {what}{pruned}{}", not.unwrap_or_default())
}
