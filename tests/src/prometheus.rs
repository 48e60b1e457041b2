//! A real Prometheus that scrapes an agent, and its `promtool`, as Debian ships them. Owns the process and its data; what the
//! metrics mean is not known here.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::Namespace;
use crate::poll::{PAUSE, poll};
use crate::reaper::{Kind, Remnant};

/// Where it answers, in its namespace.
const ADDRESS: &str = "127.0.0.1:9090";
/// How long something is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Prometheus; ended on drop.
#[derive(Debug)]
pub struct Prometheus<'a> {
    namespace: &'a Namespace,
    process: Child,
    _directory: TempDir,
    _remnant: Remnant,
}

impl<'a> Prometheus<'a> {
    /// Starts it in `namespace`; it scrapes `target` every second as job `enforcer`, and evaluates `rules`.
    ///
    /// # Errors
    /// When it is not there or cannot be started.
    pub fn start(namespace: &'a Namespace, target: SocketAddr, rules: &Path) -> Result<Self> {
        let directory = TempDir::new()?;
        let configuration = directory.path().join("prometheus.yml");
        std::fs::write(
            &configuration,
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n\
                 scrape_configs:\n- job_name: enforcer\n  static_configs:\n  - targets: [\"{target}\"]\n",
                rules.display()
            ),
        )?;
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address={ADDRESS}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = namespace.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        Ok(Self { namespace, process, _directory: directory, _remnant: remnant })
    }

    /// Waits until an expression has a value other than zero: its first one.
    ///
    /// # Errors
    /// When it has none in a minute; with what was answered last.
    pub fn await_value(&self, expression: &str) -> Result<f64> {
        self.await_answer(expression, |value| value.is_finite() && value != 0.0)
    }

    /// Waits until an expression has a number, zero too: its first one.
    ///
    /// # Errors
    /// As [`Self::await_value`].
    pub fn await_number(&self, expression: &str) -> Result<f64> {
        self.await_answer(expression, f64::is_finite)
    }

    fn await_answer(&self, expression: &str, is_wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let (url, mut last) = (format!("http://{ADDRESS}"), String::new());
        let found = poll(PATIENCE, PAUSE, || {
            let (said, whole) =
                promtool(self.namespace, &["query", "instant", "-o", "json", &url, expression], "")?;
            last = whole;
            let answer: Value = serde_json::from_str(&said).unwrap_or_default();
            let value = answer[0]["value"][1].as_str().and_then(|text| text.parse().ok());
            Ok(value.filter(|value| is_wanted(*value)))
        })?;
        found.with_context(|| format!("{expression} has no value: {last}"))
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `promtool` with an input; its output, and everything it said.
fn promtool(namespace: &Namespace, arguments: &[&str], input: &str) -> Result<(String, String)> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = namespace.spawn(&mut command)?;
    let mut stdin = process.stdin.take().context("its input is a pipe")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let out = process.wait_with_output()?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let whole = format!("{}: {said}{}", out.status, String::from_utf8_lossy(&out.stderr));
    Ok((said, whole))
}

/// Lets `promtool` check something: its arguments, and an input. It must find nothing.
///
/// # Errors
/// With what it found.
pub fn check(namespace: &Namespace, arguments: &[&str], input: &str) -> Result<()> {
    let (_, whole) = promtool(namespace, arguments, input)?;
    ensure!(whole.starts_with("exit status: 0"), "promtool {arguments:?}: {whole}");
    Ok(())
}
