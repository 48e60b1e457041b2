//! Which policies make a plan large: named when it does not fit.

use enforcer_core::plan::{Plan, Row, RuleInfo};
use std::collections::{BTreeMap, BTreeSet};

/// How many are named.
const NAMED: usize = 3;

/// The policies that most rows are of, as `; most are of NetworkPolicy a/b (120), …`.
pub(crate) fn by_rows(plan: &Plan) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for info in rows(plan).filter_map(|row| plan.rules.get(&row.rule.rule)) {
        *counts.entry(object(info)).or_insert(0) += 1;
    }
    text(counts)
}

/// The policies that tell the addresses of most prefixes apart, as above.
pub(crate) fn by_prefixes(plan: &Plan) -> String {
    let mut prefixes: BTreeMap<u32, usize> = BTreeMap::new();
    plan.identities.values().for_each(|identity| *prefixes.entry(*identity).or_insert(0) += 1);
    let of = |row: &Row| Some((object(plan.rules.get(&row.rule.rule)?), row.peer));
    let named: BTreeSet<(String, u32)> = rows(plan).filter_map(of).collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (object, peer) in named {
        *counts.entry(object).or_insert(0) += prefixes.get(&peer).copied().unwrap_or(0);
    }
    text(counts)
}

fn rows(plan: &Plan) -> impl Iterator<Item = &Row> {
    plan.tables.iter().flat_map(|table| &table.stages).flatten()
}

fn object(info: &RuleInfo) -> String {
    let namespace = info.namespace.as_ref().map_or(String::new(), |namespace| format!("{namespace}/"));
    format!("{} {namespace}{}", info.kind.text(), info.name)
}

fn text(counts: BTreeMap<String, usize>) -> String {
    let mut counts: Vec<(String, usize)> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let named: Vec<String> =
        counts.iter().take(NAMED).map(|(object, count)| format!("{object} ({count})")).collect();
    if named.is_empty() { String::new() } else { format!("; most are of {}", named.join(", ")) }
}
