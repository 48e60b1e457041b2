//! Asks the running agent. Owns the client's end of the socket; blocking, so that short commands need no event loop.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Envelope, Request, Response, VERSION};

/// Why the agent gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens, or this user may not connect.
    #[error("failed to reach the agent at {}; is it running, and may this user use its socket?", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("failed to read the agent's answer")]
    Broken(#[source] io::Error),
    /// The agent ended in the middle of its answer.
    #[error("failed to read the agent's answer: it ended too early")]
    Truncated,
    /// The agent speaks another language.
    #[error("failed to understand the agent's answer")]
    Malformed(#[source] serde_json::Error),
    /// The agent refused.
    #[error("{0}")]
    Refused(String),
}

/// The lines of an answer.
#[derive(Debug)]
pub struct Answer {
    reader: BufReader<UnixStream>,
    line: String,
}

/// Sends a request.
///
/// # Errors
/// When the agent cannot be reached.
pub fn ask(socket: &Path, request: Request) -> Result<Answer, Error> {
    let unreachable = |source| Error::Unreachable { socket: socket.to_owned(), source };
    let mut stream = UnixStream::connect(socket).map_err(unreachable)?;
    let mut line =
        serde_json::to_string(&Envelope { version: VERSION, request }).map_err(Error::Malformed)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(Error::Broken)?;
    Ok(Answer { reader: BufReader::new(stream), line: String::new() })
}

impl Answer {
    /// The next line; `None` when the answer is complete.
    ///
    /// # Errors
    /// When the connection breaks or the agent refuses.
    pub fn line(&mut self) -> Result<Option<Response>, Error> {
        self.line.clear();
        if self.reader.read_line(&mut self.line).map_err(Error::Broken)? == 0 {
            return Err(Error::Truncated);
        }
        match serde_json::from_str(&self.line).map_err(Error::Malformed)? {
            Response::End {} => Ok(None),
            Response::Error(failure) => Err(Error::Refused(failure.message)),
            response => Ok(Some(response)),
        }
    }

    /// True when another line is already there, so that output need not be flushed yet.
    pub fn has_more(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }
}
