//! What an operator can order of the lease and of hosts.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use handover_proto::ids::AgentId;

use super::duration;

const SHOW_EXAMPLES: &str = "\
Examples:
  handover lease show
  handover --json lease show | jq .token";

const HANDOFF_EXAMPLES: &str = "\
The holder's service finishes its unit of work and stops, then the heir begins: nothing runs twice. If the service
does not stop in time it goes on, and nothing has changed.

Exit code 0: the heir works; 3: not done, everything is as before; 4: a human is needed; 5: refused, with the reason;
6: --timeout passed, it goes on. Interrupting the command does not take the order back, `lease cancel` does.

Examples:
  handover lease handoff                            to the best one that is ready
  handover lease handoff --to app-02 --because 'kernel update of app-01'
  handover lease handoff --to app-02 --at 22:00     the next 22:00 of this terminal's time zone
  handover lease handoff --at 2026-11-21T22:00:00Z --late 30m";

const CANCEL_EXAMPLES: &str = "\
Takes back what waits for its time, or what the holder has not done yet; he then goes on. What is done is done: hand
the lease over again.

Examples:
  handover lease cancel                             the last one that is open
  handover lease cancel 12 --because 'not tonight'";

const FREEZE_EXAMPLES: &str = "\
The holder keeps the lease; but nobody takes it over if he is lost, and nothing hands it over, until `unfreeze`.

Examples:
  handover lease freeze --because 'etcd maintenance'
  handover lease unfreeze";

const RELEASE_EXAMPLES: &str = "\
The holder's service stops and the lease is given up. With --freeze nobody takes it up again until `lease unfreeze`;
without, the best candidate does at once.

--force is for a holder that is lost or does not answer: two people move the lease past the protocol, written straight
to the store. Without --asserting it is refused while the store still believes in the holder. What is asserted is
recorded; if it is not true, two schedulers may run.

Examples:
  handover lease release --freeze --because 'the batch must not run tonight'
  handover lease release --force --by ann --second bob --because 'rack 4 burns' --asserting host-powered-off
  handover lease release --force --to app-02 --by ann --second bob --because 'app-01 hangs' --asserting fence-enforced";

const ERA_EXAMPLES: &str = "\
After etcd was restored from a backup, or made anew, agents refuse the lease: its revisions have gone back, and tokens
made from them would be lower than those that the database has seen. Two people who know that no old holder works any
more raise the era, and tokens grow again.

Examples:
  handover lease era
  handover lease era --raise --by ann --second bob --because 'restored from the backup of 03:00'";

const HISTORY_EXAMPLES: &str = "\
DARK is the time from the stop of one holder's service to the work of the next one's. Turns that no coordinator saw are
shown as a gap.

Examples:
  handover lease history --last 10
  handover --json lease history | jq 'select(.dark_ms > 1000)'";

/// How `drain` is used.
pub(super) const DRAIN_EXAMPLES: &str = "\
The scheduler lease moves away first. Then the host's /ready answers 503 while its gate still serves what comes; when
nothing comes any more it gets no traffic, and what is in flight is waited for. It stays out, through restarts of
anything, until `handover undrain`; no rollout starts meanwhile.

Exit code 0: drained; 3: not done, the host is as before; 4: a human is needed; 5: refused, such as by the floor.

Examples:
  handover drain app-03 --because 'new memory'
  handover drain app-03 --notice 20s                balancers that ask /ready every few seconds
  handover drain app-03 --min-serving 1             fewer than the last rollout's floor may go on serving
  handover undrain app-03";

