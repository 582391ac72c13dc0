//! Runs a command so that no process of its is ever left behind: `guard -- COMMAND ARGS`. See `handover_tests::guard`.

use std::process::{Command, ExitCode};

use handover_tests::guard::{Entered, enter, supervise};

fn run() -> anyhow::Result<ExitCode> {
    if let Entered::Ended(code) = enter()? {
        return Ok(code);
    }
    let mut words = std::env::args_os().skip(1).skip_while(|word| word == "--");
    let program = words.next().ok_or_else(|| anyhow::anyhow!("usage: guard -- COMMAND ARGS"))?;
    let mut command = Command::new(program);
    command.args(words);
    Ok(supervise(command)?)
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    run().unwrap_or_else(|error| {
        tracing::error!("guard: {error:#}");
        ExitCode::FAILURE
    })
}
