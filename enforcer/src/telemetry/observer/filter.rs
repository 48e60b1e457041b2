//! Which flows a client wants: the filters of a request, compiled once and asked of every flow. Owns their meaning, which
//! is Hubble's: values of a field are alternatives, fields of a filter must all hold, filters of a list are alternatives,
//! and what the second list wants is left out of what the first one wants. A field about something this agent never
//! sees (HTTP, traces, interfaces) matches no flow; a value that cannot be read is refused with its place.

mod labels;
mod names;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::IpNet;
use prost::Message as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use regex::Regex;

use super::wire::flow::{self as wire, Endpoint, Flow, FlowFilter, Service, layer4, layer7};
use labels::Labels;

/// Fields of a filter that are known here, by the numbers of `proto/flow/flow.proto`: these and [`EXPERIMENTAL`].
const KNOWN: RangeInclusive<u32> = 1..=40;
/// The field of a filter that holds what is not settled yet.
const EXPERIMENTAL: u32 = 999;

/// A filter that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Refused {
    /// The field, as `whitelist[0].source_ip[1]`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The filters of a request.
#[derive(Default)]
pub struct Filters {
    wanted: Vec<Filter>,
    unwanted: Vec<Filter>,
}

/// One filter: tests that must all hold.
struct Filter(Vec<Test>);

type Test = Box<dyn Fn(&Flow) -> bool + Send + Sync>;

/// Gathers the tests of one filter.
struct Builder<'a> {
    place: &'a str,
    tests: Vec<Test>,
}

impl Filters {
    /// Compiles the filters of a request.
    ///
    /// # Errors
    /// When a value cannot be read, or a filter asks in a language that is not spoken here.
    pub fn new(whitelist: &[FlowFilter], blacklist: &[FlowFilter]) -> Result<Self, Refused> {
        let compile = |list: &[FlowFilter], name: &str| -> Result<Vec<Filter>, Refused> {
            let numbered = list.iter().enumerate();
            numbered.map(|(index, filter)| compile(filter, &format!("{name}[{index}]"))).collect()
        };
        Ok(Self { wanted: compile(whitelist, "whitelist")?, unwanted: compile(blacklist, "blacklist")? })
    }

    /// Reads the filters of a request from the wire and compiles them.
    ///
    /// # Errors
    /// As [`Self::new`], and when one has a field that is not known here: more would be sent than is asked for.
    pub fn read(whitelist: &[Vec<u8>], blacklist: &[Vec<u8>]) -> Result<Self, Refused> {
        let read = |list: &[Vec<u8>], name: &str| -> Result<Vec<FlowFilter>, Refused> {
            let numbered = list.iter().enumerate();
            numbered.map(|(index, octets)| decode(octets, &format!("{name}[{index}]"))).collect()
        };
        Self::new(&read(whitelist, "whitelist")?, &read(blacklist, "blacklist")?)
    }

    /// True when every flow is wanted.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }

    /// True when the flow is wanted.
    pub fn matches(&self, flow: &Flow) -> bool {
        let is_wanted = self.wanted.is_empty() || self.wanted.iter().any(|filter| filter.matches(flow));
        is_wanted && !self.unwanted.iter().any(|filter| filter.matches(flow))
    }
}

impl Filter {
    fn matches(&self, flow: &Flow) -> bool {
        self.0.iter().all(|test| test(flow))
    }
}

/// Reads one filter; refuses fields that are not known.
fn decode(octets: &[u8], place: &str) -> Result<FlowFilter, Refused> {
    let refused = |reason: String| Refused { field: place.to_owned(), reason };
    let unread = |error: prost::DecodeError| refused(error.to_string());
    let mut rest = octets;
    while !rest.is_empty() {
        let (field, wire_type) = decode_key(&mut rest).map_err(unread)?;
        if !KNOWN.contains(&field) && field != EXPERIMENTAL {
            return Err(refused(format!(
                "field {field} of a flow filter is not known here; this agent is older than the client"
            )));
        }
        skip_field(wire_type, field, &mut rest, DecodeContext::default()).map_err(unread)?;
    }
    FlowFilter::decode(octets).map_err(unread)
}

