//! Writes the agent's state as OpenMetrics text. Owns names, types and labels of metrics; counts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use enforcer_common::decide::Direction;
use enforcer_common::verdict::Verdict;
use enforcer_core::record::dns::Outcome;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::steady::Steady;
use crate::agent::tally::Fate;
use crate::api::Status;
use crate::api::dns::{DnsStatus, LearnedStatus};
use crate::api::export::ExportStatus;
use crate::api::nri::{NriPods, NriStatus};
use crate::api::rules::Total;
use crate::telemetry::export::counts::Place;

/// Labels of one value.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Everything that is told, as of one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    status: Status,
    /// Flows, their packets and their octets.
    flows: BTreeMap<Labels, [u64; 3]>,
    /// DNS queries: all, refused, unanswered, for names that are not there.
    queries: BTreeMap<Labels, [u64; 4]>,
    /// Workloads that are told apart.
    told_apart: BTreeSet<String>,
}

impl Snapshot {
    /// Takes a status and the flows of every workload; at most `workloads` of them are told apart.
    pub(super) fn new(status: Status, fates: Vec<(String, Fate, Total)>, workloads: usize) -> Self {
        let told_apart: BTreeSet<String> =
            status.workloads.iter().map(|workload| workload.workload.clone()).take(workloads).collect();
        let mut flows: BTreeMap<Labels, [u64; 3]> = BTreeMap::new();
        for (workload, fate, total) in fates {
            let mut labels = named(&told_apart, &workload);
            labels.push(("direction", direction(fate.direction).to_owned()));
            labels.push(("verdict", verdict(fate.verdict).to_owned()));
            let (sent, received) = (total.sent, total.received);
            let own = [total.flows, sent.packets + received.packets, sent.bytes + received.bytes];
            add(flows.entry(labels).or_default(), own);
        }
        let mut queries: BTreeMap<Labels, [u64; 4]> = BTreeMap::new();
        for one in &status.dns.workloads {
            let own = [one.queries, one.refused, one.timeouts, one.missing];
            add(queries.entry(named(&told_apart, &one.workload)).or_default(), own);
        }
        Self { status, flows, queries, told_apart }
    }

    /// Lets no counter fall.
    pub(super) fn steadied(mut self, flows: &mut Steady<3>, queries: &mut Steady<4>) -> Self {
        let is_there = |labels: &Labels| {
            let [(_, namespace), (_, name), ..] = &labels[..] else { return true };
            name.is_empty() || self.told_apart.contains(&format!("{namespace}/{name}"))
        };
        self.flows = flows.pass(self.flows, is_there);
        self.queries = queries.pass(self.queries, is_there);
        self
    }

    /// OpenMetrics text.
    pub(super) fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("enforcer");
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// OpenMetrics text as Prometheus' older text format 0.0.4: a counter's name has its suffix in its description too, and
/// there are neither units nor an end.
pub(super) fn classic(text: &str) -> String {
    let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
    let mut classic = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if is_counter(name) => {
                classic.push_str(&format!("# {kind} {name}_total {rest}"));
            }
            _ => classic.push_str(line),
        }
        classic.push('\n');
    }
    classic
}

/// `namespace` and `workload` of `namespace/name`; empty where it is not told apart.
fn named(told_apart: &BTreeSet<String>, workload: &str) -> Labels {
    let told = if told_apart.contains(workload) { workload } else { "/" };
    let (namespace, name) = told.split_once('/').unwrap_or(("", told));
    vec![("namespace", namespace.to_owned()), ("workload", name.to_owned())]
}

fn add<const N: usize>(sums: &mut [u64; N], more: [u64; N]) {
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

fn direction(number: u8) -> &'static str {
    if number == Direction::Ingress as u8 { "ingress" } else { "egress" }
}

fn verdict(number: u8) -> &'static str {
    Verdict::from_number(number).map_or("ERROR", Verdict::text)
}

/// Writes metrics one after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// Counters side by side: their names with what they tell, and the values of each label set in the same order.
    fn counted<const N: usize>(
        &mut self,
        told: [(&str, &str); N],
        values: &BTreeMap<Labels, [u64; N]>,
    ) -> fmt::Result {
        for (at, (name, help)) in told.into_iter().enumerate() {
            self.counters(name, help, values.iter().map(|(labels, sums)| (labels.clone(), sums[at])))?;
        }
        Ok(())
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        (name, unit): (&str, Option<&Unit>),
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges((name, None), help, [(NO_LABELS, value)])
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(NO_LABELS, value)])
    }
}

const NO_LABELS: Labels = Vec::new();

