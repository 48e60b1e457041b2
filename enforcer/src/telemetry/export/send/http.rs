//! OTLP over HTTP with binary payloads. Owns one connection that is kept and what its statuses mean (OTLP specification,
//! section "OTLP/HTTP").

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::{Timestamp, fmt::rfc2822};
use prost::Message;

use super::headers::{Header, stamps};
use super::response::Answer;
use super::{Failure, Taken, connect};
use crate::telemetry::export::batch::Batch;
use crate::telemetry::export::target::Collector;
use crate::telemetry::export::tls::{Files, Stamp};
use enforcer_core::causes::chain;

/// Octets of an answer that are read.
const ANSWER: usize = 64 << 10;
/// What a payload is called.
const PROTOBUF: &str = "application/x-protobuf";

/// A collector that is spoken to by HTTP.
#[derive(Debug)]
pub struct Http {
    collector: Collector,
    tls: Files,
    headers: Vec<Header>,
    is_compressed: bool,
    /// The connection, and the files it was made with.
    connection: Option<(Stamp, SendRequest<Full<Bytes>>, HeaderMap)>,
}

impl Http {
    /// Connects to nothing yet.
    pub fn new(collector: Collector, tls: Files, headers: Vec<Header>, is_compressed: bool) -> Self {
        Self { collector, tls, headers, is_compressed, connection: None }
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    pub(super) async fn send(&mut self, batch: &Batch) -> Result<Taken, Failure> {
        self.prepare().await?;
        let Some((_, connection, headers)) = &mut self.connection else {
            return Err(Failure::retry("no connection"));
        };
        let mut request = Request::post(self.collector.path());
        if let Some(all) = request.headers_mut() {
            all.clone_from(headers);
        }
        let payload = match self.is_compressed {
            true => compressed(&batch.payload).map_err(Failure::retry)?,
            false => batch.payload.clone(),
        };
        let request = request.body(Full::new(payload)).map_err(Failure::refused)?;
        let response = connection.send_request(request).await;
        let response = response.map_err(|error| Failure::retry(chain(&error)))?;
        answer(response, batch.records).await
    }

    /// Connects, unless there is a connection and no file changed since.
    async fn prepare(&mut self) -> Result<(), Failure> {
        let mut stamp = self.tls.stamp();
        stamp.extend(stamps(&self.headers));
        let is_current = |(known, open, _): &(Stamp, SendRequest<_>, _)| *known == stamp && !open.is_closed();
        if !self.connection.as_ref().is_some_and(is_current) {
            self.connection = None;
            let headers = self.all_headers().map_err(Failure::retry)?;
            let tls = match self.collector.is_secure {
                true => Some(self.tls.load(Some(b"http/1.1")).map_err(Failure::retry)?),
                false => None,
            };
            let stream = connect(&self.collector.http(), tls).await;
            let stream = stream.map_err(|error| Failure::retry(chain(&error)))?;
            let handshake = http1::handshake(TokioIo::new(stream)).await;
            let (sender, connection) = handshake.map_err(|error| Failure::retry(chain(&error)))?;
            tokio::spawn(connection);
            self.connection = Some((stamp, sender, headers));
        }
        if let Some((_, connection, _)) = &mut self.connection {
            connection.ready().await.map_err(|error| Failure::retry(chain(&error)))?;
        }
        Ok(())
    }

    fn all_headers(&self) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let host = self.collector.http().to_string();
        let agent = concat!("enforcer/", env!("CARGO_PKG_VERSION")).to_owned();
        for (name, value) in [(HOST, host), (USER_AGENT, agent), (CONTENT_TYPE, PROTOBUF.to_owned())] {
            headers.insert(name, value.parse().map_err(|_| format!("{value:?} cannot be sent"))?);
        }
        if self.is_compressed {
            headers.insert(CONTENT_ENCODING, hyper::header::HeaderValue::from_static("gzip"));
        }
        for header in &self.headers {
            let (name, value) = header.read()?;
            headers.append(name, value);
        }
        Ok(headers)
    }
}

fn compressed(payload: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(payload.len() / 4), Compression::fast());
    encoder.write_all(payload)?;
    encoder.finish().map(Bytes::from)
}

/// What a response means for a batch of so many records.
async fn answer<B>(response: Response<B>, records: u32) -> Result<Taken, Failure>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (status, after) = (response.status(), retry_after(response.headers(), Timestamp::now()));
    let is_protobuf = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == PROTOBUF);
    let body = Limited::new(response.into_body(), ANSWER).collect().await;
    if !status.is_success() {
        let error = format!("HTTP status {status}");
        return Err(if is_transient(status) {
            Failure::Retry { error, after }
        } else {
            Failure::Refused { error }
        });
    }
    // Whoever answers 200 has taken it, whatever the answer holds.
    let answer = body.ok().filter(|_| is_protobuf).and_then(|body| Answer::decode(body.to_bytes()).ok());
    Ok(answer.unwrap_or_default().taken(records))
}

fn is_transient(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// `Retry-After`: seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = value.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| {
        let date = rfc2822::parse(value).ok()?.timestamp();
        date.duration_since(now).try_into().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: u16, headers: &[(&str, &str)], body: &'static [u8]) -> Result<Taken, Failure> {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(Full::new(Bytes::from_static(body))).expect("a response");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(answer(response, 9))
    }

    #[test]
    fn statuses_mean_what_the_specification_says() {
        let taken = Taken { rejected: 3, remark: "no".to_owned() };
        let partial = b"\x0a\x06\x08\x03\x12\x02no";
        assert_eq!(said(200, &[("content-type", "application/x-protobuf")], partial), Ok(taken));
        assert_eq!(said(200, &[("content-type", "text/plain")], b"fine"), Ok(Taken::default()));
        for status in [429, 502, 503, 504] {
            let seconds = Some(Duration::from_secs(7));
            let error = said(status, &[("retry-after", "7")], b"").expect_err("not taken");
            assert!(matches!(error, Failure::Retry { after, .. } if after == seconds), "{error:?}");
        }
        for status in [400, 401, 404, 413, 500] {
            let error = said(status, &[], b"").expect_err("not taken");
            assert!(matches!(error, Failure::Refused { .. }), "{error:?}");
        }
    }

    #[test]
    fn a_pause_may_be_asked_for_by_its_end() {
        let now: Timestamp = "2026-01-05T12:00:00Z".parse().expect("a time");
        let asked = |value: &'static str| {
            let value = hyper::header::HeaderValue::from_static(value);
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]), now)
        };
        assert_eq!(asked("Mon, 05 Jan 2026 12:00:30 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Mon, 05 Jan 2026 11:00:30 GMT"), None, "it is over");
        assert_eq!(asked("soon"), None);
    }
}
