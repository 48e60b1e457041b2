//! The traffic: every workload tries every destination in both families, all workloads at once. Owns the attempts
//! and the search for the flow record of each.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use enforcer_tests::lab::Pod;
use enforcer_tests::{Agent, Family, Lab, Outcome, Record, client};

use crate::cast::{BARE, TARGETS, Target, WORKLOADS};

/// How long all records may take to arrive, from the end of the traffic.
const PATIENCE: Duration = Duration::from_secs(5);

/// One connect.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) workload: &'static str,
    pub(crate) target: Target,
    /// Where it went; `None` when the name could not be looked up.
    pub(crate) server: Option<SocketAddr>,
    pub(crate) outcome: Outcome,
}

/// All attempts, in the order of the cast.
pub(crate) fn all(lab: &Lab) -> Vec<Attempt> {
    std::thread::scope(|scope| {
        let threads = WORKLOADS.map(|workload| scope.spawn(move || of_one(lab.pod(workload), workload)));
        threads.into_iter().flat_map(|thread| thread.join().expect("an attempt never panics")).collect()
    })
}

/// The record that tells how each attempt was judged, at the same index.
pub(crate) fn records(agent: &Agent<'_>, attempts: &[Attempt]) -> Vec<Option<Record>> {
    let deadline = Instant::now() + PATIENCE;
    let find = |attempt: &Attempt| {
        let left = deadline.saturating_duration_since(Instant::now());
        agent.records().wait_within(left, |all| all.iter().find(|record| is_of(record, attempt)).cloned())
    };
    attempts.iter().map(find).collect()
}

/// One workload's attempts: one destination after another, both families at once; look up, then connect.
fn of_one(pod: &Pod, workload: &'static str) -> Vec<Attempt> {
    let both = |target| {
        std::thread::scope(|scope| {
            let threads = Family::BOTH.map(|family| {
                scope.spawn(move || pod.namespace.enter(|| attempt(pod, workload, target, family)))
            });
            threads.map(|thread| thread.join().expect("an attempt never panics"))
        })
    };
    TARGETS.into_iter().flat_map(both).collect()
}

fn attempt(pod: &Pod, workload: &'static str, target: Target, family: Family) -> Attempt {
    let address: Result<IpAddr, String> = match target.name {
        Some(name) => client::resolve_here(pod.resolver(), name, family)
            .map_err(|error| format!("{error:#}"))
            .and_then(|all| all.first().copied().ok_or_else(|| format!("{name} has no {family} address"))),
        None => Ok(BARE[usize::from(family == Family::V6)].parse().expect("an address")),
    };
    match address {
        Ok(address) => {
            let server = SocketAddr::new(address, target.port);
            let outcome = client::outcome(&client::connect_here(server));
            Attempt { workload, target, server: Some(server), outcome }
        }
        Err(error) => Attempt { workload, target, server: None, outcome: Outcome::Failed(error) },
    }
}

fn is_of(record: &Record, attempt: &Attempt) -> bool {
    let server =
        record.destination_address().map(|address| SocketAddr::new(address, record.destination_port()));
    ["admitted", "refused"].contains(&record.event())
        && server.is_some()
        && server == attempt.server
        && record.source() == format!("{0}/{0}", attempt.workload)
}
