//! Records to other systems: OTLP to a collector of OpenTelemetry, syslog to a SIEM. Owns one thread per exporter that is
//! configured, and nothing for one that is not; the agent's loop never waits for any of it.

pub mod backlog;
pub mod batch;
pub mod counts;
mod pump;
pub mod retry;
pub mod send;
pub mod spool;
pub mod target;
pub mod tls;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use enforcer_core::export::otlp::Requests;
use enforcer_core::export::syslog::{Content, Messages};

use super::records::{Consumer, Kinds, Numbers, Records};
use super::told::Told;
use crate::api::export::ExportStatus;
use backlog::{Backlog, MEMORY};
use batch::{Encoder, Sorter};
use counts::{Counts, Place};
use pump::Pump;
use retry::Backoff;
use send::{Grpc, Header, Http, Sender, Syslog};
use spool::Spool;
use target::{Collector, SyslogServer};
use tls::Files;

/// How OTLP is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// HTTP with binary payloads.
    Http,
}

/// Where records go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// To a collector of OpenTelemetry.
    Otlp {
        /// The collector.
        collector: Collector,
        /// How it is spoken to.
        protocol: Protocol,
        /// Headers of every request.
        headers: Vec<Header>,
        /// True when payloads are compressed with gzip.
        is_compressed: bool,
    },
    /// To a syslog server.
    Syslog {
        /// The server.
        server: SyslogServer,
        /// What messages say.
        content: Content,
    },
}

/// One exporter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Where its records go.
    pub target: Target,
    /// Keys and certificates.
    pub tls: Files,
    /// Where records wait that cannot be delivered.
    pub spool: Option<spool::Options>,
}

/// Why an exporter cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Its spool cannot be used.
    #[error("failed to open the spool {}", path.display())]
    Spool {
        /// The directory.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its certificates cannot be used.
    #[error("failed to prepare TLS for {target}")]
    Tls {
        /// Where it was to connect.
        target: String,
        /// Why.
        source: tls::TlsError,
    },
    /// It has no thread.
    #[error("failed to start a thread for the exporter {name}")]
    Thread {
        /// The exporter.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// An exporter that runs.
#[derive(Debug)]
pub struct Exporter {
    name: &'static str,
    target: String,
    has_spool: bool,
    counts: Arc<Counts>,
    /// Closed when the thread ended.
    ended: Receiver<()>,
}

impl Exporter {
    /// Begins with the oldest record that is kept.
    ///
    /// # Errors
    /// When the spool, the certificates or a thread cannot be had.
    pub fn start<F: Told>(options: &Options, records: &Records<F>, node: &str) -> Result<Self, ExportError> {
        let (name, target) = (options.name(), options.target());
        if options.is_secure() {
            let loaded = options.tls.load(None);
            loaded.map_err(|source| ExportError::Tls { target: target.clone(), source })?;
        }
        let spool = options.spool.as_ref().map(|spool| {
            Spool::open(spool).map_err(|source| ExportError::Spool { path: spool.directory.clone(), source })
        });
        let counts = Arc::<Counts>::default();
        let pump = Pump {
            name,
            records: records.clone(),
            reader: records.reader(Consumer::Export, Kinds::ALL, Numbers::default()),
            sorter: Sorter::new(|| options.encoder(node)),
            backlog: Backlog::new(MEMORY, spool.transpose()?, Arc::clone(&counts)),
            sender: Some(options.sender()),
            counts: Arc::clone(&counts),
            backoff: Backoff::default(),
            begun: None,
            paused: None,
            in_flight: None,
        };
        let (end, ended) = channel();
        let failed = |source| ExportError::Thread { name, source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let run = move || {
            runtime.block_on(pump.run());
            // A name that is still being looked up keeps nobody from ending.
            runtime.shutdown_background();
            drop(end);
        };
        thread::Builder::new().name(format!("export-{name}")).spawn(run).map_err(failed)?;
        Ok(Self { name, target, has_spool: options.spool.is_some(), counts, ended })
    }

    /// Waits for it to end, which it does once the records are closed; false when it takes longer than `patience`.
    pub fn wait(&self, patience: Duration) -> bool {
        self.ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Records lost at each place, by the name of the loss.
    pub fn losses(&self) -> impl Iterator<Item = (String, u64)> {
        // Those that the ring overwrote are counted there, for all exporters.
        let places = Place::ALL.into_iter().filter(|place| place.is_loss());
        places.map(|place| (format!("{}-{}", self.name, place.text()), self.counts.at(place)))
    }

    /// How it stands.
    pub fn status(&self) -> ExportStatus {
        let connection = self.counts.connection().clone();
        let places = Place::ALL.map(|place| (place.text().to_owned(), self.counts.at(place)));
        ExportStatus {
            name: self.name.to_owned(),
            target: self.target.clone(),
            away: connection.away,
            error: connection.error,
            records: places.into_iter().filter(|(_, count)| *count > 0).collect(),
            waiting: self.counts.waiting(),
            spooled_octets: self.has_spool.then(|| self.counts.spooled_octets()),
            retries: self.counts.retries(),
        }
    }
}

impl Options {
    fn name(&self) -> &'static str {
        match self.target {
            Target::Otlp { .. } => "otlp",
            Target::Syslog { .. } => "syslog",
        }
    }

    fn target(&self) -> String {
        match &self.target {
            Target::Otlp { collector, protocol, .. } => {
                let scheme = if collector.is_secure { "https" } else { "http" };
                match protocol {
                    Protocol::Grpc => format!("{scheme}://{} (gRPC)", collector.grpc()),
                    Protocol::Http => format!("{scheme}://{}{}", collector.http(), collector.path()),
                }
            }
            Target::Syslog { server, .. } => server.to_string(),
        }
    }

    fn is_secure(&self) -> bool {
        match &self.target {
            Target::Otlp { collector, .. } => collector.is_secure,
            Target::Syslog { server, .. } => matches!(server, SyslogServer::Tls(_)),
        }
    }

    fn encoder(&self, node: &str) -> Encoder {
        let version = env!("CARGO_PKG_VERSION");
        match self.target {
            Target::Otlp { .. } => Encoder::otlp(Requests::new(node, version)),
            Target::Syslog { content, .. } => Encoder::syslog(Messages::new(node, version, content)),
        }
    }

    fn sender(&self) -> Sender {
        let tls = self.tls.clone();
        match &self.target {
            Target::Otlp { collector, protocol: Protocol::Grpc, headers, is_compressed } => {
                Sender::Grpc(Grpc::new(collector.clone(), tls, headers.clone(), *is_compressed))
            }
            Target::Otlp { collector, protocol: Protocol::Http, headers, is_compressed } => {
                Sender::Http(Http::new(collector.clone(), tls, headers.clone(), *is_compressed))
            }
            Target::Syslog { server, .. } => Sender::Syslog(Syslog::new(server.clone(), tls)),
        }
    }
}

#[cfg(test)]
mod tests;
