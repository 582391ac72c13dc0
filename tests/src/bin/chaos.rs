//! Faults against a whole site of real processes, and ten checkers over what was recorded. See `handover_tests::chaos`.

use std::process::ExitCode;

use clap::Parser;
use handover_tests::chaos::command::{self, Settings};

fn main() -> ExitCode {
    match command::run(&Settings::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
