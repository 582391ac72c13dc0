//! `handover stage`.

use clap::Args;
use handover_proto::ids::{AgentId, Version};

/// How it is used.
pub(super) const EXAMPLES: &str = "\
Each host's agent fetches the version from where [artifact] in its config says, after it has believed the signature and
seen that the disk has room, verifies every file, and puts the version into `builds`. What is there already is verified.
What serves is not touched. The command prints a line for each host as it changes, and ends when every host has ended; a
host that is away begins when it is back, and `handover why` says so. Interrupting the command does not interrupt the
staging. Asked again, hosts that have the version only verify it.

Exit code 0: in place on every host; 3: taken back; 4: a host refuses, and the line says why; 5: refused, such as during a
rollout; 6: --timeout passed, it goes on.

Examples:
  handover stage 1.5.0                              on all hosts of the service
  handover stage 1.5.0 --host app-01 --host app-02  on these
  handover --service billing stage 1.5.0 --detach   and look with `handover status`
  handover --timeout 30m stage 1.5.0
  handover stage --cancel                           hosts stop, and keep what they have";

/// A version that is put in place ahead of its window.
#[derive(Debug, Clone, Args)]
pub struct Stage {
    /// Which version
    #[arg(required_unless_present = "cancel", conflicts_with = "cancel")]
    pub version: Option<Version>,
    /// On which host (its agent's name; may be given several times); left out: on all of the service
    #[arg(long = "host", value_name = "AGENT", conflicts_with = "cancel")]
    pub hosts: Vec<AgentId>,
    /// Why, for the record
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub because: String,
    /// Return as soon as it is recorded
    #[arg(long, conflicts_with = "cancel")]
    pub detach: bool,
    /// Take back what was asked for last
    #[arg(long)]
    pub cancel: bool,
}
