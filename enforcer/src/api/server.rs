//! The agent's end of the socket. Owns connections and their pace: each has a place in the ring of records
//! instead of a queue, so that a slow reader costs nothing and is told what it missed.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::dns::DnsRequest;
use super::{FlowsRequest, Lost, LostBy, Request, Response, failure, read_request};
use crate::socket::{self, SocketFile};
use crate::telemetry::records::Numbers;

/// Longest request line, bytes.
const MAX_REQUEST: u64 = 64 << 10;
/// Records looked at for one connection before the others have their turn.
const BATCH: usize = 256;

/// A request for records, of one ring or the other.
#[derive(Clone, PartialEq, Debug)]
pub enum Stream {
    /// Flow records.
    Flows(FlowsRequest),
    /// DNS records.
    Dns(DnsRequest),
}

impl Stream {
    /// True when records are wanted as they come.
    pub fn follows(&self) -> bool {
        match self {
            Self::Flows(request) => request.follow,
            Self::Dns(request) => request.follow,
        }
    }
}

/// What the server needs of the agent.
pub trait Backend {
    /// Answers a request that is no stream.
    fn answer(&mut self, request: &Request) -> Vec<Response>;
    /// Places of the first record that is wanted and behind the last that is stored; what happened before the request is
    /// stored then.
    fn begin(&mut self, request: &Stream) -> (Numbers, Numbers);
    /// At most `limit` records from `cursor` on as response lines, and the cursor behind them.
    fn read(&self, request: &Stream, cursor: Numbers, limit: usize) -> (Vec<Response>, Numbers);
    /// Records that the kernel could not tell, so far.
    fn lost_by_kernel(&self) -> u64;
}

/// A socket that is removed when the agent ends.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    _file: SocketFile,
}

impl Listener {
    /// Listens at `path`, as [`socket::bind`] does.
    ///
    /// # Errors
    /// When another agent listens there, or the socket cannot be made.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let (socket, file) = socket::bind(path)?;
        Ok(Self { socket: UnixListener::from_std(socket)?, _file: file })
    }

    /// Serves until it is dropped. `news` changes whenever there are new records.
    pub async fn serve<B: Backend + 'static>(self, backend: Rc<RefCell<B>>, news: watch::Receiver<u64>) {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    tokio::task::spawn_local(connection(stream, Rc::clone(&backend), news.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a connection on the socket");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Serves one connection; its errors are the client's going away.
async fn connection<B: Backend + 'static>(
    stream: UnixStream,
    backend: Rc<RefCell<B>>,
    news: watch::Receiver<u64>,
) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader.take(MAX_REQUEST));
    let mut line = String::new();
    let result = match reader.read_line(&mut line).await {
        Ok(0) => return,
        Ok(_) => match read_request(&line) {
            Ok(Request::Flows(request)) => {
                return records(Stream::Flows(request), reader, writer, backend, news).await;
            }
            Ok(Request::Dns(request)) => {
                return records(Stream::Dns(request), reader, writer, backend, news).await;
            }
            Ok(request) => {
                let responses = backend.borrow_mut().answer(&request);
                finish(&mut writer, responses).await
            }
            Err(message) => send(&mut writer, &[failure(message)]).await,
        },
        Err(error) => send(&mut writer, &[failure(format!("the request cannot be read: {error}"))]).await,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a client went away");
    }
}

/// Answers a request for records.
async fn records<B: Backend + 'static>(
    request: Stream,
    reader: BufReader<tokio::io::Take<OwnedReadHalf>>,
    mut writer: OwnedWriteHalf,
    backend: Rc<RefCell<B>>,
    news: watch::Receiver<u64>,
) {
    if request.follows() {
        let stream = tokio::task::spawn_local(follow(request, writer, backend, news));
        closed(reader).await;
        return stream.abort();
    }
    if let Err(error) = stored(&request, &mut writer, &backend).await {
        tracing::debug!(%error, "a client went away");
    }
}

/// Sends an answer and, unless it is a failure, its end.
async fn finish(writer: &mut OwnedWriteHalf, mut responses: Vec<Response>) -> io::Result<()> {
    if !matches!(responses.last(), Some(Response::Error(_))) {
        responses.push(Response::End {});
    }
    send(writer, &responses).await
}

async fn send(writer: &mut OwnedWriteHalf, responses: &[Response]) -> io::Result<()> {
    let mut text = Vec::with_capacity(512 * responses.len());
    for response in responses {
        serde_json::to_writer(&mut text, response)?;
        text.push(b'\n');
    }
    writer.write_all(&text).await
}

/// Sends the stored records and the end of the answer.
async fn stored<B: Backend>(
    request: &Stream,
    writer: &mut OwnedWriteHalf,
    backend: &Rc<RefCell<B>>,
) -> io::Result<Numbers> {
    let (mut cursor, end) = backend.borrow_mut().begin(request);
    while cursor.until(end) > 0 {
        let limit = usize::try_from(cursor.until(end)).unwrap_or(BATCH).min(BATCH);
        let (responses, next) = backend.borrow().read(request, cursor, limit);
        send(writer, &responses).await?;
        tokio::task::yield_now().await;
        cursor = next;
    }
    if !request.follows() {
        send(writer, &[Response::End {}]).await?;
    }
    Ok(cursor)
}

/// Sends the stored records and then those that come, until the task is aborted or the client goes away.
async fn follow<B: Backend>(
    request: Stream,
    mut writer: OwnedWriteHalf,
    backend: Rc<RefCell<B>>,
    mut news: watch::Receiver<u64>,
) -> io::Result<()> {
    let mut lost = backend.borrow().lost_by_kernel();
    let mut cursor = stored(&request, &mut writer, &backend).await?;
    loop {
        news.mark_unchanged();
        let lost_now = backend.borrow().lost_by_kernel();
        if lost_now > lost {
            send(&mut writer, &[Response::Lost(Lost { records: lost_now - lost, by: LostBy::Kernel })])
                .await?;
            lost = lost_now;
        }
        let (responses, next) = backend.borrow().read(&request, cursor, BATCH);
        send(&mut writer, &responses).await?;
        if next != cursor {
            cursor = next;
            tokio::task::yield_now().await;
        } else if news.changed().await.is_err() {
            return send(&mut writer, &[Response::End {}]).await;
        }
    }
}

/// Ends when the client has closed its end; whatever else it says is not listened to.
async fn closed(reader: BufReader<tokio::io::Take<OwnedReadHalf>>) {
    let mut reader = reader.into_inner().into_inner();
    let mut rest = [0; 64];
    while matches!(reader.read(&mut rest).await, Ok(count) if count > 0) {}
}

#[cfg(test)]
mod tests;
