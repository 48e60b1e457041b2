//! Service and EndpointSlice: where a service is reached, and who answers. Only what policy needs is read; they are not
//! ours to refuse for the rest. Never joins the two; the compiler does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::Document;
use super::cluster::parse;
use super::metadata::{Metadata, namespaced_name};
use super::report::Report;
use super::scalar::PortNumber;
use crate::fqdn::Pattern;
use crate::object::{Endpoint, EndpointPort, EndpointSlice, EndpointState, Service, ServicePort, SlicePart};
use crate::protocol::Protocol;

/// Label of an EndpointSlice that names its service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Spec of a service.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// `ExternalName` stands for another name; the others do not matter.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Which name that is.
    #[serde(default)]
    pub external_name: Option<String>,
    /// Labels of its pods; none when absent or empty.
    #[serde(default)]
    pub selector: Option<BTreeMap<String, String>>,
    /// Its first cluster address, `None` without one.
    #[serde(default, rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All its cluster addresses.
    #[serde(default, rename = "clusterIPs")]
    pub cluster_ips: Option<Vec<String>>,
    /// Addresses at which every node takes its traffic.
    #[serde(default, rename = "externalIPs")]
    pub external_ips: Option<Vec<String>>,
    /// Its ports.
    #[serde(default)]
    pub ports: Option<Vec<ServicePortSpec>>,
    /// `Local` when traffic of the cluster goes to endpoints of its own node only.
    #[serde(default)]
    pub internal_traffic_policy: Option<String>,
    /// `Local` when traffic from outside goes to endpoints of the node that took it only.
    #[serde(default)]
    pub external_traffic_policy: Option<String>,
}

/// A port of a service.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePortSpec {
    /// Its name; may be absent when there is but one.
    #[serde(default)]
    pub name: Option<String>,
    /// TCP when absent.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// The port.
    pub port: PortNumber,
    /// The port at nodes; none when absent or 0.
    #[serde(default)]
    pub node_port: Option<u16>,
}

/// Status of a service.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// What its load balancer is.
    #[serde(default)]
    pub load_balancer: Option<LoadBalancer>,
}

/// A load balancer.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
pub struct LoadBalancer {
    /// Where it takes traffic.
    #[serde(default)]
    pub ingress: Option<Vec<LoadBalancerIngress>>,
}

/// A place where a load balancer takes traffic.
#[derive(Clone, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerIngress {
    /// Its address; absent where it has a name.
    #[serde(default)]
    pub ip: Option<String>,
    /// `Proxy` when nodes leave this address to the load balancer; else they take its traffic themselves.
    #[serde(default)]
    pub ip_mode: Option<String>,
}

/// An EndpointSlice; it has no spec.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EndpointSliceDocument {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name, namespace, and the label that names the service.
    pub metadata: Metadata,
    /// `IPv4`, `IPv6`, or `FQDN`, whose endpoints are not looked at.
    pub address_type: String,
    /// The endpoints.
    #[serde(default)]
    pub endpoints: Option<Vec<EndpointSpec>>,
    /// The ports of each of them.
    #[serde(default)]
    pub ports: Option<Vec<EndpointPortSpec>>,
}

/// An endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct EndpointSpec {
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// What is known of it.
    #[serde(default)]
    pub conditions: Option<Conditions>,
}

/// What is known of an endpoint; what is absent is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
pub struct Conditions {
    /// Whether it is ready; unknown means that it is.
    #[serde(default)]
    pub ready: Option<bool>,
    /// Whether it answers, ending or not; unknown means that it does.
    #[serde(default)]
    pub serving: Option<bool>,
    /// Whether it ends; unknown means that it does not.
    #[serde(default)]
    pub terminating: Option<bool>,
}

/// A port of the endpoints of a slice.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct EndpointPortSpec {
    /// Name of the service's port.
    #[serde(default)]
    pub name: Option<String>,
    /// TCP when absent.
    #[serde(default)]
    pub protocol: Option<Protocol>,
    /// The port; absent where nothing is said of ports.
    #[serde(default)]
    pub port: Option<PortNumber>,
}

/// The valid service of a document.
pub(super) fn service(
    document: &Document<ServiceSpec, ServiceStatus>,
    report: &mut Report,
) -> Option<Service> {
    let (namespace, name) = namespaced_name(&document.metadata, report)?;
    let spec = document.spec.clone().unwrap_or_default();
    let labels = document.metadata.labels.clone();
    if spec.kind.as_deref() == Some("ExternalName") {
        let external_name = external_name(report.require("spec.externalName", &spec.external_name)?, report)?;
        let external_name = Some(external_name);
        return Some(Service { namespace, name, labels, external_name, ..Service::default() });
    }
    let is_local = [&spec.internal_traffic_policy, &spec.external_traffic_policy]
        .iter()
        .any(|policy| policy.as_deref() == Some("Local"));
    Some(Service {
        namespace,
        name,
        labels,
        addresses: cluster_addresses(&spec, report),
        external_addresses: external_addresses(&spec, &document.status, report),
        ports: service_ports(&spec, report),
        is_local,
        selector: spec.selector.unwrap_or_default(),
        external_name: None,
    })
}

