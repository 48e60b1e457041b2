//! What `enforcer status` says of a running agent, and what `/proc` says of its process. Owns how they are asked and waited
//! for; never what they ought to say.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Agent;
use crate::poll::{PAUSE, poll};

impl Agent<'_> {
    /// What `enforcer status` says.
    ///
    /// # Errors
    /// When it cannot be asked, or says no JSON.
    pub fn status(&self) -> Result<Value> {
        let said = self.cli(&["status", "-o", "json"])?;
        serde_json::from_slice(&said.stdout).context("the status is no JSON")
    }

    /// Asks for the status until `look` finds in it what it looks for, no longer than `patience`.
    ///
    /// # Errors
    /// When it never does, with `what` was waited for and the last status; and those of `look`.
    pub fn await_status<R>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&Value) -> Result<Option<R>>,
    ) -> Result<R> {
        let mut last = Value::Null;
        let found = poll(patience, PAUSE, || {
            last = self.status()?;
            look(&last)
        })?;
        found.with_context(|| format!("{what} was waited for in vain: {last:#}"))
    }

    /// Processor time that its threads took so far.
    ///
    /// # Errors
    /// When it does not run.
    pub fn processor_time(&self) -> Result<Duration> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split(' ').next().context("no figure")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(sum))
    }
}

/// A count of a status by its JSON pointer (RFC 6901), 0 where it is left out.
pub fn count(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}
