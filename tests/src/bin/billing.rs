//! The demo service as a program; see `handover_tests::billing`.

use std::process::ExitCode;

use clap::Parser;
use handover_tests::billing::settings::Settings;

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match handover_tests::billing::service::run(Settings::parse()) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("billing ends: {error:#}");
            ExitCode::FAILURE
        }
    }
}
