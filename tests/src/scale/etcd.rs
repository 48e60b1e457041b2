//! Objects written straight into etcd, many at once, as an API server would have left them there: an API server that starts
//! afterwards has them all. Knows of etcd's API (`etcdserverpb.KV/Txn`) what this takes, and reads nothing.

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
}

#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Done {
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

/// Writes all of them; the runtime's thread is in etcd's network. Returns how many there were.
///
/// # Errors
/// When etcd cannot be reached or refuses one.
pub(super) async fn fill(address: &str, objects: impl Iterator<Item = Kept>) -> Result<usize> {
    let channel = Endpoint::from_shared(address.to_owned())?.connect().await;
    let mut client = Grpc::new(channel.context("failed to reach etcd")?);
    let mut objects = objects.map(operation).peekable();
    let mut count = 0;
    while objects.peek().is_some() {
        let success: Vec<Operation> = objects.by_ref().take(BATCH).collect();
        count += success.len();
        commit(&mut client, Txn { success }).await?;
    }
    Ok(count)
}

async fn commit(client: &mut Grpc<Channel>, txn: Txn) -> Result<()> {
    client.ready().await.context("failed to reach etcd")?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Txn");
    let codec = ProstCodec::<Txn, Done>::default();
    let done = client.unary(Request::new(txn), path, codec).await.context("etcd refused objects")?;
    anyhow::ensure!(done.into_inner().succeeded, "etcd did not write objects");
    Ok(())
}

fn operation((key, value): Kept) -> Operation {
    let (key, value) = (format!("{REGISTRY}{key}").into_bytes(), value.to_string().into_bytes());
    Operation { put: Some(Put { key, value }) }
}