fn cluster_addresses(spec: &ServiceSpec, report: &mut Report) -> Vec<IpAddr> {
    let written = match &spec.cluster_ips {
        Some(addresses) => addresses.iter().enumerate().map(|(i, a)| (format!("s[{i}]"), a)).collect(),
        None => spec.cluster_ip.iter().map(|address| (String::new(), address)).collect::<Vec<_>>(),
    };
    let given = written.into_iter().filter(|(_, address)| !matches!(address.as_str(), "" | "None"));
    given.filter_map(|(place, address)| parse(address, || format!("spec.clusterIP{place}"), report)).collect()
}

/// External addresses, and those of the load balancer that nodes take traffic of.
fn external_addresses(spec: &ServiceSpec, status: &ServiceStatus, report: &mut Report) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for (index, address) in spec.external_ips.iter().flatten().enumerate() {
        addresses.extend(parse(address, || format!("spec.externalIPs[{index}]"), report));
    }
    let ingress = status.load_balancer.iter().flat_map(|balancer| &balancer.ingress).flatten();
    for (index, place) in ingress.enumerate() {
        let taken =
            place.ip.iter().filter(|text| !text.is_empty() && place.ip_mode.as_deref() != Some("Proxy"));
        for address in taken {
            let path = || format!("status.loadBalancer.ingress[{index}].ip");
            addresses.extend(parse(address, path, report));
        }
    }
    addresses
}

fn service_ports(spec: &ServiceSpec, report: &mut Report) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = protocol(port.protocol, || format!("spec.ports[{index}].protocol"), report);
        ports.extend(protocol.map(|protocol| ServicePort {
            name: port.name.clone().unwrap_or_default(),
            protocol,
            port: port.port.0,
            node_port: port.node_port.filter(|port| *port != 0),
        }));
    }
    ports
}

/// The name that a service stands for.
fn external_name(text: &str, report: &mut Report) -> Option<Pattern> {
    let name = text.parse::<Pattern>().ok().filter(|name| !name.as_str().contains('*'));
    if name.is_none() {
        report.refuse("spec.externalName", format!("{text:?} is no DNS name"));
    }
    name
}

/// The valid slice of a document.
pub(super) fn slice(document: &EndpointSliceDocument, report: &mut Report) -> Option<EndpointSlice> {
    let (namespace, name) = namespaced_name(&document.metadata, report)?;
    let mut part = SlicePart::default();
    if document.address_type != "FQDN" {
        for (index, endpoint) in document.endpoints.iter().flatten().enumerate() {
            let mut addresses = Vec::new();
            for (place, address) in endpoint.addresses.iter().enumerate() {
                let path = || format!("endpoints[{index}].addresses[{place}]");
                addresses.extend(parse(address, path, report));
            }
            part.endpoints
                .push(Endpoint { addresses, state: state(endpoint.conditions.unwrap_or_default()) });
        }
        for (index, port) in document.ports.iter().flatten().enumerate() {
            let Some(number) = port.port else { continue };
            let protocol = protocol(port.protocol, || format!("ports[{index}].protocol"), report);
            let name = port.name.clone().unwrap_or_default();
            part.ports.extend(protocol.map(|protocol| EndpointPort { name, protocol, port: number.0 }));
        }
    }
    let service = document.metadata.labels.get(SERVICE_LABEL).cloned();
    Some(EndpointSlice { namespace, name, service, part })
}

/// Whether an endpoint is sent anything, as kube-proxy sees it (Kubernetes enhancement proposal 1669).
fn state(conditions: Conditions) -> EndpointState {
    let Conditions { ready, serving, terminating } = conditions;
    match (ready.unwrap_or(true), serving.unwrap_or(true), terminating.unwrap_or(false)) {
        (true, _, _) => EndpointState::Ready,
        (false, true, true) => EndpointState::Ending,
        _ => EndpointState::Away,
    }
}

/// A protocol that services have.
fn protocol(
    written: Option<Protocol>,
    path: impl FnOnce() -> String,
    report: &mut Report,
) -> Option<Protocol> {
    let protocol = written.unwrap_or(Protocol::TCP);
    if !protocol.has_ports() {
        report.refuse(path(), format!("is {protocol}: a service knows TCP, UDP and SCTP"));
        return None;
    }
    Some(protocol)
}
