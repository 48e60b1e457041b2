//! Who reads along: the JSON log, the observer API, and an OTLP collector. Each counts what it gets and
//! does as little else as it can.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use prost::bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

use enforcer_tests::Lab;
use enforcer_tests::reaper::Tree;
use rustix::fs::{FallocateFlags, fallocate};

/// What a consumer got so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Got(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    records: AtomicU64,
    missed: AtomicU64,
}

impl Got {
    /// Records.
    pub(crate) fn records(&self) -> u64 {
        self.0.records.load(Ordering::Relaxed)
    }

    /// Records that it was told it does not get.
    pub(crate) fn missed(&self) -> u64 {
        self.0.missed.load(Ordering::Relaxed)
    }

    fn add(&self, records: u64, missed: u64) {
        self.0.records.fetch_add(records, Ordering::Relaxed);
        self.0.missed.fetch_add(missed, Ordering::Relaxed);
    }
}

/// Octets of the log that are kept after they were read.
const KEPT: u64 = 1 << 24;

/// Counts lines of a file that grows, without holding its writer up, and gives back the memory of those it has read.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn json(directory: &Tree) -> Result<(PathBuf, Got)> {
    let path = directory.path().join("flows");
    File::create(&path)?;
    let (got, mut lines) = (Got::default(), OpenOptions::new().read(true).write(true).open(&path)?);
    let counted = got.clone();
    std::thread::spawn(move || -> std::io::Result<()> {
        let (mut buffer, mut given_back, mut read) = (vec![0; 1 << 18], 0, 0);
        loop {
            let length = lines.read(&mut buffer)?;
            read += length as u64;
            if read - given_back >= KEPT {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&lines, flags, given_back, read - given_back)?;
                given_back = read;
            }
            counted.add(buffer[..length].iter().filter(|octet| **octet == b'\n').count() as u64, 0);
            if length == 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    Ok((path, got))
}

/// Takes OTLP over HTTP at a port of the node's loopback.
///
/// # Errors
/// When the port cannot be had.
pub(crate) fn otlp(lab: &Lab) -> Result<(SocketAddr, Got)> {
    let listener = lab.node.enter(|| TcpListener::bind("127.0.0.1:0"))?;
    let (address, got) = (listener.local_addr()?, Got::default());
    let counted = got.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(std::io::Result::ok) {
            let counted = counted.clone();
            std::thread::spawn(move || serve(stream, &counted));
        }
    });
    Ok((address, got))
}

/// Answers requests over one connection.
fn serve(stream: TcpStream, got: &Got) -> Result<()> {
    let mut answers = stream.try_clone()?;
    let (mut requests, mut body) = (BufReader::with_capacity(1 << 18, stream), Vec::new());
    loop {
        let (mut length, mut line) = (0, String::new());
        while line != "\r\n" {
            line.clear();
            if requests.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        body.resize(length, 0);
        requests.read_exact(&mut body)?;
        got.add(log_records(&body).context("no request")?, 0);
        answers.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
    }
}

/// Log records of an `ExportLogsServiceRequest`.
fn log_records(request: &[u8]) -> Option<u64> {
    let mut records = 0;
    for (_, logs) in fields(request).filter(|(number, _)| *number == 1) {
        for (_, scope) in fields(logs).filter(|(number, _)| *number == 2) {
            records += fields(scope).filter(|(number, _)| *number == 2).count() as u64;
        }
    }
    (records > 0).then_some(records)
}

/// Fields that are octets, with their numbers; the first other one ends them, unless it is a number.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            let tag = varint(&mut message)?;
            match tag & 7 {
                0 => drop(varint(&mut message)?),
                2 => {
                    let length = usize::try_from(varint(&mut message)?).ok()?;
                    let (value, rest) = message.split_at_checked(length)?;
                    message = rest;
                    return Some((tag >> 3, value));
                }
                _ => return None,
            }
        }
    })
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (octet, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Follows all flows by the observer API.
///
/// # Errors
/// When it cannot be spoken to.
pub(crate) fn observer(socket: &Path) -> Result<Got> {
    let (got, runtime) =
        (Got::default(), tokio::runtime::Builder::new_current_thread().enable_all().build()?);
    let (counted, uri) = (got.clone(), format!("unix://{}", socket.display()));
    let (ready, is_ready) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        // It breaks off when the agent ends; whatever it did not get until then is missing in the sum.
        let _: Result<()> = runtime.block_on(async {
            // Clients written in Go make their window larger in the same way.
            let channel = Endpoint::from_shared(uri)?.http2_adaptive_window(true).connect().await?;
            let mut client = tonic::client::Grpc::new(channel);
            client.ready().await?;
            // GetFlowsRequest: follow.
            let request = Request::new(Bytes::from_static(&[0x18, 1]));
            let path = PathAndQuery::from_static("/observer.Observer/GetFlows");
            let mut flows = client.server_streaming(request, path, Counting).await?.into_inner();
            drop(ready);
            while let Some((records, missed)) = flows.message().await? {
                counted.add(records, missed);
            }
            Ok(())
        });
    });
    // Either it follows, or it has failed and said so.
    let _ = is_ready.recv();
    Ok(got)
}

/// Requests are octets; of responses only what they are is read.
#[derive(Clone, Copy)]
struct Counting;

impl Codec for Counting {
    type Encode = Bytes;
    type Decode = (u64, u64);
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Counting {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Counting {
    type Item = (u64, u64);
    type Error = Status;

    /// `GetFlowsResponse`: a flow is field 1, lost events are field 3 with their number in field 2.
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<(u64, u64)>, Status> {
        let first = buffer.chunk().first().copied();
        if first == Some(0x0a) {
            buffer.advance(buffer.remaining());
            return Ok(Some((1, 0)));
        }
        let message = buffer.copy_to_bytes(buffer.remaining());
        let lost = fields(&message).find(|(number, _)| *number == 3).map_or(0, |(_, lost)| number_of(lost));
        Ok(Some((0, lost)))
    }
}

/// Field 2 of a message of numbers.
fn number_of(mut message: &[u8]) -> u64 {
    while let (Some(tag), Some(value)) = (varint(&mut message), varint(&mut message)) {
        if tag == 2 << 3 {
            return value;
        }
    }
    0
}
