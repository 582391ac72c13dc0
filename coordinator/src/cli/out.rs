//! Standard output: text or JSON, still or redrawn in place.

use std::io::{self, IsTerminal, Write};

use handover_proto::wire::StatusReply;
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use super::changes::Changes;
use super::outcome::CliError;
use super::render;

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON object a line.
    Json,
    /// Lines that are only ever added.
    Plain,
    /// A picture that is redrawn in place, on a terminal.
    Live {
        /// Whether states have colours.
        color: bool,
    },
}

/// Standard output in one form.
#[derive(Debug)]
pub(super) struct Out {
    form: Form,
    /// Lines of the picture on the screen that the next one replaces.
    drawn: usize,
    changes: Changes,
}

impl Form {
    /// What fits: JSON if asked for, a picture on a terminal, plain lines otherwise.
    pub(super) fn choose(json: bool, terminal: bool, no_color: bool) -> Self {
        match (json, terminal) {
            (true, _) => Self::Json,
            (false, true) => Self::Live { color: !no_color },
            (false, false) => Self::Plain,
        }
    }
}

impl Out {
    /// Standard output as it is now; `NO_COLOR` (any value but an empty one) turns colours off.
    pub(super) fn new(json: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { form: Form::choose(json, io::stdout().is_terminal(), no_color), drawn: 0, changes: Changes::default() }
    }

    /// One answer: `value` as JSON, or its text.
    ///
    /// # Errors
    /// If standard output is gone.
    pub(super) fn answer(&self, value: &impl Serialize, text: &[String]) -> Result<(), CliError> {
        match self.form {
            Form::Json => write_lines(&[serde_json::to_string(value)?]),
            Form::Plain | Form::Live { .. } => write_lines(text),
        }
    }

    /// Lines for people.
    ///
    /// # Errors
    /// If standard output is gone.
    pub(super) fn lines(&self, lines: &[String]) -> Result<(), CliError> {
        write_lines(lines)
    }

    /// A list: each value as one JSON line, or all of it as text.
    ///
    /// # Errors
    /// If standard output is gone.
    pub(super) fn answers<T: Serialize>(&self, values: &[T], text: &[String]) -> Result<(), CliError> {
        match self.form {
            Form::Json => values.iter().try_for_each(|value| self.answer(value, &[])),
            Form::Plain | Form::Live { .. } => write_lines(text),
        }
    }

    /// The next picture of something that is watched.
    ///
    /// # Errors
    /// If standard output is gone.
    pub(super) fn show(&mut self, reply: &StatusReply) -> Result<(), CliError> {
        match self.form {
            Form::Json => self.answer(reply, &[]),
            Form::Plain => write_lines(&self.changes.lines(reply)),
            Form::Live { color } => {
                let (rows, columns) = window();
                let lines = fit(render::status(reply), rows, columns);
                let frame = frame(&lines, self.drawn, color);
                self.drawn = lines.len();
                let mut stdout = io::stdout().lock();
                stdout.write_all(frame.as_bytes())?;
                Ok(stdout.flush()?)
            }
        }
    }
}

fn write_lines(lines: &[String]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{line}")?;
    }
    Ok(stdout.flush()?)
}

/// Rows and columns; a terminal that does not know its size (it says 0) counts as the usual one.
fn window() -> (usize, usize) {
    let size = tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or((24, 80), |size| (usize::from(size.ws_row), usize::from(size.ws_col)))
}

/// What a terminal of this size can show: a wrapped or scrolled line could not be redrawn.
fn fit(lines: Vec<String>, rows: usize, columns: usize) -> Vec<String> {
    let room = rows.saturating_sub(2).max(1);
    let hidden = lines.len().saturating_sub(room);
    let mut fitted: Vec<String> =
        lines.into_iter().take(room).map(|line| line.chars().take(columns).collect()).collect();
    if hidden > 0 {
        fitted.push(format!("... {hidden} more").chars().take(columns).collect());
    }
    fitted
}

/// The bytes that replace a picture of `drawn` lines by `lines`.
fn frame(lines: &[String], drawn: usize, color: bool) -> String {
    let back = if drawn == 0 { String::new() } else { format!("\x1b[{drawn}A") };
    let body: String = lines.iter().map(|line| format!("{}\n", paint(line, color))).collect();
    format!("{back}\r\x1b[J{body}")
}

/// The states that need an eye get a colour; all the rest stays as it is.
fn paint(line: &str, color: bool) -> String {
    const COLORS: [(&str, u8); 6] =
        [("DRAINING", 33), ("TERMINATED", 90), ("crashed", 31), ("failed", 31), ("paused", 33), ("rolling-back", 33)];
    if !color {
        return line.to_owned();
    }
    if line.starts_with("AGENT ") {
        return format!("\x1b[1m{line}\x1b[0m");
    }
    COLORS.iter().fold(line.to_owned(), |line, (word, code)| line.replace(word, &format!("\x1b[{code}m{word}\x1b[0m")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_gets_a_picture_and_json_always_wins() {
        assert_eq!(Form::choose(true, true, false), Form::Json);
        assert_eq!(Form::choose(false, false, false), Form::Plain);
        assert_eq!(Form::choose(false, true, false), Form::Live { color: true });
        assert_eq!(Form::choose(false, true, true), Form::Live { color: false });
    }

    #[test]
    fn a_picture_replaces_the_one_before() {
        let lines = ["a".to_owned(), "b".to_owned()];
        assert_eq!(frame(&lines, 0, false), "\r\x1b[Ja\nb\n");
        assert_eq!(frame(&lines, 2, false), "\x1b[2A\r\x1b[Ja\nb\n");
    }

    #[test]
    fn a_small_terminal_gets_what_fits_and_is_told_about_the_rest() {
        let lines = (0..10).map(|n| format!("line {n}")).collect();
        assert_eq!(fit(lines, 5, 4), ["line", "line", "line", "... "]);
    }

    #[test]
    fn colours_are_left_out_when_asked() {
        assert_eq!(paint("x DRAINING", false), "x DRAINING");
        assert_eq!(paint("x DRAINING", true), "x \x1b[33mDRAINING\x1b[0m");
    }
}
