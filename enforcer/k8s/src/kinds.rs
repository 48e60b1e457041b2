//! The kinds that are watched: where the API serves them, and what it means when it does not.

use enforcer_core::manifest::Kind;
use kube::core::{ApiResource, GroupVersionKind};

/// A kind that is watched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Watched {
    /// Pods: the workloads.
    Pods,
    /// Objects that the core's manifests read.
    Objects(Kind),
}

/// What it means when the API server does not serve a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absence {
    /// Something is wrong with the server or the way to it.
    Fault,
    /// The definition was not installed: there is no object of the kind, and the operator should know.
    NotInstalled,
    /// The cluster does without.
    Fine,
}

impl Watched {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Pods,
        Self::Objects(Kind::Namespace),
        Self::Objects(Kind::Node),
        Self::Objects(Kind::Service),
        Self::Objects(Kind::EndpointSlice),
        Self::Objects(Kind::NetworkPolicy),
        Self::Objects(Kind::ClusterNetworkPolicy),
        Self::Objects(Kind::SegmentPolicy),
        Self::Objects(Kind::ClusterSegmentPolicy),
        Self::Objects(Kind::Tier),
        Self::Objects(Kind::ExternalNetwork),
    ];

    /// Its name in lists of resources.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Objects(Kind::Namespace) => "namespaces",
            Self::Objects(Kind::Node) => "nodes",
            Self::Objects(Kind::Service) => "services",
            Self::Objects(Kind::EndpointSlice) => "endpointslices",
            Self::Objects(Kind::NetworkPolicy) => "networkpolicies",
            Self::Objects(Kind::ClusterNetworkPolicy) => "clusternetworkpolicies",
            Self::Objects(Kind::SegmentPolicy) => "segmentpolicies",
            Self::Objects(Kind::ClusterSegmentPolicy) => "clustersegmentpolicies",
            Self::Objects(Kind::Tier) => "tiers",
            Self::Objects(Kind::ExternalNetwork) => "externalnetworks",
        }
    }

    /// What its absence means.
    pub const fn absence(self) -> Absence {
        match self {
            Self::Objects(Kind::ClusterNetworkPolicy) => Absence::Fine,
            Self::Objects(
                Kind::SegmentPolicy | Kind::ClusterSegmentPolicy | Kind::Tier | Kind::ExternalNetwork,
            ) => Absence::NotInstalled,
            _ => Absence::Fault,
        }
    }

    /// Group and version of its API, as objects have it.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Pods => "v1",
            Self::Objects(kind) => kind.written().0,
        }
    }

    /// What its objects are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pods => "Pod",
            Self::Objects(kind) => kind.written().1,
        }
    }

    /// Group of its API, empty for the core's.
    pub fn group(self) -> &'static str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }
}

/// The kind of objects of this name, if it is watched.
pub fn kind_of(name: &str) -> Option<Kind> {
    Watched::ALL.into_iter().find_map(|watched| match watched {
        Watched::Objects(kind) if kind.written().1 == name => Some(kind),
        _ => None,
    })
}

/// Where the API serves a kind of object.
pub fn resource(kind: Kind) -> ApiResource {
    let (api_version, name) = kind.written();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind_of_api = GroupVersionKind::gvk(group, version, name);
    ApiResource::from_gvk_with_plural(&kind_of_api, Watched::Objects(kind).plural())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_served_under_its_group_version_and_plural() {
        let place = |kind| {
            let resource = resource(kind);
            (resource.api_version, resource.kind, resource.plural)
        };
        let owned = |(a, b, c): (&str, &str, &str)| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(place(Kind::Service), owned(("v1", "Service", "services")));
        let policies =
            ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "clusternetworkpolicies");
        assert_eq!(place(Kind::ClusterNetworkPolicy), owned(policies));
        assert_eq!(Watched::Objects(Kind::Tier).group(), "enforcer.dev");
    }
}