/// Values by one label.
fn by<'a>(
    label: &'static str,
    values: &'a BTreeMap<String, u64>,
) -> impl Iterator<Item = (Labels, u64)> + 'a {
    values.iter().map(move |(key, value)| (vec![(label, key.clone())], *value))
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut writer = Writer(encoder);
        self.agent(&mut writer)?;
        self.policy(&mut writer)?;
        self.kernel(&mut writer)?;
        self.flows(&mut writer)?;
        exports(&self.status.exports, &mut writer)?;
        dns(&self.status.dns, &self.status.learned, &mut writer)?;
        self.dns_workloads(&mut writer)
    }
}

impl Snapshot {
    fn agent(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let status = &self.status;
        let version = vec![("version", status.version.clone()), ("node", status.node.clone())];
        writer.gauges(("build", None), "Version of the agent and its node; always 1.", [(version, 1.0)])?;
        let started = status.started.as_millisecond() as f64 / 1_000.0;
        let name = ("start_time", Some(&Unit::Seconds));
        writer.gauges(name, "When the agent began, in Unix time.", [(NO_LABELS, started)])?;
        writer.gauge(
            "alarms",
            "What an operator must look at, see the status.",
            status.alarms.len() as f64,
        )?;
        let enforced = |wanted| status.workloads.iter().filter(|w| w.enforced == wanted).count() as f64;
        let workloads = [true, false].map(|is| (vec![("enforced", is.to_string())], enforced(is)));
        writer.gauges(("workloads", None), "Workloads of this node.", workloads)?;
        let help = "Interfaces that are denied until their pod is known.";
        writer.gauge("guarded_interfaces", help, status.guarded.len() as f64)?;
        status.nri.as_ref().map_or(Ok(()), |status| nri(status, writer))
    }

    fn policy(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let policy = &self.status.policy;
        writer.gauge("policy_revision", "Revision of the policy in force.", f64::from(policy.revision))?;
        writer.gauge(
            "policy_problems",
            "Objects of the source that are refused, or in force as they were before.",
            policy.problems.len() as f64,
        )?;
        let failed = f64::from(u8::from(policy.failure.is_some()));
        writer.gauge("policy_failed", "1 when the policy found last could not be put in force.", failed)?;
        let seconds = policy.apply_microseconds as f64 / 1e6;
        let name = ("policy_apply", Some(&Unit::Seconds));
        writer.gauges(name, "How long the last policy took to be in force.", [(NO_LABELS, seconds)])?;
        let sized = |sizes: &BTreeMap<String, usize>, label| -> Vec<(Labels, f64)> {
            sizes.iter().map(|(key, count)| (vec![(label, key.clone())], *count as f64)).collect()
        };
        writer.gauges(("policy_objects", None), "Objects in force.", sized(&policy.objects, "kind"))?;
        let help = "Lists of all objects of a kind that the API server was asked for.";
        writer.counters("source_lists", help, by("resource", &policy.lists))?;
        writer.gauges(("policy_size", None), "What the policy in force takes.", sized(&policy.size, "part"))
    }

    fn kernel(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let status = &self.status;
        let maps = |value: fn(&crate::api::MapStatus) -> u64| -> Vec<(Labels, f64)> {
            status.maps.iter().map(|map| (vec![("map", map.name.clone())], value(map) as f64)).collect()
        };
        writer.gauges(("map_entries", None), "Elements in a map of the kernel's.", maps(|map| map.used))?;
        let room = maps(|map| map.capacity);
        writer.gauges(("map_capacity", None), "Elements a map of the kernel's has room for.", room)?;
        writer.counters(
            "dropped_packets",
            "Packets dropped by the programs.",
            by("reason", &status.drops),
        )?;
        writer.counters("losses", "What was lost since the agent began.", by("kind", &status.losses))
    }

    fn flows(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let told = [
            ("flows", "Flows by workload, direction and verdict."),
            ("flow_packets", "Packets of those flows, in both directions."),
            ("flow_bytes", "Octets of those packets."),
        ];
        writer.counted(told, &self.flows)?;
        let ring = &self.status.flows;
        writer.counter("flow_records", "Flow records made.", ring.seen)?;
        let help = "Flow records that made room for others before anybody could ask for them again.";
        writer.counter("flow_records_overwritten", help, ring.overwritten)?;
        let Some(aggregation) = &ring.aggregation else { return Ok(()) };
        let help = "Flow records put together for the flow log and the exporters.";
        writer.counter("flow_records_aggregated", help, aggregation.records)?;
        writer.counter("flow_aggregates", "Aggregated records made of them.", aggregation.aggregates)?;
        let groups = [(Labels::new(), aggregation.groups as f64)];
        writer.gauges(("flow_aggregate_groups", None), "Groups of the interval that goes on.", groups)
    }

