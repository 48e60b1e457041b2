//! A receiver of syslog messages over TLS (RFC 5425): OpenSSL's server, which wants a certificate of whoever speaks to it.
//! Owns the process and what it took, over restarts; what messages mean is not known here.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::reaper::{Kind, Remnant};
use crate::{Journal, Namespace, certificates};

/// Its port, on the loopback.
pub const PORT: u16 = 6514;

/// A receiver that runs or is down; killed on drop.
#[derive(Debug)]
pub struct Receiver<'a> {
    namespace: &'a Namespace,
    directory: TempDir,
    messages: Arc<Journal<String>>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    process: Child,
    /// It ends when this does.
    _input: ChildStdin,
    _remnant: Remnant,
}

impl<'a> Receiver<'a> {
    /// One that is down, with certificates for both sides.
    ///
    /// # Errors
    /// When these cannot be made.
    pub fn new(namespace: &'a Namespace) -> Result<Self> {
        let receiver =
            Self { namespace, directory: TempDir::new()?, messages: Arc::default(), running: None };
        receiver.certify()?;
        Ok(receiver)
    }

    /// Starts it with the certificates of now and returns once it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{PORT}")]);
        command.args(["-Verify", "1", "-verify_return_error", "-CAfile"]).arg(self.file("ca.pem"));
        command.arg("-cert").arg(self.file("server.pem")).arg("-key").arg(self.file("server.key"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = self.namespace.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        let output = process.stdout.take().context("its standard output is a pipe")?;
        let input = process.stdin.take().context("its standard input is a pipe")?;
        self.running = Some(Running { process, _input: input, _remnant: remnant });
        let messages = Arc::clone(&self.messages);
        std::thread::spawn(move || take(BufReader::new(output), &messages));
        self.await_listening()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            // Either fails only when it is gone already.
            let _ = running.process.kill();
            let _ = running.process.wait();
        }
    }

    /// Makes an authority and certificates of it for both sides, in place of former ones.
    ///
    /// # Errors
    /// As [`certificates::make`].
    pub fn certify(&self) -> Result<()> {
        certificates::make(self.directory.path())
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Messages so far, over restarts too.
    pub fn messages(&self) -> &Journal<String> {
        &self.messages
    }

    /// True when it lets somebody in who shows a certificate of this directory, or none.
    ///
    /// # Errors
    /// When OpenSSL is not there.
    pub fn admits(&self, has_certificate: bool) -> Result<bool> {
        let mut command = Command::new("timeout");
        command.args(["10", "openssl", "s_client", "-brief", "-connect", &format!("127.0.0.1:{PORT}")]);
        // With 1.3 a client is not told before it has sent something.
        command.arg("-tls1_2").arg("-CAfile").arg(self.file("ca.pem"));
        if has_certificate {
            command.arg("-cert").arg(self.file("client.pem")).arg("-key").arg(self.file("client.key"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let said = self.namespace.spawn(&mut command)?.wait_with_output()?;
        Ok(String::from_utf8_lossy(&said.stderr).contains("CONNECTION ESTABLISHED"))
    }

    /// Waits until its port is open: a connection that is closed at once is nobody's.
    fn await_listening(&mut self) -> Result<()> {
        let running = self.running.as_mut().context("it was just started")?;
        crate::poll::await_port(self.namespace, PORT, || {
            ensure!(running.process.try_wait()?.is_none(), "the receiver ended before it listened");
            Ok(())
        })
    }
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes messages, each with its length before it, until the stream ends or is no such stream.
fn take(mut stream: impl BufRead, messages: &Journal<String>) {
    loop {
        let mut length = Vec::new();
        if stream.read_until(b' ', &mut length).unwrap_or(0) == 0 {
            return;
        }
        let Some(length) = str::from_utf8(&length).ok().and_then(|text| text.trim_end().parse().ok()) else {
            return messages.push(format!("no length: {length:?}"));
        };
        let mut message = vec![0; length];
        if Read::read_exact(&mut stream, &mut message).is_err() {
            return;
        }
        messages.push(String::from_utf8_lossy(&message).into_owned());
    }
}
