//! What is counted of DNS: queries by outcome, code and transport, latencies, and per workload what would show a tunnel.
//! Owns the sums, as many as there are workloads; never a message, never a clock.

mod distinct;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use foldhash::HashMap;

use super::numbers::ResponseCode;
use crate::protocol::Protocol;
use crate::record::dns::Outcome;
use distinct::Distinct;

/// Upper bounds of the latency buckets, nanoseconds; one more bucket has none.
pub const BOUNDS: [u64; 15] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
];

/// Seconds over which names are told apart.
pub const WINDOW: u32 = 60;

/// One query, or an answer that nobody asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen<'a> {
    /// Endpoint number of the workload.
    pub endpoint: u32,
    /// What became of it.
    pub outcome: Outcome,
    /// The server's code, where there is one.
    pub code: Option<ResponseCode>,
    /// UDP or TCP.
    pub protocol: Protocol,
    /// Nanoseconds from question to answer, where there were both.
    pub latency_ns: Option<u64>,
    /// Addresses opened.
    pub learned: u32,
    /// The name asked for, empty where it cannot be read.
    pub name: &'a str,
    /// Second of the monotonic clock.
    pub now: u32,
}

/// How long answers took.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Latencies {
    /// Answers by [`BOUNDS`], each counted once; the last bucket has no bound.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// Their sum, nanoseconds.
    pub sum_ns: u64,
}

/// Sums of one workload.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Workload {
    /// Queries, however they ended.
    pub queries: u64,
    /// Those that policy refused.
    pub refused: u64,
    /// Those that nobody answered.
    pub timeouts: u64,
    /// Those for names that are not there.
    pub missing: u64,
    window: Window,
}

/// What is seen of names within a minute, and was in the minute before.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct Window {
    began: u32,
    names: Distinct,
    entropy: u64,
    queries: u64,
    last: Hints,
}

/// What would show a tunnel, over the last whole minute.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Hints {
    /// Names that were told apart, estimated to about 7 %.
    pub distinct_names: u64,
    /// Mean entropy of the longest label of the names asked for, thousandths of a bit per octet.
    pub label_millibits: u64,
}

/// Everything counted since the agent began.
#[derive(Clone, Default, Debug)]
pub struct DnsTally {
    outcomes: [u64; Outcome::ALL.len()],
    codes: [u64; 16],
    streams: u64,
    learned: u64,
    latencies: Latencies,
    workloads: HashMap<u32, Workload>,
}

impl DnsTally {
    /// Counts one.
    pub fn count(&mut self, seen: &Seen<'_>) {
        self.outcomes[seen.outcome as usize] += 1;
        self.learned += u64::from(seen.learned);
        if let Some(code) = seen.code {
            self.codes[usize::from(code.0 & 15)] += 1;
        }
        if seen.outcome == Outcome::Unsolicited {
            return;
        }
        self.streams += u64::from(seen.protocol == Protocol::TCP);
        if let Some(latency) = seen.latency_ns {
            self.latencies.buckets[BOUNDS.partition_point(|bound| *bound < latency)] += 1;
            self.latencies.sum_ns += latency;
        }
        self.workloads.entry(seen.endpoint).or_default().count(seen);
    }

    /// Queries and strange answers by outcome; those that did not occur are left out.
    pub fn outcomes(&self) -> BTreeMap<Outcome, u64> {
        let counts = Outcome::ALL.into_iter().map(|outcome| (outcome, self.outcomes[outcome as usize]));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Answers by the server's code; those that did not occur are left out.
    pub fn codes(&self) -> BTreeMap<ResponseCode, u64> {
        let counts = (0..).map(ResponseCode).zip(self.codes);
        counts.filter(|(_, count)| *count > 0).collect()
    }

    /// Queries over TCP.
    pub fn streams(&self) -> u64 {
        self.streams
    }

    /// Addresses opened by answers.
    pub fn learned(&self) -> u64 {
        self.learned
    }

    /// How long answers took.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Sums by endpoint number of the workload.
    pub fn workloads(&self) -> impl Iterator<Item = (u32, &Workload)> {
        self.workloads.iter().map(|(endpoint, workload)| (*endpoint, workload))
    }

    /// Forgets workloads that are gone.
    pub fn retain(&mut self, is_there: impl Fn(u32) -> bool) {
        self.workloads.retain(|endpoint, _| is_there(*endpoint));
    }
}

impl Workload {
    fn count(&mut self, seen: &Seen<'_>) {
        self.queries += 1;
        self.refused += u64::from(seen.outcome == Outcome::Refused);
        self.timeouts += u64::from(seen.outcome == Outcome::Timeout);
        self.missing += u64::from(seen.code == Some(ResponseCode::NXDOMAIN));
        self.window.count(seen);
    }

    /// What would show a tunnel, as of a second of the monotonic clock.
    pub fn hints(&self, now: u32) -> Hints {
        self.window.hints(now)
    }
}

impl Window {
    fn count(&mut self, seen: &Seen<'_>) {
        let began = seen.now - seen.now % WINDOW;
        // An event may be told a little late; it belongs to the window that is open.
        if began > self.began {
            *self = Self { began, last: self.hints(began), ..Self::default() };
        }
        self.names.add(seen.name);
        self.entropy += entropy(longest_label(seen.name));
        self.queries += 1;
    }

    fn hints(&self, now: u32) -> Hints {
        match (now - now % WINDOW).saturating_sub(self.began) {
            0 => self.last,
            WINDOW => Hints {
                distinct_names: self.names.estimate(),
                label_millibits: self.entropy.checked_div(self.queries).unwrap_or(0),
            },
            _ => Hints::default(),
        }
    }
}

fn longest_label(name: &str) -> &str {
    name.split('.').max_by_key(|label| label.len()).unwrap_or_default()
}

/// Shannon's entropy of the octets of a label, thousandths of a bit per octet.
fn entropy(label: &str) -> u64 {
    let mut counts = [0_u8; 256];
    for octet in label.bytes() {
        counts[usize::from(octet)] = counts[usize::from(octet)].saturating_add(1);
    }
    // Each octet stands for its share of the sum, so that only the label is walked; most come once and add nothing.
    let repeated = label.bytes().map(|octet| counts[usize::from(octet)]).filter(|count| *count > 1);
    let repeated: f32 = repeated.map(|count| bits(count.into())).sum();
    let length = label.len() as f32;
    if label.is_empty() { 0 } else { ((bits(label.len()) - repeated / length).max(0.0) * 1000.0) as u64 }
}

/// Binary logarithm of the length of a label as text, of which most have no escapes and so at most 63 octets.
fn bits(number: usize) -> f32 {
    static TABLE: LazyLock<[f32; 64]> =
        LazyLock::new(|| std::array::from_fn(|number| (number as f32).log2()));
    TABLE.get(number).copied().unwrap_or_else(|| (number as f32).log2())
}

#[cfg(test)]
mod tests;
