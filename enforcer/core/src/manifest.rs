//! Manifests: objects as their authors write them, and how each becomes a value of the model or is refused
//! whole. Owns the accepted fields of every kind; never opens a file or knows YAML.
//!
//! A source reads one document as a [`Header`], asks [`Kind::of`] what it is, reads it again with
//! [`Kind::read`] (so that its own parser locates errors), and calls [`Manifest::validate`].
//! [`read_value`] does all of it where no source location is wanted.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::object;
use crate::policy::{Policy, Tier};
use crate::refusal::{ObjectRef, Refusal};

pub use cluster::NodeStatus;
pub use cluster_network::ClusterNetworkPolicySpec;
pub use external_network::ExternalNetworkSpec;
pub use metadata::Metadata;
pub use network::NetworkPolicySpec;
pub use segment::{ClusterSegmentPolicySpec, SegmentPolicySpec};
pub use service::{EndpointSliceDocument, ServiceSpec, ServiceStatus};
pub(crate) use stage::{REMOVES, REPLACES, annotation};
pub use tier::TierSpec;

mod cluster;
mod cluster_network;
mod cluster_network_rules;
mod external_network;
mod metadata;
mod network;
mod ports;
mod report;
mod scalar;
mod segment;
mod segment_peers;
mod segment_rules;
mod selector;
mod service;
mod stage;
mod tier;

/// What a document says it is. Other fields are not looked at.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Group and version.
    #[serde(default)]
    pub api_version: String,
    /// Kind.
    #[serde(default)]
    pub kind: String,
    /// Name and namespace.
    #[serde(default)]
    pub metadata: Option<HeaderMetadata>,
}

/// Name and namespace of a document.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
pub struct HeaderMetadata {
    /// Name.
    #[serde(default)]
    pub name: Option<String>,
    /// Namespace.
    #[serde(default)]
    pub namespace: Option<String>,
}

impl Header {
    /// The object of this header, for a refusal.
    pub fn object(&self) -> ObjectRef {
        let metadata = self.metadata.clone().unwrap_or_default();
        ObjectRef {
            kind: self.kind.clone(),
            namespace: metadata.namespace,
            name: metadata.name.unwrap_or_default(),
        }
    }
}

/// The kinds that are understood.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Node.
    Node,
    /// `v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2` ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// `enforcer.dev/v1alpha1` SegmentPolicy.
    SegmentPolicy,
    /// `enforcer.dev/v1alpha1` ClusterSegmentPolicy.
    ClusterSegmentPolicy,
    /// `enforcer.dev/v1alpha1` Tier.
    Tier,
    /// `enforcer.dev/v1alpha1` ExternalNetwork.
    ExternalNetwork,
}

/// A kind that is not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "kind {kind:?} of apiVersion {api_version:?} is not supported by this version: it reads {}",
    Kind::list()
)]
pub struct UnknownKind {
    /// Group and version that were written.
    pub api_version: String,
    /// Kind that was written.
    pub kind: String,
}

impl Kind {
    const ALL: [(&'static str, &'static str, Self); 10] = [
        ("v1", "Namespace", Self::Namespace),
        ("v1", "Node", Self::Node),
        ("v1", "Service", Self::Service),
        ("discovery.k8s.io/v1", "EndpointSlice", Self::EndpointSlice),
        ("networking.k8s.io/v1", "NetworkPolicy", Self::NetworkPolicy),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", Self::ClusterNetworkPolicy),
        ("enforcer.dev/v1alpha1", "SegmentPolicy", Self::SegmentPolicy),
        ("enforcer.dev/v1alpha1", "ClusterSegmentPolicy", Self::ClusterSegmentPolicy),
        ("enforcer.dev/v1alpha1", "Tier", Self::Tier),
        ("enforcer.dev/v1alpha1", "ExternalNetwork", Self::ExternalNetwork),
    ];

    /// The kind of this group, version and name.
    ///
    /// # Errors
    /// [`UnknownKind`] lists the kinds that are understood.
    pub fn of(api_version: &str, kind: &str) -> Result<Self, UnknownKind> {
        let known = Self::ALL.iter().find(|(group, name, _)| *group == api_version && *name == kind);
        known
            .map(|(_, _, kind)| *kind)
            .ok_or_else(|| UnknownKind { api_version: api_version.to_owned(), kind: kind.to_owned() })
    }

    /// Its group and version, and its name, as documents write them.
    pub fn written(self) -> (&'static str, &'static str) {
        let known = Self::ALL.iter().find(|(_, _, kind)| *kind == self);
        known.map_or(("", ""), |(api_version, name, _)| (*api_version, *name))
    }

    /// Reads a document of this kind.
    ///
    /// # Errors
    /// Those of the deserializer: an unknown field, a value of the wrong type, or one that can mean nothing
    /// (a port above 65535, a CIDR that is none).
    pub fn read<'de, D: Deserializer<'de>>(self, document: D) -> Result<Manifest, D::Error> {
        Ok(match self {
            Self::Namespace => Manifest::Namespace(Deserialize::deserialize(document)?),
            Self::Node => Manifest::Node(Deserialize::deserialize(document)?),
            Self::Service => Manifest::Service(Deserialize::deserialize(document)?),
            Self::EndpointSlice => Manifest::EndpointSlice(Deserialize::deserialize(document)?),
            Self::NetworkPolicy => Manifest::NetworkPolicy(Deserialize::deserialize(document)?),
            Self::ClusterNetworkPolicy => Manifest::ClusterNetworkPolicy(Deserialize::deserialize(document)?),
            Self::SegmentPolicy => Manifest::SegmentPolicy(Deserialize::deserialize(document)?),
            Self::ClusterSegmentPolicy => Manifest::ClusterSegmentPolicy(Deserialize::deserialize(document)?),
            Self::Tier => Manifest::Tier(Deserialize::deserialize(document)?),
            Self::ExternalNetwork => Manifest::ExternalNetwork(Deserialize::deserialize(document)?),
        })
    }

