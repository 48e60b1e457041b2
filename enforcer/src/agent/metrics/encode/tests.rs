//! Metrics are those that the reference lists, no more and no fewer.

use crate::api::dns::{DnsWorkload, LatencyBucket};
use crate::api::{AggregationStatus, FlowsStatus, MapStatus, WorkloadStatus};

use super::*;

#[test]
fn the_older_format_names_counters_by_their_suffix() {
    let text = "# HELP a_b Words. More.\n# TYPE a_b counter\n# UNIT a_b seconds\na_b_total{c=\"d\"} 1\n\
                # HELP a Words.\n# TYPE a gauge\na 2\n# EOF\n";
    let expected = "# HELP a_b_total Words. More.\n# TYPE a_b_total counter\na_b_total{c=\"d\"} 1\n\
                    # HELP a Words.\n# TYPE a gauge\na 2\n";
    assert_eq!(classic(text), expected);
}

#[test]
fn workloads_beyond_the_bound_are_summed() {
    let workload = |name: &str| WorkloadStatus { workload: name.to_owned(), ..Default::default() };
    let status = Status { workloads: ["a/x", "a/y", "b/z"].map(workload).into(), ..Status::default() };
    let total = |flows| Total { flows, ..Total::default() };
    let fate = Fate { endpoint: 1, direction: Direction::Egress as u8, verdict: Verdict::Denied as u8 };
    let fates = [("a/x", 1), ("a/y", 2), ("b/z", 4), ("gone/w", 8)];
    let fates = fates.map(|(name, flows)| (name.to_owned(), fate, total(flows)));
    let text = Snapshot::new(status, fates.into(), 2).text().expect("text");
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("enforcer_flows_total")).collect();
    let line = |namespace: &str, workload: &str, flows: u64| {
        format!(
            "enforcer_flows_total{{namespace=\"{namespace}\",workload=\"{workload}\",\
             direction=\"egress\",verdict=\"DENIED\"}} {flows}"
        )
    };
    assert_eq!(lines, [line("", "", 12), line("a", "x", 1), line("a", "y", 2)]);
}

/// A state in which there is something of everything.
fn everything() -> Snapshot {
    let one = |key: &str| BTreeMap::from([(key.to_owned(), 1_u64)]);
    let size = |key: &str| BTreeMap::from([(key.to_owned(), 1_usize)]);
    let mut status = Status {
        workloads: vec![WorkloadStatus { workload: "a/x".to_owned(), ..Default::default() }],
        maps: vec![MapStatus { name: "RULES".to_owned(), used: 1, capacity: 2 }],
        nri: Some(NriStatus::default()),
        drops: one("rule"),
        losses: one("events-ring-full"),
        exports: vec![ExportStatus {
            name: "otlp".to_owned(),
            spooled_octets: Some(1),
            ..Default::default()
        }],
        flows: FlowsStatus { aggregation: Some(AggregationStatus::default()), ..Default::default() },
        dns: DnsStatus {
            rcodes: one("NOERROR"),
            latency: vec![LatencyBucket { up_to_ns: None, count: 1 }],
            ..Default::default()
        },
        ..Status::default()
    };
    (status.policy.objects, status.policy.size) = (size("Tier"), size("rows"));
    status.policy.lists = [("pods".to_owned(), 1)].into();
    status.dns.workloads = vec![DnsWorkload {
        workload: "a/x".to_owned(),
        queries: 1,
        refused: 0,
        timeouts: 0,
        missing: 0,
        names_per_minute: 1,
        label_millibits: 1_000,
    }];
    let fate = Fate { endpoint: 1, direction: Direction::Egress as u8, verdict: Verdict::Denied as u8 };
    Snapshot::new(status, vec![("a/x".to_owned(), fate, Total::default())], 9)
}

/// Type and labels of every metric, by its name.
fn written() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let text = classic(&everything().text().expect("text"));
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut found: BTreeMap<_, _> =
        types.map(|(name, kind)| (name.to_owned(), (kind.to_owned(), BTreeSet::new()))).collect();
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = sample.split_once('{').map_or((sample, ""), |(name, rest)| (name, rest));
        let name = name.split(' ').next().unwrap_or_default();
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        let name = of_histogram.filter(|name| found.contains_key(*name)).unwrap_or(name);
        let (_, known) = found.get_mut(name).unwrap_or_else(|| panic!("{name} has no type"));
        let labels = labels.split_once('}').map_or("", |(labels, _)| labels).split(',');
        let names = labels.filter_map(|label| Some(label.split_once('=')?.0));
        known.extend(names.filter(|name| *name != "le").map(str::to_owned));
    }
    found
}

/// The same as the reference has it.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let quoted =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut found = BTreeMap::new();
    for row in include_str!("../../../../../docs/reference/metrics.md").lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, names, kind, labels, ..] = cells[..] else { continue };
        let names = quoted(names);
        // `…_refused_total` begins as the row's first name does.
        let beginning = names.first().and_then(|name| name.rsplitn(3, '_').nth(2)).unwrap_or_default();
        for name in &names {
            let of = (kind.to_owned(), quoted(labels).into_iter().collect());
            found.insert(name.replace('…', beginning), of);
        }
    }
    found
}

#[test]
fn metrics_are_those_of_the_reference() {
    assert_eq!(written(), documented());
}