    fn dns_workloads(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let told_apart =
            self.status.dns.workloads.iter().filter(|one| self.told_apart.contains(&one.workload));
        let hints: Vec<(Labels, [f64; 2])> = told_apart
            .map(|one| {
                let entropy = one.label_millibits as f64 / 1_000.0;
                (named(&self.told_apart, &one.workload), [one.names_per_minute as f64, entropy])
            })
            .collect();
        let counted = [
            ("workload_dns_queries", "DNS queries of a workload."),
            ("workload_dns_refused", "DNS queries that policy refused."),
            ("workload_dns_timeouts", "DNS queries that nobody answered."),
            ("workload_dns_missing", "DNS queries for names that are not there."),
        ];
        writer.counted(counted, &self.queries)?;
        let told = [
            ("workload_dns_names", "Different names asked for within the last whole minute."),
            ("workload_dns_label_entropy", "Mean entropy of their longest labels, bits per octet."),
        ];
        for (at, (name, help)) in told.into_iter().enumerate() {
            writer.gauges(
                (name, None),
                help,
                hints.iter().map(|(labels, hints)| (labels.clone(), hints[at])),
            )?;
        }
        Ok(())
    }
}

fn nri(status: &NriStatus, writer: &mut Writer<'_>) -> fmt::Result {
    let help = "1 while the container runtime asks before it starts pods.";
    writer.gauge("nri_connected", help, f64::from(u8::from(status.connected)))?;
    let help = "Connections to the container runtime.";
    writer.counter("nri_connections", help, status.connections)?;
    let NriPods { enforced, refused, open } = status.pods;
    let pods = [("enforced", enforced), ("refused", refused), ("open", open)];
    let pods = pods.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count));
    writer.counters("nri_pods", "Pods that the container runtime asked about, by what became of them.", pods)
}

fn exports(exports: &[ExportStatus], writer: &mut Writer<'_>) -> fmt::Result {
    let of = |export: &ExportStatus| vec![("exporter", export.name.clone())];
    let records = exports.iter().flat_map(|export| {
        let labels = |place: &str| vec![("exporter", export.name.clone()), ("place", place.to_owned())];
        let count = |place: &str| export.records.get(place).copied().unwrap_or(0);
        Place::ALL.map(|place| (labels(place.text()), count(place.text())))
    });
    writer.counters("export_records", "What became of records to be exported, by place.", records)?;
    let retries = exports.iter().map(|export| (of(export), export.retries));
    writer.counters("export_retries", "Attempts to export that failed and were repeated.", retries)?;
    let gauges = |value: fn(&ExportStatus) -> Option<f64>| -> Vec<(Labels, f64)> {
        exports.iter().filter_map(|export| Some((of(export), value(export)?))).collect()
    };
    let waiting = gauges(|export| Some(export.waiting as f64));
    writer.gauges(("export_waiting_records", None), "Records that wait to be exported.", waiting)?;
    let spooled = gauges(|export| export.spooled_octets.map(|octets| octets as f64));
    writer.gauges(("export_spool", Some(&Unit::Bytes)), "What the spool of an exporter takes.", spooled)?;
    let away = gauges(|export| Some(f64::from(u8::from(export.away.is_some()))));
    writer.gauges(("export_away", None), "1 while nothing can be delivered.", away)
}

fn dns(dns: &DnsStatus, learned: &LearnedStatus, writer: &mut Writer<'_>) -> fmt::Result {
    let help = "DNS queries, and answers that nobody asked for, by outcome.";
    let outcomes = Outcome::ALL.map(|outcome| {
        let name = outcome.to_string();
        let count = dns.outcomes.get(&name).copied().unwrap_or(0);
        (vec![("outcome", name)], count)
    });
    writer.counters("dns_queries", help, outcomes)?;
    writer.counters("dns_responses", "DNS answers by the server's code.", by("rcode", &dns.rcodes))?;
    writer.counter("dns_tcp_queries", "DNS queries over TCP.", dns.over_tcp)?;
    writer.counter("dns_learned_addresses", "Addresses opened by answers.", dns.learned)?;
    writer.counter("dns_held_packets", "Packets held until the agent had read their answer.", dns.held)?;
    let evicted = [
        ("node", learned.evicted_by_node),
        ("workload", learned.evicted_by_workload),
        ("name", learned.evicted_by_name),
    ];
    let evicted = evicted.map(|(bound, count)| (vec![("bound", bound.to_owned())], count));
    writer.counters(
        "dns_evicted_addresses",
        "Addresses that made room for others, by the bound.",
        evicted,
    )?;
    let bound = |ns: Option<u64>| ns.map_or(f64::INFINITY, |ns| ns as f64 / 1e9);
    let buckets: Vec<(f64, u64)> = dns.latency.iter().map(|b| (bound(b.up_to_ns), b.count)).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    let sum = dns.latency_sum_ns as f64 / 1e9;
    let unit = Some(&Unit::Seconds);
    let help = "Time from a DNS question to its answer.";
    let mut metric = writer.0.encode_descriptor("dns_latency", help, unit, MetricType::Histogram)?;
    metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

#[cfg(test)]
mod tests;
