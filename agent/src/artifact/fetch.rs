//! Bringing one file of a version here.

use std::path::PathBuf;
use std::time::Duration;

use super::pattern::Wanted;
use super::settings::{By, Fetch};
use super::{exec, http};
use crate::duration::render;

/// A file that could not be brought.
#[derive(Debug, thiserror::Error)]
#[error("cannot fetch {file} ({how}): {why}")]
pub struct FetchError {
    /// Which.
    pub file: String,
    /// The command or the URL.
    pub how: String,
    /// What went wrong, and what to do.
    pub why: Why,
}

/// Why a file could not be brought.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// It took too long.
    #[error("it took longer than fetch.timeout = {limit}; give it more time, or look at the other side", limit = render(*.0))]
    Late(Duration),
    /// The command failed.
    #[error("{0}")]
    Command(String),
    /// The command ended well, and there is no file.
    #[error("the command ended with code 0 and wrote no file to {{to}}, which was {to}", to = .0.display())]
    NoFile(PathBuf),
    /// It is not there.
    #[error("the server answered 404: it is not there; is the version published whole?")]
    NotThere,
    /// The server cannot for now, as it says itself: 500 and above.
    #[error("the server answered {0}")]
    Unable(String),
    /// Another answer.
    #[error("the server answered {0}")]
    Status(String),
    /// No answer.
    #[error("{0}")]
    Http(String),
    /// More than was announced.
    #[error("it has more than {0} bytes, and was announced as smaller")]
    TooLarge(u64),
    /// The disk refuses.
    #[error("cannot write it: {0}")]
    Disk(#[from] std::io::Error),
}

impl Why {
    /// The file is not there; anything else may be a fault on the way.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NotThere)
    }

    /// A fault on the way, which may be gone the next time. What a command says is its own affair: it knows better what is
    /// worth another try.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Late(_) | Self::Unable(_) | Self::Http(_))
    }
}

impl Fetch {
    /// Brings one file, within its time.
    ///
    /// # Errors
    /// [`FetchError`]; what was written so far is left behind.
    pub async fn fetch(&self, wanted: &Wanted) -> Result<(), FetchError> {
        let (how, fetched) = match &self.by {
            By::Exec(command) => {
                let words: Vec<String> = command.iter().map(|word| word.as_argument(wanted)).collect();
                let fetched =
                    tokio::time::timeout(self.timeout, exec::fetch(&words, &wanted.to, wanted.most_bytes)).await;
                (words.join(" "), fetched)
            }
            By::Http { url, ca } => {
                let url = url.as_url(wanted);
                let fetched =
                    tokio::time::timeout(self.timeout, http::fetch(&url, ca, &wanted.to, wanted.most_bytes)).await;
                (url, fetched)
            }
        };
        let why = fetched.unwrap_or(Err(Why::Late(self.timeout)));
        why.map_err(|why| FetchError { file: wanted.file.to_string(), how, why })
    }
}
