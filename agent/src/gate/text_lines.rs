//! Lines of bounded length over a stream, for both ends of the control socket.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

use super::control::LINE_LIMIT_BYTES;

/// A reader of lines that may be dropped and asked again in the middle of a line.
pub(super) struct LineReader<R> {
    reader: R,
    line: Vec<u8>,
}

impl<R: AsyncBufRead + Unpin> LineReader<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// The next line as a message; none at the end of the stream. The outer error is the stream's, the inner one says that
    /// the line is no such message.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<Result<T, serde_json::Error>>> {
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(bytes.len(), |end| end + 1);
            self.line.extend_from_slice(&bytes[..used]);
            self.reader.consume(used);
            if self.line.len() > LINE_LIMIT_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 1 MiB"));
            }
            if end.is_some() {
                let parsed = serde_json::from_slice(&self.line);
                self.line.clear();
                return Ok(Some(parsed));
            }
        }
    }
}

/// Writes one message and its line end.
pub(super) async fn write<W: AsyncWrite + Unpin, T: Serialize>(writer: &mut W, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await
}