fn compile(filter: &FlowFilter, place: &str) -> Result<Filter, Refused> {
    let mut builder = Builder { place, tests: Vec::new() };
    builder.fate(filter)?;
    builder.source(filter)?;
    builder.destination(filter)?;
    builder.transport(filter)?;
    builder.node(filter)?;
    builder.application(filter)?;
    Ok(Filter(builder.tests))
}

impl Builder<'_> {
    fn fate(&mut self, filter: &FlowFilter) -> Result<(), Refused> {
        self.numbers("verdict", &filter.verdict, wire::Verdict::is_valid)?;
        self.is_one_of(&filter.verdict, |flow| Some(flow.verdict));
        self.numbers("traffic_direction", &filter.traffic_direction, wire::TrafficDirection::is_valid)?;
        self.is_one_of(&filter.traffic_direction, |flow| Some(flow.traffic_direction));
        self.is_one_of(&filter.drop_reason_desc, |flow| {
            (flow.verdict() == wire::Verdict::Dropped).then_some(flow.drop_reason_desc)
        });
        self.is_one_of(&filter.reply, |flow| flow.is_reply);
        self.is_one_of(&filter.encrypted, |_| Some(false));
        self.any(&filter.event_type, |flow, wanted| {
            flow.event_type.is_some_and(|kind| {
                let is_kind = wanted.r#type == 0 || wanted.r#type == kind.r#type;
                is_kind && (!wanted.match_sub_type || wanted.sub_type == kind.sub_type)
            })
        });
        let uuids = filter.uuid.clone();
        self.add(!uuids.is_empty(), move |flow| uuids.contains(&flow.uuid));
        Ok(())
    }

    fn source(&mut self, filter: &FlowFilter) -> Result<(), Refused> {
        self.addresses("source_ip", &filter.source_ip, |flow| Some(&flow.ip.as_ref()?.source))?;
        self.addresses("source_ip_xlated", &filter.source_ip_xlated, |_| None)?;
        self.named("source_pod", &filter.source_pod, |flow| pod(flow.source.as_ref()))?;
        self.named("source_service", &filter.source_service, |flow| service(flow.source_service.as_ref()))?;
        self.labels("source_label", &filter.source_label, |flow| flow.source.as_ref())?;
        self.fqdns("source_fqdn", &filter.source_fqdn, |flow| &flow.source_names)?;
        self.workloads(&filter.source_workload, |flow| flow.source.as_ref());
        self.is_one_of(&filter.source_identity, |flow| Some(flow.source.as_ref()?.identity));
        self.clusters("source_cluster_name", &filter.source_cluster_name, |flow| flow.source.as_ref())
    }

    fn destination(&mut self, filter: &FlowFilter) -> Result<(), Refused> {
        self.addresses("destination_ip", &filter.destination_ip, |flow| {
            Some(&flow.ip.as_ref()?.destination)
        })?;
        self.named("destination_pod", &filter.destination_pod, |flow| pod(flow.destination.as_ref()))?;
        self.named("destination_service", &filter.destination_service, |flow| {
            service(flow.destination_service.as_ref())
        })?;
        self.labels("destination_label", &filter.destination_label, |flow| flow.destination.as_ref())?;
        self.fqdns("destination_fqdn", &filter.destination_fqdn, |flow| &flow.destination_names)?;
        self.workloads(&filter.destination_workload, |flow| flow.destination.as_ref());
        self.is_one_of(&filter.destination_identity, |flow| Some(flow.destination.as_ref()?.identity));
        self.clusters("destination_cluster_name", &filter.destination_cluster_name, |flow| {
            flow.destination.as_ref()
        })
    }

    fn transport(&mut self, filter: &FlowFilter) -> Result<(), Refused> {
        let protocols = self.read("protocol", &filter.protocol, names::Protocol::from_str)?;
        self.add(!protocols.is_empty(), move |flow| protocols.iter().any(|protocol| protocol.is_of(flow)));
        self.ports("source_port", &filter.source_port, |(source, _)| source)?;
        self.ports("destination_port", &filter.destination_port, |(_, destination)| destination)?;
        self.numbers("ip_version", &filter.ip_version, wire::IpVersion::is_valid)?;
        self.is_one_of(&filter.ip_version, |flow| Some(flow.ip.as_ref()?.ip_version));
        self.any(&filter.tcp_flags, |flow, wanted| {
            tcp_flags(flow).is_some_and(|seen| names::has_flags(&seen, wanted))
        });
        Ok(())
    }

    fn node(&mut self, filter: &FlowFilter) -> Result<(), Refused> {
        let nodes = self.read("node_name", &filter.node_name, names::node)?;
        self.add(!nodes.is_empty(), move |flow| {
            let name = format!("{}/{}", super::convert::CLUSTER, flow.node_name);
            nodes.iter().any(|pattern| pattern.is_match(&name))
        });
        let selectors = self.read("node_labels", &filter.node_labels, Labels::from_str)?;
        self.add(!selectors.is_empty(), move |_| selectors.iter().any(|selector| selector.matches(&[])));
        let is_asked =
            !filter.interface.is_empty() || !filter.trace_id.is_empty() || !filter.ip_trace_id.is_empty();
        self.add(is_asked, |_| false);
        Ok(())
    }

    fn application(&mut self, filter: &FlowFilter) -> Result<(), Refused> {
        let queries = self.read("dns_query", &filter.dns_query, Regex::new)?;
        self.add(!queries.is_empty(), move |flow| {
            dns_query(flow).is_some_and(|name| queries.iter().any(|query| query.is_match(name)))
        });
        self.read("http_path", &filter.http_path, Regex::new)?;
        self.read("http_url", &filter.http_url, Regex::new)?;
        let is_http = !filter.http_path.is_empty()
            || !filter.http_url.is_empty()
            || !filter.http_status_code.is_empty()
            || !filter.http_method.is_empty()
            || !filter.http_header.is_empty();
        self.add(is_http, |_| false);
        match &filter.experimental {
            Some(experimental) if !experimental.cel_expression.is_empty() => {
                let reason = "CEL is not spoken here; say it with the other fields".to_owned();
                Err(Refused { field: format!("{}.experimental.cel_expression", self.place), reason })
            }
            _ => Ok(()),
        }
    }

    fn addresses(
        &mut self,
        field: &str,
        texts: &[String],
        of: impl Fn(&Flow) -> Option<&String> + Send + Sync + 'static,
    ) -> Result<(), Refused> {
        let networks = self.read(field, texts, network)?;
        self.add(!networks.is_empty(), move |flow| {
            let address = of(flow).and_then(|text| text.parse::<IpAddr>().ok());
            address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
        });
        Ok(())
    }

    /// Something that has a namespace and a name.
    fn named(
        &mut self,
        field: &str,
        texts: &[String],
        of: impl Fn(&Flow) -> Option<(&str, &str)> + Send + Sync + 'static,
    ) -> Result<(), Refused> {
        let wanted = self.read(field, texts, names::Named::from_str)?;
        self.add(!wanted.is_empty(), move |flow| {
            of(flow).is_some_and(|(namespace, name)| wanted.iter().any(|one| one.is(namespace, name)))
        });
        Ok(())
    }

    fn labels(
        &mut self,
        field: &str,
        texts: &[String],
        of: impl Fn(&Flow) -> Option<&Endpoint> + Send + Sync + 'static,
    ) -> Result<(), Refused> {
        let selectors = self.read(field, texts, Labels::from_str)?;
        self.add(!selectors.is_empty(), move |flow| {
            let labels = of(flow).map_or(&[][..], |endpoint| &endpoint.labels);
            selectors.iter().any(|selector| selector.matches(labels))
        });
        Ok(())
    }

    fn fqdns(
        &mut self,
        field: &str,
        texts: &[String],
        of: impl Fn(&Flow) -> &Vec<String> + Send + Sync + 'static,
    ) -> Result<(), Refused> {
        let patterns = self.read(field, texts, names::fqdn)?;
        self.add(!patterns.is_empty(), move |flow| {
            of(flow).iter().any(|name| patterns.iter().any(|pattern| pattern.is_match(name)))
        });
        Ok(())
    }

    fn workloads(
        &mut self,
        wanted: &[wire::Workload],
        of: impl Fn(&Flow) -> Option<&Endpoint> + Send + Sync + 'static,
    ) {
        self.any(wanted, move |flow, wanted| {
            let is_it = |workload: &wire::Workload| {
                (wanted.name.is_empty() || wanted.name == workload.name)
                    && (wanted.kind.is_empty() || wanted.kind == workload.kind)
            };
            of(flow).is_some_and(|endpoint| endpoint.workloads.iter().any(is_it))
        });
    }

    fn clusters(
        &mut self,
        field: &str,
        texts: &[String],
        of: impl Fn(&Flow) -> Option<&Endpoint> + Send + Sync + 'static,
    ) -> Result<(), Refused> {
        let clusters = self.read(field, texts, names::not_empty)?;
        self.add(!clusters.is_empty(), move |flow| {
            of(flow).is_some_and(|endpoint| clusters.contains(&endpoint.cluster_name))
        });
        Ok(())
    }

    fn ports(&mut self, field: &str, texts: &[String], of: fn((u32, u32)) -> u32) -> Result<(), Refused> {
        let ports = self.read(field, texts, |text| text.parse::<u16>())?;
        self.add(!ports.is_empty(), move |flow| {
            ports_of(flow).is_some_and(|both| ports.iter().any(|port| u32::from(*port) == of(both)))
        });
        Ok(())
    }

    /// Refuses numbers of an enumeration that mean nothing.
    fn numbers(&self, field: &str, numbers: &[i32], is_known: fn(i32) -> bool) -> Result<(), Refused> {
        match numbers.iter().position(|number| !is_known(*number)) {
            None => Ok(()),
            Some(index) => Err(self.refused(field, index, format!("{} is not known", numbers[index]))),
        }
    }

    /// Reads every text of a field.
    fn read<T, E: Display>(
        &self,
        field: &str,
        texts: &[String],
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, Refused> {
        let numbered = texts.iter().enumerate();
        let read = |(index, text): (usize, &String)| {
            read(text).map_err(|error| self.refused(field, index, format!("{text:?}: {error}")))
        };
        numbered.map(read).collect()
    }

    fn refused(&self, field: &str, index: usize, reason: String) -> Refused {
        Refused { field: format!("{}.{field}[{index}]", self.place), reason }
    }

    fn is_one_of<T: PartialEq + Copy + Send + Sync + 'static>(
        &mut self,
        wanted: &[T],
        of: impl Fn(&Flow) -> Option<T> + Send + Sync + 'static,
    ) {
        self.any(wanted, move |flow, wanted| of(flow) == Some(*wanted));
    }

    /// Asks for one of several values, where there are any.
    fn any<T: Clone + Send + Sync + 'static>(
        &mut self,
        wanted: &[T],
        is_it: impl Fn(&Flow, &T) -> bool + Send + Sync + 'static,
    ) {
        let wanted = wanted.to_vec();
        self.add(!wanted.is_empty(), move |flow| wanted.iter().any(|wanted| is_it(flow, wanted)));
    }

    fn add(&mut self, is_asked: bool, test: impl Fn(&Flow) -> bool + Send + Sync + 'static) {
        if is_asked {
            self.tests.push(Box::new(test));
        }
    }
}

