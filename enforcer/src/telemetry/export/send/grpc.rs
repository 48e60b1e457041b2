//! OTLP over gRPC (`LogsService/Export`). Owns the channel and what its statuses mean (OTLP specification, section
//! "OTLP/gRPC"); a batch is a request already and is not encoded again.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::body::Bytes;
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use prost::bytes::BufMut;
use tokio_rustls::rustls::ClientConfig;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::headers::{Header, stamps};
use super::response::Answer;
use super::{Failure, Stream, Taken, connect};
use crate::telemetry::export::batch::Batch;
use crate::telemetry::export::target::{Authority, Collector};
use crate::telemetry::export::tls::{Files, Stamp};
use enforcer_core::causes::chain;

/// The method.
const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// A collector that is spoken to by gRPC.
#[derive(Debug)]
pub struct Grpc {
    collector: Collector,
    tls: Files,
    headers: Vec<Header>,
    is_compressed: bool,
    /// The channel, and the files it was made with.
    client: Option<(Stamp, tonic::client::Grpc<Channel>, MetadataMap)>,
}

impl Grpc {
    /// Connects to nothing yet.
    pub fn new(collector: Collector, tls: Files, headers: Vec<Header>, is_compressed: bool) -> Self {
        Self { collector, tls, headers, is_compressed, client: None }
    }

    pub(super) fn disconnect(&mut self) {
        self.client = None;
    }

    pub(super) async fn send(&mut self, batch: &Batch) -> Result<Taken, Failure> {
        self.prepare()?;
        let Some((_, client, metadata)) = &mut self.client else {
            return Err(Failure::retry("no channel"));
        };
        client.ready().await.map_err(|error| Failure::retry(chain(&error)))?;
        let mut request = Request::new(batch.payload.clone());
        *request.metadata_mut() = metadata.clone();
        let answer = client.unary(request, PathAndQuery::from_static(EXPORT), Raw).await;
        answer.map(|answer| answer.into_inner().taken(batch.records)).map_err(|status| failure(&status))
    }

    /// Makes a channel, unless there is one and no file changed since.
    fn prepare(&mut self) -> Result<(), Failure> {
        let mut stamp = self.tls.stamp();
        stamp.extend(stamps(&self.headers));
        if self.client.as_ref().is_some_and(|(known, _, _)| *known == stamp) {
            return Ok(());
        }
        let tls = match self.collector.is_secure {
            true => Some(self.tls.load(Some(b"h2")).map_err(Failure::retry)?),
            false => None,
        };
        let mut headers = hyper::HeaderMap::new();
        for header in &self.headers {
            let (name, value) = header.read().map_err(Failure::retry)?;
            headers.append(name, value);
        }
        let authority = self.collector.grpc();
        let scheme = if self.collector.is_secure { "https" } else { "http" };
        let origin: Uri = format!("{scheme}://{authority}").parse().map_err(Failure::retry)?;
        // TLS is the connector's: to the channel every connection is plain.
        let endpoint = Endpoint::from_shared(format!("http://{authority}")).map_err(Failure::retry)?;
        let channel = endpoint.origin(origin).connect_with_connector_lazy(Connector { authority, tls });
        // Some answer in the form they were asked in, whatever they were told.
        let mut client = tonic::client::Grpc::new(channel).accept_compressed(CompressionEncoding::Gzip);
        if self.is_compressed {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        self.client = Some((stamp, client, MetadataMap::from_headers(headers)));
        Ok(())
    }
}

/// What a status means for a batch.
fn failure(status: &Status) -> Failure {
    let cause = std::error::Error::source(status).map(chain);
    let error = format!("{:?}: {}", status.code(), cause.as_deref().unwrap_or(status.message()));
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let is_transient = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::ResourceExhausted => status.get_details_retry_info().is_some(),
        // The connection broke, and no collector said anything.
        _ => cause.is_some(),
    };
    if is_transient { Failure::Retry { error, after } } else { Failure::Refused { error } }
}

/// Connects for the channel.
#[derive(Clone)]
struct Connector {
    authority: Authority,
    tls: Option<Arc<ClientConfig>>,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { authority, tls } = self.clone();
        Box::pin(async move { connect(&authority, tls).await.map(TokioIo::new) })
    }
}

/// Requests are octets already; answers are read.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Answer;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Answer;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Answer>, Status> {
        Answer::decode(buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn statuses_mean_what_the_specification_says() {
        let is_transient =
            |code| matches!(failure(&Status::new(code, "x")), Failure::Retry { after: None, .. });
        for code in [Code::Unavailable, Code::Cancelled, Code::Aborted, Code::DataLoss, Code::OutOfRange] {
            assert!(is_transient(code), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::Internal, Code::ResourceExhausted] {
            assert!(!is_transient(code), "{code:?}");
        }
    }

    #[test]
    fn a_collector_may_ask_for_a_pause() {
        let asked = Duration::from_secs(7);
        let details = ErrorDetails::with_retry_info(Some(asked));
        let status = Status::with_error_details(Code::ResourceExhausted, "busy", details);
        let Failure::Retry { after, error } = failure(&status) else { panic!("it may be sent again") };
        assert_eq!(after, Some(asked));
        assert!(error.contains("busy"), "{error}");
    }
}
