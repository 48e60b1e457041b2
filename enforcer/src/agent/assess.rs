//! What an operator is told: log lines when something begins or ends to be wrong, alarms while it is. Owns the
//! thresholds; never changes anything.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_dataplane::{Counters, Fill};

use super::resolve::Resolved;
use crate::api::nri::NriStatus;
use crate::source::problem::Problem;

/// Part of a map's room, in percent, from which it is an alarm.
pub const FULL_PERCENT: u64 = 90;
/// Maps that make room for the new by themselves: being full is how they work.
const SELF_CLEANING: [&str; 6] = ["LEARNED", "FLOWS", "REFUSALS", "QUESTIONS", "FRAGMENTS", "STREAMS"];

/// Logs the problems that are new, and says so when the last one is gone; returns how many are new.
pub fn tell_problems(before: &[Problem], after: &[Problem]) -> u64 {
    let known: BTreeSet<&Problem> = before.iter().collect();
    let mut new = 0;
    for problem in after.iter().filter(|problem| !known.contains(problem)) {
        tracing::error!("{problem}");
        new += 1;
    }
    if after.is_empty() && !before.is_empty() {
        tracing::info!("all objects are in order again");
    }
    new
}

/// Logs workloads that can no longer be found, and those that can again.
pub fn tell_workloads(before: &[Resolved], after: &[Resolved]) {
    let known: BTreeMap<_, _> = before.iter().map(|r| (&r.workload.id, r.problem.as_deref())).collect();
    for resolved in after {
        let id = &resolved.workload.id;
        match (known.get(id).copied().flatten(), resolved.problem.as_deref()) {
            (was, Some(problem)) if was != Some(problem) => {
                tracing::warn!(workload = %id, problem, "cannot be enforced as it is; looked for again");
            }
            (Some(_), None) => tracing::info!(workload = %id, "found"),
            _ => {}
        }
    }
}

/// Everything that was lost between two readings, by kind; kinds without loss too.
pub fn losses(before: &Counters, after: &Counters) -> BTreeMap<&'static str, u64> {
    [
        ("events-ring-full", before.ring_full, after.ring_full),
        ("refusal-events-suppressed", before.events_suppressed, after.events_suppressed),
        ("processes-untold", before.process_untold, after.process_untold),
        ("sockets-unjudged", before.socket_busy, after.socket_busy),
        ("flow-insert-failed", before.flow_insert_failed, after.flow_insert_failed),
        ("learn-failed", before.learn_failed, after.learn_failed),
        ("learn-displaced", before.learn_displaced, after.learn_displaced),
        ("question-insert-failed", before.question_insert_failed, after.question_insert_failed),
        ("fragment-insert-failed", before.fragment_insert_failed, after.fragment_insert_failed),
        ("dns-stream-lost", before.stream_lost, after.stream_lost),
        ("dns-unheld", before.dns_unheld, after.dns_unheld),
    ]
    .into_iter()
    .map(|(kind, before, after)| (kind, after.saturating_sub(before)))
    .collect()
}

/// Logs what was lost since the last reading.
pub fn tell_losses(before: &Counters, after: &Counters) {
    for (kind, lost) in losses(before, after).into_iter().filter(|(_, lost)| *lost > 0) {
        // Suppressed refusals are counted in their flows: a limit at work, nothing to act on.
        if kind == "refusal-events-suppressed" {
            tracing::debug!(kind, lost, "losses");
        } else {
            tracing::warn!(kind, lost, "{}", meaning(kind));
        }
    }
}

/// What a loss means, for whoever must act.
fn meaning(kind: &str) -> &'static str {
    match kind {
        "events-ring-full" => "the kernel could not tell every event; flow records are missing",
        "processes-untold" => {
            "the ring buffer is too full to tell of processes; their flow records do not name them"
        }
        "sockets-unjudged" => "connects were judged at the interface only: too many at once on a CPU",
        "flow-insert-failed" => "the flow table took no more; in mode enforce new flows were dropped",
        "learn-failed" => "addresses of DNS answers could not be learned; their flows are refused",
        "learn-displaced" => "an address had more name classes than there is room for; one made room early",
        "question-insert-failed" => "DNS questions could not be remembered; their answers open nothing",
        "dns-stream-lost" => "DNS messages over TCP were not read; what they answer opens nothing",
        "dns-unheld" => "parts of long DNS answers passed with nobody to read them; they open nothing",
        _ => "fragments could not be remembered; their packets were dropped",
    }
}

/// A container runtime that is to ask before pods start and could not be reached.
pub fn nri(status: &NriStatus) -> Option<String> {
    let NriStatus { connected, since, error, .. } = status;
    let is_away = !connected && error.is_some();
    is_away
        .then(|| format!("the container runtime does not ask before pods start, since {since:.0}, see NRI"))
}

/// Maps that are too full for comfort, as `MAP is N % full`.
pub fn full(fill: &[Fill]) -> BTreeMap<&'static str, String> {
    fill.iter()
        .filter(|fill| !SELF_CLEANING.contains(&fill.map))
        .filter_map(|fill| {
            let percent = fill.entries * 100 / fill.capacity.max(1);
            (percent >= FULL_PERCENT).then(|| (fill.map, format!("map {} is {percent} % full", fill.map)))
        })
        .collect()
}

/// Logs maps that became too full.
pub fn tell_fill(before: &[Fill], after: &[Fill]) {
    let known = full(before);
    for (map, text) in full(after) {
        if !known.contains_key(map) {
            tracing::error!("{text}; a policy that does not fit is refused whole");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_differences() {
        let before = Counters { ring_full: 5, learn_failed: 1, ..Counters::default() };
        let after = Counters { ring_full: 9, learn_failed: 1, ..Counters::default() };
        let lost: Vec<_> = losses(&before, &after).into_iter().filter(|(_, lost)| *lost > 0).collect();
        assert_eq!(lost, [("events-ring-full", 4)]);
    }

    #[test]
    fn a_map_that_cleans_itself_is_never_too_full() {
        let fill = |map, entries| Fill { map, entries, capacity: 100 };
        let alarms = full(&[fill("RULES", 90), fill("FLOWS", 100), fill("IDENTITIES", 89)]);
        assert_eq!(alarms, BTreeMap::from([("RULES", "map RULES is 90 % full".to_owned())]));
    }
}