    fn list() -> String {
        let each = Self::ALL.iter().map(|(group, name, _)| format!("{group} {name}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// A document of a known kind with the spec `S`. `status` is the server's; where no `T` is given it is not looked at.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Document<S, T: Default = IgnoredAny> {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name, namespace, labels.
    pub metadata: Metadata,
    /// What is wanted; `None` when it is not written.
    #[serde(default = "absent")]
    pub spec: Option<S>,
    /// What the server found.
    #[serde(default)]
    pub status: T,
}

fn absent<S>() -> Option<S> {
    None
}

impl<S, T: Default> Document<S, T> {
    fn object(&self) -> ObjectRef {
        object_of(&self.kind, &self.metadata)
    }
}

fn object_of(kind: &str, metadata: &Metadata) -> ObjectRef {
    ObjectRef {
        kind: kind.to_owned(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

/// An object as its author wrote it.
#[derive(Clone, PartialEq, Debug)]
pub enum Manifest {
    /// A namespace; its spec is not looked at.
    Namespace(Document<IgnoredAny>),
    /// A node; its spec is not looked at.
    Node(Document<IgnoredAny, NodeStatus>),
    /// A service.
    Service(Document<ServiceSpec, ServiceStatus>),
    /// A part of the endpoints of a service.
    EndpointSlice(EndpointSliceDocument),
    /// A NetworkPolicy.
    NetworkPolicy(Document<NetworkPolicySpec>),
    /// A ClusterNetworkPolicy.
    ClusterNetworkPolicy(Document<ClusterNetworkPolicySpec>),
    /// A SegmentPolicy.
    SegmentPolicy(Document<SegmentPolicySpec>),
    /// A ClusterSegmentPolicy.
    ClusterSegmentPolicy(Document<ClusterSegmentPolicySpec>),
    /// A Tier.
    Tier(Document<TierSpec>),
    /// An ExternalNetwork.
    ExternalNetwork(Document<ExternalNetworkSpec>),
}

/// A valid object.
#[derive(Clone, PartialEq, Debug)]
pub enum Object {
    /// A namespace.
    Namespace(object::Namespace),
    /// A node.
    Node(object::Node),
    /// A service.
    Service(object::Service),
    /// A part of the endpoints of a service.
    EndpointSlice(object::EndpointSlice),
    /// An external network.
    ExternalNetwork(object::ExternalNetwork),
    /// A policy of any kind.
    Policy(Arc<Policy>),
    /// A tier.
    Tier(Tier),
}

impl Manifest {
    /// Which object this is.
    pub fn object(&self) -> ObjectRef {
        match self {
            Self::Namespace(document) => document.object(),
            Self::Node(document) => document.object(),
            Self::Service(document) => document.object(),
            Self::EndpointSlice(document) => object_of(&document.kind, &document.metadata),
            Self::ExternalNetwork(document) => document.object(),
            Self::NetworkPolicy(document) => document.object(),
            Self::ClusterNetworkPolicy(document) => document.object(),
            Self::SegmentPolicy(document) => document.object(),
            Self::ClusterSegmentPolicy(document) => document.object(),
            Self::Tier(document) => document.object(),
        }
    }

    /// The valid object this manifest describes.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with the path of its field; nothing of it is to be applied then.
    pub fn validate(&self) -> Result<Object, Vec<Refusal>> {
        let policy = |policy: Policy| Object::Policy(policy.into());
        let mut report = report::Report::new(self.object());
        let object = match self {
            Self::Namespace(document) => metadata::namespace(document, &mut report).map(Object::Namespace),
            Self::Node(document) => cluster::node(document, &mut report).map(Object::Node),
            Self::Service(document) => service::service(document, &mut report).map(Object::Service),
            Self::EndpointSlice(document) => service::slice(document, &mut report).map(Object::EndpointSlice),
            Self::ExternalNetwork(document) => {
                external_network::network(document, &mut report).map(Object::ExternalNetwork)
            }
            Self::NetworkPolicy(document) => network::policy(document, &mut report).map(policy),
            Self::ClusterNetworkPolicy(document) => {
                cluster_network::policy(document, &mut report).map(policy)
            }
            Self::SegmentPolicy(document) => segment::policy(document, &mut report).map(policy),
            Self::ClusterSegmentPolicy(document) => {
                segment::cluster_policy(document, &mut report).map(policy)
            }
            Self::Tier(document) => tier::tier(document, &mut report).map(Object::Tier),
        };
        report.finish(object)
    }
}

/// Reads and validates one document.
///
/// # Errors
/// Everything that is wrong with it; a document that cannot be read at all has one refusal.
pub fn read_value(value: &serde_json::Value) -> Result<Object, Vec<Refusal>> {
    let header = Header::deserialize(value).unwrap_or(Header {
        api_version: String::new(),
        kind: String::new(),
        metadata: None,
    });
    let refuse = |field: String, reason: String| vec![Refusal { object: header.object(), field, reason }];
    let kind =
        Kind::of(&header.api_version, &header.kind).map_err(|e| refuse("kind".to_owned(), e.to_string()))?;
    let mut track = serde_path_to_error::Track::new();
    let document = serde_path_to_error::Deserializer::new(value, &mut track);
    match kind.read(document) {
        Ok(manifest) => manifest.validate(),
        Err(error) => Err(refuse(track.path().to_string(), error.to_string())),
    }
}

#[cfg(test)]
mod tests;