/// The scheduler lease.
#[derive(Debug, Subcommand)]
pub enum Lease {
    /// Show who holds it, since when, and who could
    #[command(after_help = SHOW_EXAMPLES)]
    Show,
    /// Hand it over, now or at a time
    #[command(after_help = HANDOFF_EXAMPLES)]
    Handoff(Handoff),
    /// Take an order back that is not carried out yet
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel {
        /// The order's number; left out: the last one that is open
        number: Option<u64>,
        /// Why, for the record
        #[arg(long, default_value = "", value_name = "TEXT")]
        because: String,
    },
    /// Let nobody take it over by himself
    #[command(after_help = FREEZE_EXAMPLES)]
    Freeze {
        /// Why, for the record
        #[arg(long, default_value = "", value_name = "TEXT")]
        because: String,
    },
    /// Let it be taken over again
    #[command(after_help = FREEZE_EXAMPLES)]
    Unfreeze {
        /// Why, for the record
        #[arg(long, default_value = "", value_name = "TEXT")]
        because: String,
    },
    /// Give it up without naming anybody
    #[command(after_help = RELEASE_EXAMPLES)]
    Release(Release),
    /// Show the era, or raise it after the store was restored
    #[command(after_help = ERA_EXAMPLES)]
    Era(EraArgs),
    /// List the turns, newest first
    #[command(after_help = HISTORY_EXAMPLES)]
    History {
        /// How many
        #[arg(long, value_name = "N")]
        last: Option<u32>,
    },
}

/// A hand-over.
#[derive(Debug, Clone, Args)]
pub struct Handoff {
    /// The agent that is to hold; left out: the best one that is ready
    #[arg(long, value_name = "AGENT")]
    pub to: Option<AgentId>,
    /// When: RFC 3339, or a time of day such as 22:00 (the next one, in this terminal's time zone)
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// How much later than --at it may still be done
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    pub late: Duration,
    /// Why, for the record
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub because: String,
    /// Return as soon as it is recorded
    #[arg(long)]
    pub detach: bool,
}

/// A release.
#[derive(Debug, Clone, Args)]
pub struct Release {
    /// Let nobody take it up again until `lease unfreeze`
    #[arg(long, conflicts_with = "force")]
    pub freeze: bool,
    /// Why, for the record
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub because: String,
    /// Return as soon as it is recorded
    #[arg(long, conflicts_with = "force")]
    pub detach: bool,
    /// Past the protocol: two people take the lease from its holder
    #[arg(long, requires_all = ["by", "second"])]
    pub force: bool,
    /// With --force: the agent that gets it; left out: nobody
    #[arg(long, requires = "force", value_name = "AGENT")]
    pub to: Option<AgentId>,
    /// With --force: what the two answer for
    #[arg(long, requires = "force", value_name = "WHAT")]
    pub asserting: Option<Assert>,
    /// With --force: the first person
    #[arg(long, requires = "force", value_name = "NAME")]
    pub by: Option<String>,
    /// With --force: the second person
    #[arg(long, requires = "force", value_name = "NAME")]
    pub second: Option<String>,
}

/// What two people answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Assert {
    /// The holder's host has no power
    HostPoweredOff,
    /// The service checks the token in its database, inside its transactions
    FenceEnforced,
}

/// The era.
#[derive(Debug, Clone, Args)]
pub struct EraArgs {
    /// Raise it by one
    #[arg(long, requires_all = ["by", "second", "because"])]
    pub raise: bool,
    /// The first person
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// The second person
    #[arg(long, value_name = "NAME")]
    pub second: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub because: Option<String>,
}

/// Taking a host out.
#[derive(Debug, Clone, Args)]
pub struct Drain {
    /// The host's agent
    pub agent: AgentId,
    /// Why, for the record
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub because: String,
    /// How long balancers get to notice that /ready answers 503
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub notice: Duration,
    /// Hosts that must go on serving; left out: as in the last rollout
    #[arg(long, value_name = "N")]
    pub min_serving: Option<u32>,
    /// Return as soon as it is recorded
    #[arg(long)]
    pub detach: bool,
}

/// Giving a host back.
#[derive(Debug, Clone, Args)]
pub struct Undrain {
    /// The host's agent
    pub agent: AgentId,
    /// Why, for the record
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub because: String,
    /// Return as soon as it is recorded
    #[arg(long)]
    pub detach: bool,
}
