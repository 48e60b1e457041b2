//! Clocks that say another time than this machine's, for one process: by libfaketime, which stands between a program and the C
//! library. Owns the file that says which time it is; the kernel's own clock stays as it is.
//!
//! Source of the variables: libfaketime's README, "Using the file to control the time".

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// Where the distribution has it, below a directory named after the processor.
const PLACES: &str = "/usr/lib";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
/// How long a process believes what it has read of the file.
pub const BELIEF: Duration = Duration::from_secs(1);

/// A clock; it goes as fast as the machine's.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// One that is this many seconds ahead, or behind when negative; `file` is made.
    ///
    /// # Errors
    /// When libfaketime is not installed.
    pub fn new(file: &Path, ahead: i64) -> Result<Self> {
        let directories = std::fs::read_dir(PLACES)?.flatten().map(|entry| entry.path().join(LIBRARY));
        let library = directories.into_iter().find(|path| path.exists());
        let library = library.context("libfaketime is not installed: run `cargo xtask setup`")?;
        let clock = Self { library, file: file.to_owned() };
        clock.set(ahead)?;
        Ok(clock)
    }

    /// Changes how many seconds it is ahead; processes notice within [`BELIEF`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&self, ahead: i64) -> Result<()> {
        let next = self.file.with_extension("next");
        std::fs::write(&next, format!("{ahead:+}\n"))?;
        std::fs::rename(&next, &self.file).with_context(|| format!("failed to set {}", self.file.display()))
    }

    /// What a process that has this clock finds in its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", text(&self.file)),
            ("FAKETIME_CACHE_DURATION", BELIEF.as_secs().to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
