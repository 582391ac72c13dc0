//! The kit's own hand on the service's database: installs a token beneath it.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// An install that takes longer waits for somebody's open transaction.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at the command.
const LOOK: Duration = Duration::from_millis(5);

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct Sql {
    /// Shell command that reads SQL on its standard input.
    pub command: String,
    /// The statement, with `{token}` in it.
    pub install: String,
}

impl Sql {
    /// Installs `token`: how long it took. Blocks up to 5 s.
    ///
    /// # Errors
    /// What the command said, or that it did not end.
    pub fn install(&self, token: u64) -> Result<Duration, String> {
        let statement = self.install.replace("{token}", &token.to_string());
        let begun = Instant::now();
        let mut child = Command::new("sh")
            .args(["-c", &self.command])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {:?}: {error}", self.command))?;
        if let Some(mut input) = child.stdin.take() {
            // One that has ended already says why on its own.
            drop(input.write_all(format!("{statement};\n").as_bytes()));
        }
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None if begun.elapsed() >= LIMIT => {
                    child.kill().and_then(|()| child.wait()).map_err(|error| error.to_string())?;
                    return Err(format!("{statement} did not end within {LIMIT:?}: an open transaction holds it up"));
                }
                None => std::thread::sleep(LOOK),
            }
        };
        let mut said = String::new();
        if let Some(mut errors) = child.stderr.take() {
            errors.read_to_string(&mut said).map_err(|error| error.to_string())?;
        }
        // psql ends well after an error, unless it is told otherwise.
        if status.success() && !said.contains("ERROR") { Ok(begun.elapsed()) } else { Err(said.trim().to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(command: &str) -> Sql {
        Sql { command: command.to_owned(), install: "SELECT install({token})".to_owned() }
    }

    #[test]
    fn the_statement_reaches_the_command_with_its_token() {
        sql("grep -q 'SELECT install(48);'").install(48).expect("as written");
        sql("grep -q 'install(49)'").install(48).expect_err("another token");
    }

    #[test]
    fn an_error_that_the_command_ends_well_after_is_still_one() {
        let error = sql("echo 'ERROR: FENCED' >&2").install(48).expect_err("an error");
        assert!(error.contains("FENCED"), "{error}");
    }
}
