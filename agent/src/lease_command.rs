//! `handover-agent lease …`: the lease from the service's side, on the host itself.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use handover_agent::conformance::run::{Plan, play};
use handover_agent::conformance::sql::Sql;
use handover_agent::lease::record::LeaseRecord;
use handover_agent::wrap::ask::Agent;
use handover_agent::wrap::{child, run};
use handover_proto::ids::InstanceId;

/// What can be done with the lease on this host.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run a command only while this instance holds the lease.
    ///
    /// For programs that know nothing of Handover: name this as the instance's command in the agent's config, with
    /// `service = "pull"` under `[lease]`. CMD is started when the instance is told ACTIVE; its environment has the
    /// fencing token in HANDOVER_LEASE_TOKEN and the path of the record with the deadlines in HANDOVER_LEASE_FILE. It
    /// gets SIGTERM when the lease is to be handed over or its soft deadline passes, and whatever is left of it gets
    /// SIGKILL at the hard deadline. Its exit code is passed through.
    Exec(Exec),
    /// Print the record of an instance: may it work, under which token, until when.
    Show(Show),
    /// Play the agent to a service and say which of the obligations A1 to A8 it keeps.
    ///
    /// The service is to run fresh, on this host, with work to do and a database that is for tests: tokens are installed
    /// in it. It takes some 15 seconds. Exit code 0: no rule is broken; 1: one is, or the kit could not begin.
    Conformance(Conformance),
    /// Print the SQL guard for PostgreSQL (docs/postgresql.md).
    Guard,
    #[command(hide = true, name = "exec-child")]
    ExecChild(ExecChild),
}

#[derive(Args)]
struct Whom {
    /// The agent's socket; the agent names it to its instances.
    #[arg(long, env = "HANDOVER_LEASE_SOCKET")]
    socket: PathBuf,
    /// The instance; the agent names it to its instances.
    #[arg(long, env = "HANDOVER_INSTANCE")]
    instance: InstanceId,
}

#[derive(Args)]
pub(crate) struct Exec {
    #[command(flatten)]
    whom: Whom,
    /// After CMD was asked to stop, wait for the next token and run it again.
    #[arg(long)]
    restart: bool,
    /// The command.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Args)]
pub(crate) struct Show {
    #[command(flatten)]
    whom: Whom,
    /// The record as it is, in JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct Conformance {
    /// Where the service takes its calls, like <http://127.0.0.1:9001/handover/lease>.
    url: String,
    /// The instance that the service was started as; without it, as its process's environment says.
    #[arg(long)]
    instance: Option<InstanceId>,
    /// The service's main process; without it, whoever listens there.
    #[arg(long)]
    pid: Option<i32>,
    /// Longest wait for its first two units of work.
    #[arg(long, default_value = "15s", value_parser = handover_agent::duration::parse)]
    work: Duration,
    /// Shell command that takes SQL for the service's database on its standard input, like `psql -v ON_ERROR_STOP=1 URL`.
    #[arg(long, value_name = "COMMAND")]
    sql: Option<String>,
    /// The service's name in Handover's fence.
    #[arg(long, requires = "sql", value_name = "NAME")]
    fence: Option<String>,
    /// Instead of --fence: the statement that installs a token in a fence of your own, with {token} in it.
    #[arg(long, requires = "sql", conflicts_with = "fence", value_name = "SQL")]
    install_sql: Option<String>,
    /// The findings in JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(crate) struct ExecChild {
    #[arg(long)]
    parent: u32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Does it; the exit code is the command's.
pub(crate) async fn go(command: Command) -> Result<ExitCode> {
    match command {
        Command::Exec(Exec { whom, restart, command }) => {
            match run::run(run::Order { agent: whom.agent(), command, restart }).await {
                Ok(code) => Ok(ExitCode::from(code)),
                Err(run::WrapError::Child(error)) => Ok(cannot(&error)),
                Err(error) => Err(error.into()),
            }
        }
        Command::ExecChild(ExecChild { parent, command }) => Ok(cannot(&child::become_command(parent, &command))),
        Command::Show(Show { whom, json }) => {
            let (record, _) = whom.agent().record(None).await.context("no record")?;
            println!("{}", if json { serde_json::to_string(&record)? } else { plain(&record) });
            Ok(ExitCode::SUCCESS)
        }
        Command::Conformance(kit) => conformance(kit).await,
        Command::Guard => {
            print!("{}", include_str!("../sql/postgresql.sql"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn conformance(kit: Conformance) -> Result<ExitCode> {
    let install = kit.install_sql.or_else(|| {
        let fence = kit.fence?.replace('\'', "''");
        Some(format!("SELECT handover.fence_install('{fence}', {{token}}, 'conformance')"))
    });
    let sql = match (kit.sql, install) {
        (None, _) => None,
        (Some(command), Some(install)) => Some(Sql { command, install }),
        (Some(_), None) => {
            bail!("--sql needs --fence NAME (the service's name in Handover's fence) or --install-sql SQL")
        }
    };
    let plan = Plan { url: kit.url, instance: kit.instance, pid: kit.pid, work: kit.work, sql };
    let findings = play(&plan).await?;
    if kit.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        println!("{findings}");
    }
    Ok(if findings.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Whom {
    fn agent(self) -> Agent {
        Agent { socket: self.socket, instance: self.instance }
    }
}

fn cannot(error: &child::ChildError) -> ExitCode {
    eprintln!("handover-agent: {}", handover_agent::report::chain(error));
    ExitCode::from(error.code())
}

fn plain(record: &LeaseRecord) -> String {
    let span = |ms: u64| format!("{}.{} s", ms / 1000, ms % 1000 / 100);
    let state = format!("{:?}", record.state).to_uppercase();
    let mut lines = vec![
        format!("Instance  {}", record.instance),
        format!("State     {state}: {}", record.reason),
        format!("Token     {}", record.token.as_deref().unwrap_or("none")),
        format!("Record    {}", record.seq),
    ];
    if record.hard_deadline_boot_ns > 0 {
        let (soft, hard) = (span(record.remaining_soft_ms), span(record.remaining_hard_ms));
        lines.push(format!("Deadline  soft in {soft}, hard in {hard}, unless renewed"));
    }
    lines.extend(record.op.as_ref().map(|op| format!("Operation {op}")));
    lines.join("\n")
}