/// An address or a prefix.
fn network(text: &str) -> Result<IpNet, &'static str> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "neither an address nor a prefix like 10.0.0.0/8")
}

/// Source and destination port of a flow that has them.
fn ports_of(flow: &Flow) -> Option<(u32, u32)> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        layer4::Protocol::Tcp(tcp) => Some((tcp.source_port, tcp.destination_port)),
        layer4::Protocol::Udp(udp) => Some((udp.source_port, udp.destination_port)),
        layer4::Protocol::Sctp(sctp) => Some((sctp.source_port, sctp.destination_port)),
        layer4::Protocol::IcmPv4(_) | layer4::Protocol::IcmPv6(_) => None,
    }
}

fn tcp_flags(flow: &Flow) -> Option<wire::TcpFlags> {
    match flow.l4.as_ref()?.protocol.as_ref()? {
        layer4::Protocol::Tcp(tcp) => tcp.flags,
        _ => None,
    }
}

fn dns_query(flow: &Flow) -> Option<&str> {
    let layer7::Record::Dns(dns) = flow.l7.as_ref()?.record.as_ref()?;
    Some(&dns.query)
}

/// The pod of an endpoint, where it is one.
fn pod(endpoint: Option<&Endpoint>) -> Option<(&str, &str)> {
    let endpoint = endpoint.filter(|endpoint| !endpoint.pod_name.is_empty())?;
    Some((&endpoint.namespace, &endpoint.pod_name))
}

fn service(service: Option<&Service>) -> Option<(&str, &str)> {
    service.map(|service| (service.namespace.as_str(), service.name.as_str()))
}
