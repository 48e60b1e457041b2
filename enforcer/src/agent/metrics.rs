//! Metrics for Prometheus and answers for probes, over HTTP. Owns the metrics' names; what they hold is the status, which
//! is looked up when somebody asks.
//!
//! `GET /metrics`: OpenMetrics text, or the older text format for who does not ask for it. `GET /healthz`: the loop turns. `GET /readyz`: the policy found last is in force.

mod encode;
mod steady;

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::kernel::{Kernel, Links};
use super::worker::Worker;
use encode::Snapshot;
use steady::Steady;

/// Workloads that are told apart unless the agent is told otherwise: more than a node has.
pub const WORKLOADS: usize = 512;
/// What OpenMetrics text is called (OpenMetrics 1.0, section "Content type").
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Prometheus' text format before that.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What counters of workloads had at the scrape before.
#[derive(Debug, Default)]
struct Counters {
    flows: Steady<3>,
    queries: Steady<4>,
}

/// Listens for scrapes and probes.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens at an address.
    ///
    /// # Errors
    /// When it cannot be had.
    pub async fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("failed to serve metrics at {address}"))?;
        Ok(Self { listener })
    }

    /// Serves until it is dropped.
    pub async fn serve<K: Kernel + 'static, L: Links + 'static>(self, worker: Rc<RefCell<Worker<K, L>>>) {
        let counters = Rc::<RefCell<Counters>>::default();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    spawn_local(connection(stream, Rc::clone(&worker), Rc::clone(&counters)));
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection for metrics");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

async fn connection<K: Kernel, L: Links>(
    stream: TcpStream,
    worker: Rc<RefCell<Worker<K, L>>>,
    counters: Rc<RefCell<Counters>>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, &worker, &counters);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection for metrics broke off");
    }
}

/// The answer to one request.
fn answer<K: Kernel, L: Links>(
    request: &Request<Incoming>,
    worker: &RefCell<Worker<K, L>>,
    counters: &RefCell<Counters>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => match worker.borrow().metrics(&mut counters.borrow_mut()).text() {
            Ok(metrics) if takes_open_metrics(request) => page(StatusCode::OK, OPEN_METRICS, metrics),
            Ok(metrics) => page(StatusCode::OK, CLASSIC, encode::classic(&metrics)),
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("failed to write metrics: {error}\n"))
            }
        },
        "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => match worker.borrow().unready() {
            None => text(StatusCode::OK, "in force\n".to_owned()),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz\n".to_owned()),
    }
}

fn takes_open_metrics(request: &Request<Incoming>) -> bool {
    let accepts = request.headers().get_all(ACCEPT).into_iter();
    accepts
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("application/openmetrics-text"))
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    page(status, TEXT, text)
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

impl<K: Kernel, L: Links> Worker<K, L> {
    /// Everything that is told as a metric, as of now.
    fn metrics(&self, counters: &mut Counters) -> Snapshot {
        let fates = self.books.tally.fates().into_iter().map(|(fate, total)| {
            let workload = self.books.view.workload_of(fate.endpoint).map(ToString::to_string);
            (workload.unwrap_or_default(), fate, total)
        });
        let snapshot = Snapshot::new(self.whole_status(), fates.collect(), self.options.metrics_workloads);
        snapshot.steadied(&mut counters.flows, &mut counters.queries)
    }

    /// Why the policy found last is not in force; `None` when it is.
    fn unready(&self) -> Option<String> {
        let never = || self.force.applied.is_none().then(|| "no policy was applied yet".to_owned());
        self.force.failure.clone().or_else(never)
    }
}
