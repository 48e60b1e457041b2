//! A real OpenTelemetry Collector (`tests/tools/otelcol`) that receives OTLP and writes what it took to a file. Owns the
//! process and the file, over restarts; what records mean is not known here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::poll::{await_number, await_port, json_lines};
use crate::reaper::{Kind, Remnant};
use crate::{Namespace, certificates, go};

/// Port of OTLP over gRPC, on the loopback.
pub const GRPC: u16 = 4317;
/// Port of OTLP over HTTP.
pub const HTTP: u16 = 4318;

/// A collector that runs or is down; killed on drop.
#[derive(Debug)]
pub struct Collector<'a> {
    namespace: &'a Namespace,
    program: PathBuf,
    directory: TempDir,
    is_secure: bool,
    running: Option<(Child, Remnant)>,
}

/// A log record as the collector wrote it.
#[derive(Clone, PartialEq, Debug)]
pub struct LogRecord {
    /// Its event name.
    pub event: String,
    /// When it happened, nanoseconds since 1970.
    pub time: String,
    /// Its severity's number.
    pub severity: u64,
    /// Its attributes; numbers are written as texts, lists left out.
    pub attributes: BTreeMap<String, String>,
    /// The attributes of its resource.
    pub resource: BTreeMap<String, String>,
}

impl<'a> Collector<'a> {
    /// One that is down; with TLS it wants certificates of whoever speaks to it, and [`Self::certify`] makes all.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn new(namespace: &'a Namespace, is_secure: bool) -> Result<Self> {
        let (program, directory) = (go::tool("otelcol")?, TempDir::new()?);
        let collector = Self { namespace, program, directory, is_secure, running: None };
        if is_secure {
            collector.certify()?;
        }
        std::fs::write(collector.file("config.yaml"), collector.configuration())?;
        Ok(collector)
    }

    /// Starts it and returns once it listens.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.file("log"))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.file("config.yaml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = self.namespace.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        self.running = Some((process, remnant));
        let said = || std::fs::read_to_string(self.file("log")).unwrap_or_default();
        await_port(self.namespace, HTTP, || Ok(())).with_context(said)
    }

    /// Kills it; what it took is in its file.
    pub fn kill(&mut self) {
        if let Some((mut process, _remnant)) = self.running.take() {
            // Either fails only when it is gone already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Stops it where it is, or lets it go on: it holds its port and answers nobody.
    ///
    /// # Errors
    /// When it is down.
    pub fn hold(&self, is_held: bool) -> Result<()> {
        use rustix::process::{Pid, Signal, kill_process};
        let (process, _) = self.running.as_ref().context("it is down")?;
        let signal = if is_held { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(process), signal)?)
    }

    /// A file of its directory: `ca.pem`, `client.pem`, `client.key` are for whoever speaks to it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes an authority and certificates of it for both sides, in place of former ones.
    ///
    /// # Errors
    /// As [`certificates::make`].
    pub fn certify(&self) -> Result<()> {
        certificates::make(self.directory.path())
    }

    /// Everything it took, in the order of its file.
    ///
    /// # Errors
    /// When its file holds something else.
    pub fn records(&self) -> Result<Vec<LogRecord>> {
        let mut records = Vec::new();
        for request in json_lines::<Value>(&self.file("records.json"))? {
            for logs in list(&request["resourceLogs"]) {
                let resource = attributes(&logs["resource"]["attributes"]);
                let all = list(&logs["scopeLogs"]).iter().flat_map(|scope| list(&scope["logRecords"]));
                records.extend(all.map(|record| log_record(record, &resource)));
            }
        }
        Ok(records)
    }

    /// Waits until it took so many records that `wanted` accepts, and returns those.
    ///
    /// # Errors
    /// When it does not; with how many it took.
    pub fn await_records(
        &self,
        number: usize,
        wanted: impl Fn(&LogRecord) -> bool,
    ) -> Result<Vec<LogRecord>> {
        let found = await_number(number, wanted, || self.records());
        found.with_context(|| {
            format!("the collector's last record is {:#?}", self.records().map(|mut all| all.pop()))
        })
    }

    /// With rotation the file is written unbuffered: what was acknowledged is in it.
    fn configuration(&self) -> String {
        let tls = if self.is_secure {
            let [key, certificate, authority] =
                ["server.key", "server.pem", "ca.pem"].map(|name| self.file(name).display().to_string());
            format!(", tls: {{cert_file: {certificate}, key_file: {key}, client_ca_file: {authority}}}")
        } else {
            String::new()
        };
        format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{GRPC}\"{tls}}}, \
             http: {{endpoint: \"127.0.0.1:{HTTP}\"{tls}}}}}}}}}\n\
             exporters: {{file: {{path: {}, rotation: {{max_megabytes: 1000}}}}}}\n\
             service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{logs: {{receivers: [otlp], exporters: [file]}}}}}}\n",
            self.file("records.json").display()
        )
    }
}

impl Drop for Collector<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the collector said:\n{}",
                std::fs::read_to_string(self.file("log")).unwrap_or_default()
            );
        }
        self.kill();
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn log_record(record: &Value, resource: &BTreeMap<String, String>) -> LogRecord {
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    LogRecord {
        event: text("eventName"),
        time: text("timeUnixNano"),
        severity: record["severityNumber"].as_u64().unwrap_or_default(),
        attributes: attributes(&record["attributes"]),
        resource: resource.clone(),
    }
}

fn attributes(all: &Value) -> BTreeMap<String, String> {
    let text = |one: &Value| {
        let (name, value) = (one["key"].as_str()?, &one["value"]);
        let text = value["stringValue"].as_str().or_else(|| value["intValue"].as_str())?;
        Some((name.to_owned(), text.to_owned()))
    };
    list(all).iter().filter_map(text).collect()
}
