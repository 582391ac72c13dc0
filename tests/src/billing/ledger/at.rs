//! Where a ledger is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::LedgerError;
use super::postgres::Check;

/// Where a ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerAt {
    /// A SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Postgres {
        /// `postgres://…`.
        url: String,
        /// How units check the fence; anything but the default is a planted mistake.
        check: Check,
    },
}

impl From<PathBuf> for LedgerAt {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl FromStr for LedgerAt {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        if !text.starts_with("postgres:") && !text.starts_with("postgresql:") {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let (url, word) = text.split_once('#').unwrap_or((text, "guard"));
        let check = Check::ALL.into_iter().find(|check| check.word() == word);
        let check = check.ok_or_else(|| LedgerError::Address(text.to_owned()))?;
        url.parse::<::postgres::Config>().map_err(|_| LedgerError::Address(text.to_owned()))?;
        Ok(Self::Postgres { url: url.to_owned(), check })
    }
}

impl fmt::Display for LedgerAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Postgres { url, check: Check::Guard } => f.write_str(url),
            Self::Postgres { url, check } => write!(f, "{url}#{}", check.word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_back_as_it_was_written() {
        for text in ["/tmp/ledger.db", "postgres://a@127.0.0.1:5432/b", "postgres://a@127.0.0.1:5432/b#key-share"] {
            assert_eq!(text.parse::<LedgerAt>().expect("an address").to_string(), text);
        }
    }

    #[test]
    fn an_address_that_is_none_says_how_to_write_one() {
        for text in ["postgres://a@b:99999999/c", "postgres://a@127.0.0.1/b#no-such-check"] {
            let error = text.parse::<LedgerAt>().expect_err("refused").to_string();
            assert!(error.contains(text) && error.contains("postgres://USER@HOST"), "{error}");
        }
    }
}
