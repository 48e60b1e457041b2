//! Objects written straight into etcd, many at once, as an API server would have left them there: an API server that starts
//! afterwards has them all. Knows of etcd's API (`etcdserverpb.KV`, `Txn` and `Compact`) what this takes, and reads nothing.

use anyhow::{Context, Result};
use prost::Message;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::objects::Kept;

/// Objects of one transaction. etcd is started with room for as many.
pub(super) const BATCH: usize = 500;
/// What API servers keep everything under.
const REGISTRY: &str = "/registry/";

#[derive(Clone, PartialEq, Message)]
struct Txn {
    #[prost(message, repeated, tag = "2")]
    success: Vec<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, optional, tag = "2")]
    put: Option<Put>,
    #[prost(message, optional, tag = "3")]
    delete: Option<Delete>,
}

#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Delete {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Done {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Header {
    #[prost(int64, tag = "3")]
    revision: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Compaction {
    #[prost(int64, tag = "1")]
    revision: i64,
    /// Returns once it is done, not only begun.
    #[prost(bool, tag = "2")]
    physical: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Compacted {}

/// Writes all of them; the runtime's thread is in etcd's network. Returns how many there were.
///
/// # Errors
/// When etcd cannot be reached or refuses one.
pub(super) async fn fill(address: &str, objects: impl Iterator<Item = Kept>) -> Result<usize> {
    let mut client = client(address).await?;
    let mut objects = objects.map(put).peekable();
    let mut count = 0;
    while objects.peek().is_some() {
        let success: Vec<Operation> = objects.by_ref().take(BATCH).collect();
        count += success.len();
        commit(&mut client, Txn { success }).await?;
    }
    Ok(count)
}

/// Writes objects, takes others away, and has etcd forget everything that was before.
///
/// # Errors
/// As [`fill`].
pub(super) async fn change(address: &str, written: Vec<Kept>, gone: &[String]) -> Result<()> {
    let mut client = client(address).await?;
    let success = written.into_iter().map(put).chain(gone.iter().map(|key| delete(key))).collect();
    let revision = commit(&mut client, Txn { success }).await?;
    client.ready().await.context("failed to reach etcd")?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Compact");
    let codec = ProstCodec::<Compaction, Compacted>::default();
    let compaction = Request::new(Compaction { revision, physical: true });
    client.unary(compaction, path, codec).await.context("etcd does not forget")?;
    Ok(())
}

async fn client(address: &str) -> Result<Grpc<Channel>> {
    let channel = Endpoint::from_shared(address.to_owned())?.connect().await;
    Ok(Grpc::new(channel.context("failed to reach etcd")?))
}

/// Returns the revision that it has made.
async fn commit(client: &mut Grpc<Channel>, txn: Txn) -> Result<i64> {
    client.ready().await.context("failed to reach etcd")?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Txn");
    let codec = ProstCodec::<Txn, Done>::default();
    let done = client.unary(Request::new(txn), path, codec).await.context("etcd refused objects")?;
    let done = done.into_inner();
    anyhow::ensure!(done.succeeded, "etcd did not write objects");
    Ok(done.header.context("etcd does not say its revision")?.revision)
}

fn put((key, value): Kept) -> Operation {
    let (key, value) = (place(&key), value.to_string().into_bytes());
    Operation { put: Some(Put { key, value }), delete: None }
}

fn delete(key: &str) -> Operation {
    Operation { put: None, delete: Some(Delete { key: place(key) }) }
}

fn place(key: &str) -> Vec<u8> {
    format!("{REGISTRY}{key}").into_bytes()
}
