//! The `hubble` client (`tests/tools/hubble`), as its makers publish it, against the agent's observer API. Owns how it is
//! called and the certificates it shows; what flows mean is not known here.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::reaper::{Kind, Remnant};
use crate::{Journal, Namespace, go};

/// A client with everything it needs to reach one server.
#[derive(Debug)]
pub struct Hubble<'a> {
    namespace: &'a Namespace,
    program: PathBuf,
    arguments: Vec<String>,
}

/// A client that goes on listening; ended on drop.
#[derive(Debug)]
pub struct Listening {
    process: Child,
    lines: Arc<Journal<String>>,
    _remnant: Remnant,
}

/// An authority, and certificates of it for an agent at 127.0.0.1 and its clients.
#[derive(Debug)]
pub struct Certificates(TempDir);

impl<'a> Hubble<'a> {
    /// A client of the socket at `path`.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn of_socket(namespace: &'a Namespace, path: &Path) -> Result<Self> {
        let arguments = vec!["--server".to_owned(), format!("unix://{}", path.display())];
        Ok(Self { namespace, program: go::tool("hubble")?, arguments })
    }

    /// A client of a port; with `shown` it shows a certificate.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn of_port(
        namespace: &'a Namespace,
        address: &str,
        trusted: &Certificates,
        shown: Option<&Certificates>,
    ) -> Result<Self> {
        let mut arguments = vec!["--server".to_owned(), format!("tls://{address}")];
        arguments.extend(["--tls-ca-cert-files".to_owned(), trusted.file("ca.pem")]);
        if let Some(shown) = shown {
            arguments.extend(["--tls-client-cert-file".to_owned(), shown.file("client.pem")]);
            arguments.extend(["--tls-client-key-file".to_owned(), shown.file("client.key")]);
        }
        Ok(Self { namespace, program: go::tool("hubble")?, arguments })
    }

    /// What it prints.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn says(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "hubble {arguments:?}: {}: {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What it complains of.
    ///
    /// # Errors
    /// When it does not fail.
    pub fn complains(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(!output.status.success(), "hubble {arguments:?} succeeded");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The flows that `observe` finds with these flags, as JSON.
    ///
    /// # Errors
    /// When it fails, or prints something else.
    pub fn flows(&self, flags: &[&str]) -> Result<Vec<Value>> {
        let said = self.says(&[&["observe", "-o", "jsonpb"], flags].concat())?;
        let flow = |line: &str| Ok(serde_json::from_str::<Value>(line)?["flow"].take());
        said.lines().map(flow).collect()
    }

    /// Lets it go on and listens to what it prints.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn listen(&self, arguments: &[&str]) -> Result<Listening> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = self.namespace.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        let output = process.stdout.take().context("its output is a pipe")?;
        let lines = Arc::<Journal<String>>::default();
        let told = Arc::clone(&lines);
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| told.push(line));
        });
        Ok(Listening { process, lines, _remnant: remnant })
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(self.namespace.spawn(&mut command)?.wait_with_output()?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // Neither a configuration of this machine's nor a home directory to look for one.
        command.args(arguments).args(&self.arguments).args(["--config", "/dev/null"]);
        command.env_remove("HUBBLE_SERVER").env("NO_COLOR", "1");
        command
    }
}

impl Listening {
    /// What it printed so far.
    pub fn lines(&self) -> &Journal<String> {
        &self.lines
    }

    /// Waits for a line that `wanted` accepts.
    ///
    /// # Errors
    /// When none comes; with those that came.
    pub fn await_line(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let found = self.lines.wait(|all| all.iter().find(|line| wanted(line)).cloned());
        found.with_context(|| format!("no line of {what}: {}", self.lines.read(|all| all.join("\n"))))
    }

    /// Stops it where it is, or lets it go on.
    ///
    /// # Errors
    /// When it is gone.
    pub fn hold(&self, is_held: bool) -> Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = if is_held { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it fails.
    pub fn ends(&mut self) -> Result<()> {
        let status = self.process.wait()?;
        ensure!(status.success(), "hubble ended with {status}");
        Ok(())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Certificates {
    /// An authority and its certificates.
    ///
    /// # Errors
    /// When OpenSSL is not there or makes none.
    pub fn new() -> Result<Self> {
        let made = Self(TempDir::new()?);
        made.renew()?;
        Ok(made)
    }

    /// Another authority with other certificates, in the same files.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn renew(&self) -> Result<()> {
        self.make(&["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"])?;
        for (name, usage) in
            [("agent", "extendedKeyUsage=serverAuth"), ("client", "extendedKeyUsage=clientAuth")]
        {
            let [subject, key, certificate] =
                [format!("/CN={name}"), format!("{name}.key"), format!("{name}.pem")];
            self.make(&[
                "-subj",
                &subject,
                "-keyout",
                &key,
                "-out",
                &certificate,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-addext",
                "subjectAltName=IP:127.0.0.1",
                "-addext",
                usage,
            ])?;
        }
        Ok(())
    }

    /// One of its files: `ca`, `agent` or `client` with `.pem` or `.key`.
    pub fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_string_lossy().into_owned()
    }

    fn make(&self, arguments: &[&str]) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        let made = openssl.args(["-days", "1"]).args(arguments).current_dir(self.0.path()).output();
        let made = made.context("failed to run openssl")?;
        ensure!(made.status.success(), "no certificate: {}", String::from_utf8_lossy(&made.stderr));
        Ok(())
    }
}
