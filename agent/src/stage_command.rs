//! `handover-agent stage`: brings versions to this host ahead of their window.

use anyhow::Result;
use handover_agent::artifact::stage::{Staged, stage};
use handover_agent::config::Config;
use handover_proto::ids::Version;

pub(crate) const EXAMPLES: &str = "\
Nothing is started or stopped. A version that is here already is verified. Where the versions come from, whose signatures
are believed and how many are kept is said by [artifact] in the config.

To stage on all hosts of a service at once, ask the coordinator: handover stage 1.5.0

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
    format!("{version} {stands}: {}", staged.in_words())
}
