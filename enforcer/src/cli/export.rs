//! Flags of `enforcer agent` that say where records go besides the socket. Owns how they become options of the flow log and
//! of exporters.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use enforcer_common::verdict::Verdict;
use enforcer_core::export::syslog::Content;
use enforcer_core::record::aggregate::Key;
use enforcer_core::record::text::parse_verdict;

use crate::agent::aggregation;
use crate::agent::log::Rotation;
use crate::telemetry::export::send::Header;
use crate::telemetry::export::target::{Collector, SyslogServer};
use crate::telemetry::export::tls::Files;
use crate::telemetry::export::{Options, Protocol, Target, spool};

/// Flags of exporters.
#[derive(Args, Debug)]
#[command(next_help_heading = "Records elsewhere")]
pub struct ExportArgs {
    /// Append every record, of flows and of DNS, as a line of JSON to this file; `-` for standard output. SIGHUP opens it
    /// again.
    #[arg(long, value_name = "FILE")]
    pub flow_log: Option<PathBuf>,
    /// Begin a new flow log before the file would have more octets; the former is `FILE.1`.
    #[arg(long, value_name = "OCTETS")]
    pub flow_log_size: Option<u64>,
    /// Former flow logs that are kept.
    #[arg(long, default_value_t = 5, value_name = "FILES")]
    pub flow_log_files: u32,
    /// Put flow records that agree in these fields together, for the flow log and the exporters: a list with commas. Who
    /// asks the agent itself still gets each record.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',', value_parser = key_parser())]
    pub flow_aggregate: Vec<Key>,
    /// Seconds for which records are put together.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub flow_aggregate_interval: u64,
    /// Do so with flows of these verdicts only; others are told one by one. All when not given.
    #[arg(long, value_name = "VERDICTS", value_delimiter = ',', value_parser = parse_verdict, requires = "flow_aggregate")]
    pub flow_aggregate_verdicts: Vec<Verdict>,
    /// Send every record to this OpenTelemetry collector: `http://HOST[:PORT]`, or `https://` for TLS. Ports when none is
    /// written: 4317 for gRPC, 4318 for HTTP.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<Collector>,
    /// How the collector is spoken to.
    #[arg(long, value_enum, default_value_t = ProtocolArg::Grpc, value_name = "PROTOCOL")]
    pub otlp_protocol: ProtocolArg,
    /// A header of every request: `NAME=VALUE`, or `NAME=@FILE` for a value in a file, which is read again when it
    /// changes; repeatable.
    #[arg(long = "otlp-header", value_name = "NAME=VALUE")]
    pub otlp_headers: Vec<Header>,
    /// Whether requests are compressed: less traffic for more work.
    #[arg(long, value_enum, default_value_t = CompressionArg::None, value_name = "COMPRESSION")]
    pub otlp_compression: CompressionArg,
    /// Certificates, in PEM, of which one must have signed the collector's; those of the system when not given. Files of
    /// certificates and keys are read again when they change.
    #[arg(long, value_name = "FILE")]
    pub otlp_ca: Option<PathBuf>,
    /// Certificate, in PEM, that is shown to the collector.
    #[arg(long, value_name = "FILE", requires = "otlp_key")]
    pub otlp_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "otlp_certificate")]
    pub otlp_key: Option<PathBuf>,
    /// Send every record to this syslog server: `udp://HOST[:PORT]`, `tcp://HOST[:PORT]`, `tls://HOST[:PORT]` or
    /// `unix:PATH`.
    #[arg(long, value_name = "SERVER")]
    pub syslog: Option<SyslogServer>,
    /// What syslog messages say.
    #[arg(long, value_enum, default_value_t = ContentArg::Json, value_name = "FORMAT")]
    pub syslog_format: ContentArg,
    /// As `--otlp-ca`, for the syslog server.
    #[arg(long, value_name = "FILE")]
    pub syslog_ca: Option<PathBuf>,
    /// As `--otlp-certificate`, for the syslog server.
    #[arg(long, value_name = "FILE", requires = "syslog_key")]
    pub syslog_certificate: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "syslog_certificate")]
    pub syslog_key: Option<PathBuf>,
    /// Directory where records wait that cannot be delivered; without it they wait in 16 MiB of memory. It outlives the
    /// agent.
    #[arg(long, value_name = "DIRECTORY")]
    pub spool: Option<PathBuf>,
    /// Octets of the spool, for each exporter; the oldest records make room, those of what passed before any other.
    #[arg(long, default_value_t = 256 << 20, value_name = "OCTETS")]
    pub spool_size: u64,
    /// Seconds after which records are dropped from the spool.
    #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
    pub spool_age: u64,
}

/// How OTLP is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ProtocolArg {
    /// gRPC.
    Grpc,
    /// HTTP with binary payloads.
    #[value(name = "http/protobuf")]
    Http,
}

/// How requests are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CompressionArg {
    /// Not at all.
    None,
    /// With gzip.
    Gzip,
}

/// What a syslog message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ContentArg {
    /// The record as a line of JSON.
    Json,
    /// The record as an event of the Common Event Format.
    Cef,
}

impl ExportArgs {
    /// When the flow log is rotated.
    pub fn rotation(&self) -> Rotation {
        Rotation { octets: self.flow_log_size, files: self.flow_log_files }
    }

    /// How flow records are put together, if they are.
    pub fn aggregation(&self) -> Option<aggregation::Options> {
        let keys = self.flow_aggregate.iter().copied().collect();
        let verdicts = self.flow_aggregate_verdicts.clone();
        let options = aggregation::Options { keys, seconds: self.flow_aggregate_interval, verdicts };
        (!self.flow_aggregate.is_empty()).then_some(options)
    }

    /// The exporters they ask for.
    pub fn options(&self) -> Vec<Options> {
        let otlp = self.otlp.as_ref().map(|collector| Options {
            target: Target::Otlp {
                collector: collector.clone(),
                protocol: match self.otlp_protocol {
                    ProtocolArg::Grpc => Protocol::Grpc,
                    ProtocolArg::Http => Protocol::Http,
                },
                headers: self.otlp_headers.clone(),
                is_compressed: self.otlp_compression == CompressionArg::Gzip,
            },
            tls: files(&self.otlp_ca, &self.otlp_certificate, &self.otlp_key),
            spool: self.spool("otlp"),
        });
        let syslog = self.syslog.as_ref().map(|server| Options {
            target: Target::Syslog {
                server: server.clone(),
                content: match self.syslog_format {
                    ContentArg::Json => Content::Json,
                    ContentArg::Cef => Content::Cef,
                },
            },
            tls: files(&self.syslog_ca, &self.syslog_certificate, &self.syslog_key),
            spool: self.spool("syslog"),
        });
        otlp.into_iter().chain(syslog).collect()
    }

    /// The spool of one exporter: a directory of its own.
    fn spool(&self, name: &str) -> Option<spool::Options> {
        let directory = self.spool.as_ref()?.join(name);
        Some(spool::Options { directory, octets: self.spool_size, age: Duration::from_secs(self.spool_age) })
    }
}

/// Reads a field to aggregate by, and lists all of them for help and completion.
fn key_parser() -> impl TypedValueParser<Value = Key> {
    PossibleValuesParser::new(Key::ALL.map(|(_, name)| name)).try_map(|name| name.parse::<Key>())
}

fn files(ca: &Option<PathBuf>, certificate: &Option<PathBuf>, key: &Option<PathBuf>) -> Files {
    Files { authorities: ca.clone(), identity: certificate.clone().zip(key.clone()) }
}
