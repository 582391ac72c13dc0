//! Logs: to standard error, as text or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Starts logging as `HANDOVER_LOG` (targets and levels, such as `info,handover=debug`) and `HANDOVER_LOG_FORMAT`
/// (`json`, else text) say; `default` is the filter without the former.
///
/// # Errors
/// If `HANDOVER_LOG` is not a filter. A second start in one process is ignored.
pub fn start(default: &str) -> Result<(), ParseError> {
    let filter: Targets = std::env::var("HANDOVER_LOG").unwrap_or_else(|_| default.to_owned()).parse()?;
    let json = std::env::var("HANDOVER_LOG_FORMAT").is_ok_and(|form| form == "json");
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = fmt::layer().with_writer(std::io::stderr).with_ansi(ansi);
    let layer = if json { text.json().flatten_event(true).boxed() } else { text.boxed() };
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    if started.is_err() {
        tracing::debug!("logging had been started before");
    }
    Ok(())
}
