//! A real rsyslog that takes messages over TCP and UDP, and writes what it read in them to a file. Owns the process and its
//! files; what messages mean is not known here.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::Namespace;
use crate::poll::{await_number, await_port, json_lines};
use crate::reaper::{Kind, Remnant};

/// Its port of both protocols, on the loopback.
pub const PORT: u16 = 5514;
/// What it writes of a message: the parts that RFC 5424 gives it, by rsyslog's names.
const PARTS: [(&str, &str); 9] = [
    ("facility", "syslogfacility-text"),
    ("severity", "syslogseverity-text"),
    ("version", "protocol-version"),
    ("host", "hostname"),
    ("application", "app-name"),
    ("process", "procid"),
    ("identifier", "msgid"),
    ("data", "structured-data"),
    ("message", "msg"),
];

/// A running rsyslog; killed on drop.
#[derive(Debug)]
pub struct Rsyslog {
    directory: TempDir,
    process: Child,
    _remnant: Remnant,
}

impl Rsyslog {
    /// Starts it and returns once it listens.
    ///
    /// # Errors
    /// When it is not there or does not.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let directory = TempDir::new()?;
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("rsyslog.conf"), configuration(&directory))?;
        let mut command = Command::new("rsyslogd");
        command.arg("-n").arg("-f").arg(path("rsyslog.conf")).arg("-i").arg(path("pid"));
        let said = std::fs::File::create(path("said"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let process = namespace.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        let mut started = Self { directory, process, _remnant: remnant };
        started.await_listening(namespace)?;
        Ok(started)
    }

    /// What it read so far: of each message its parts, and its time as `time`.
    ///
    /// # Errors
    /// When its file holds something else.
    pub fn messages(&self) -> Result<Vec<Value>> {
        json_lines(&self.directory.path().join("messages"))
    }

    /// Waits until it has read so many messages that `wanted` accepts, and returns those.
    ///
    /// # Errors
    /// When it has not; with how many there are.
    pub fn await_messages(&self, number: usize, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        await_number(number, wanted, || self.messages())
    }

    fn await_listening(&mut self, namespace: &Namespace) -> Result<()> {
        let said = || std::fs::read_to_string(self.directory.path().join("said")).unwrap_or_default();
        let process = &mut self.process;
        let listening = await_port(namespace, PORT, || {
            ensure!(process.try_wait()?.is_none(), "rsyslog ended before it listened");
            Ok(())
        });
        listening.with_context(said)
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every message goes to one file, a line of JSON each.
fn configuration(directory: &TempDir) -> String {
    let part = |(name, property): (&str, &str)| {
        format!("  property(outname=\"{name}\" name=\"{property}\" format=\"jsonf\")\n")
    };
    let parts: String = PARTS.into_iter().map(part).collect();
    let directory = directory.path().display();
    format!(
        "global(workDirectory=\"{directory}\" maxMessageSize=\"64k\")\n\
         module(load=\"imtcp\")\nmodule(load=\"imudp\")\n\
         template(name=\"parts\" type=\"list\" option.jsonf=\"on\") {{\n{parts}  \
         property(outname=\"time\" name=\"timereported\" dateFormat=\"rfc3339\" format=\"jsonf\")\n}}\n\
         ruleset(name=\"all\") {{ action(type=\"omfile\" file=\"{directory}/messages\" template=\"parts\") }}\n\
         input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{PORT}\" ruleset=\"all\")\n\
         input(type=\"imudp\" address=\"127.0.0.1\" port=\"{PORT}\" ruleset=\"all\")\n"
    )
}
