//! Waiting for what tells nobody: looking again and again. Owns the pauses and the end; what is looked for is the caller's.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::de::DeserializeOwned;

use crate::Namespace;
use crate::journal::PATIENCE;

/// Pause between two looks that cost little.
pub const PAUSE: Duration = Duration::from_millis(20);

/// Looks until something is found, with a pause after each time; `None` when nothing is within `patience`.
///
/// # Errors
/// The first of `look`, which ends it.
pub fn poll<R>(
    patience: Duration,
    pause: Duration,
    mut look: impl FnMut() -> Result<Option<R>>,
) -> Result<Option<R>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(pause);
    }
}

/// Waits until somebody listens at a TCP port of the namespace's loopback; `check` is asked meanwhile and ends it when
/// nobody ever will.
///
/// # Errors
/// That of `check`, or that nobody did.
pub fn await_port(namespace: &Namespace, port: u16, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let is_open = || namespace.enter(|| std::net::TcpStream::connect(("127.0.0.1", port))).is_ok();
    let found = poll(PATIENCE, PAUSE, || {
        check()?;
        Ok(is_open().then_some(()))
    })?;
    if found.is_none() {
        bail!("nobody listens at port {port}");
    }
    Ok(())
}

/// Waits until `all`, which only grows, has so many entries that `wanted` accepts, and returns those.
///
/// # Errors
/// Those of `all`; when there are too few, with how many there are.
pub fn await_number<T>(
    number: usize,
    wanted: impl Fn(&T) -> bool,
    mut all: impl FnMut() -> Result<Vec<T>>,
) -> Result<Vec<T>> {
    let (mut among, mut last) = (0, 0);
    let found = poll(PATIENCE, PAUSE, || {
        let entries = all()?;
        among = entries.len();
        let found: Vec<T> = entries.into_iter().filter(|entry| wanted(entry)).collect();
        last = found.len();
        Ok((found.len() >= number).then_some(found))
    })?;
    match found {
        Some(found) => Ok(found),
        None => bail!("{last} of {number} came, among {among}"),
    }
}

/// Each line of a file as JSON, but for the last while it is under way; none while the file is not there.
///
/// # Errors
/// When a line is something else.
pub fn json_lines<T: DeserializeOwned>(path: &std::path::Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).map_err(|error| anyhow::anyhow!("{error}: {line}")))
        .collect()
}
