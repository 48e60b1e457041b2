//! The flow log: every record as a line of JSON, appended. Owns the file and the count of lines that could not
//! be written; never stops the agent.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use enforcer_core::record::Record;

/// Where records are logged.
pub struct FlowLog {
    path: PathBuf,
    output: BufWriter<Box<dyn Write>>,
    failed: u64,
}

impl std::fmt::Debug for FlowLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowLog")
            .field("path", &self.path)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl FlowLog {
    /// Opens the log; `-` is standard output. A new file is for the owner and the group only.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(path: &Path) -> io::Result<Self> {
        let output: Box<dyn Write> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            Box::new(OpenOptions::new().create(true).append(true).mode(0o640).open(path)?)
        };
        Ok(Self { path: path.to_owned(), output: BufWriter::new(output), failed: 0 })
    }

    /// Appends a record.
    pub fn append(&mut self, record: &Record) {
        let written = serde_json::to_writer(&mut self.output, record).map_err(io::Error::from);
        let result = written.and_then(|()| self.output.write_all(b"\n"));
        self.note(result);
    }

    /// Hands over what was appended.
    pub fn flush(&mut self) {
        let result = self.output.flush();
        self.note(result);
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records or flushes that failed.
    pub fn failed(&self) -> u64 {
        self.failed
    }

    fn note(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            if self.failed == 0 {
                tracing::error!(path = %self.path.display(), %error, "failed to write the flow log; records are lost");
            }
            self.failed += 1;
        }
    }
}
