//! Nodes, services and slices as the API serves them in its binary form (Protocol Buffers): of these there are many, and most of
//! each says nothing to policy. What is not named here is skipped while it is read; the rest is written as a document, and the
//! core's manifests say what it means.
//!
//! Numbers of fields: `k8s.io/api/core/v1/generated.proto`, `k8s.io/api/discovery/v1/generated.proto` and
//! `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`. What the binary form writes empty, a document leaves out.

use std::collections::BTreeMap;

use enforcer_core::manifest::Kind;
use prost::Message;
use serde_json::{Value, json};

/// The one label of services that anybody asks for: it tells which are the cluster's resolvers.
pub const RESOLVER_LABEL: &str = "k8s-app";

/// An object that has a document's meaning.
pub(crate) trait Served {
    /// Its kind.
    const KIND: Kind;

    /// The object as its author would have written it.
    fn written(self) -> Value;
}

/// `meta.v1.ObjectMeta`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "6")]
    pub(crate) resource_version: String,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
}

/// `core.v1.Node`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<Metadata>,
    #[prost(message, optional, tag = "3")]
    status: Option<NodeStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeStatus {
    #[prost(message, repeated, tag = "5")]
    addresses: Vec<NodeAddress>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeAddress {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    address: String,
}

/// `core.v1.Service`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Service {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<ServiceSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<ServiceStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceSpec {
    #[prost(message, repeated, tag = "1")]
    ports: Vec<ServicePort>,
    #[prost(btree_map = "string, string", tag = "2")]
    selector: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    cluster_ip: String,
    #[prost(string, tag = "4")]
    kind: String,
    #[prost(string, repeated, tag = "5")]
    external_ips: Vec<String>,
    #[prost(string, tag = "10")]
    external_name: String,
    #[prost(string, tag = "11")]
    external_traffic_policy: String,
    #[prost(string, repeated, tag = "18")]
    cluster_ips: Vec<String>,
    #[prost(string, tag = "22")]
    internal_traffic_policy: String,
}

#[derive(Clone, PartialEq, Message)]
struct ServicePort {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    protocol: String,
    #[prost(int32, tag = "3")]
    port: i32,
    #[prost(int32, tag = "5")]
    node_port: i32,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceStatus {
    #[prost(message, optional, tag = "1")]
    load_balancer: Option<LoadBalancer>,
}

#[derive(Clone, PartialEq, Message)]
struct LoadBalancer {
    #[prost(message, repeated, tag = "1")]
    ingress: Vec<Ingress>,
}

#[derive(Clone, PartialEq, Message)]
struct Ingress {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(string, tag = "3")]
    ip_mode: String,
}

/// `discovery.v1.EndpointSlice`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EndpointSlice {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<Metadata>,
    #[prost(message, repeated, tag = "2")]
    endpoints: Vec<Endpoint>,
    #[prost(message, repeated, tag = "3")]
    ports: Vec<EndpointPort>,
    #[prost(string, tag = "4")]
    address_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct Endpoint {
    #[prost(string, repeated, tag = "1")]
    addresses: Vec<String>,
    #[prost(message, optional, tag = "2")]
    conditions: Option<Conditions>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Conditions {
    #[prost(bool, optional, tag = "1")]
    ready: Option<bool>,
    #[prost(bool, optional, tag = "2")]
    serving: Option<bool>,
    #[prost(bool, optional, tag = "3")]
    terminating: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointPort {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, tag = "2")]
    protocol: String,
    #[prost(int32, optional, tag = "3")]
    port: Option<i32>,
}

impl Served for Node {
    const KIND: Kind = Kind::Node;

    fn written(self) -> Value {
        let addresses = self.status.unwrap_or_default().addresses.into_iter();
        let addresses: Vec<Value> =
            addresses.map(|of| json!({"type": of.kind, "address": of.address})).collect();
        document(Self::KIND, self.metadata, [("status", json!({"addresses": addresses}))])
    }
}

impl Served for Service {
    const KIND: Kind = Kind::Service;

    fn written(self) -> Value {
        let mut metadata = self.metadata.unwrap_or_default();
        metadata.labels.retain(|key, _| key == RESOLVER_LABEL);
        let ingress = self.status.and_then(|status| status.load_balancer).unwrap_or_default().ingress;
        let ingress = ingress.into_iter().map(|of| json!({"ip": given(of.ip), "ipMode": given(of.ip_mode)}));
        let status = json!({"loadBalancer": {"ingress": ingress.collect::<Vec<_>>()}});
        let spec = self.spec.unwrap_or_default();
        let ports = spec.ports.into_iter().map(|of| {
            json!({"name": given(of.name), "protocol": given(of.protocol), "port": of.port, "nodePort": of.node_port})
        });
        let spec = json!({
            "type": given(spec.kind), "externalName": given(spec.external_name), "selector": spec.selector,
            "clusterIP": given(spec.cluster_ip), "clusterIPs": some(spec.cluster_ips),
            "externalIPs": spec.external_ips, "ports": ports.collect::<Vec<_>>(),
            "internalTrafficPolicy": given(spec.internal_traffic_policy),
            "externalTrafficPolicy": given(spec.external_traffic_policy),
        });
        document(Self::KIND, Some(metadata), [("spec", spec), ("status", status)])
    }
}

impl Served for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn written(self) -> Value {
        let endpoints = self.endpoints.into_iter().map(|of| {
            let conditions = of.conditions.map(|Conditions { ready, serving, terminating }| {
                json!({"ready": ready, "serving": serving, "terminating": terminating})
            });
            json!({"addresses": of.addresses, "conditions": conditions})
        });
        let ports = self.ports.into_iter();
        let ports = ports.map(|of| json!({"name": of.name, "protocol": given(of.protocol), "port": of.port}));
        let parts = [
            ("endpoints", endpoints.collect::<Vec<_>>().into()),
            ("ports", ports.collect::<Vec<_>>().into()),
            ("addressType", self.address_type.into()),
        ];
        document(Self::KIND, self.metadata, parts)
    }
}

/// A document of these parts.
fn document<const N: usize>(kind: Kind, metadata: Option<Metadata>, parts: [(&str, Value); N]) -> Value {
    let (api_version, name) = kind.written();
    let metadata = metadata.unwrap_or_default();
    let mut document = json!({"apiVersion": api_version, "kind": name, "metadata": {
        "name": given(metadata.name), "namespace": given(metadata.namespace), "labels": metadata.labels,
    }});
    for (key, part) in parts {
        document[key] = part;
    }
    document
}

fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn some(texts: Vec<String>) -> Option<Vec<String>> {
    Some(texts).filter(|texts| !texts.is_empty())
}

#[cfg(test)]
mod tests;
