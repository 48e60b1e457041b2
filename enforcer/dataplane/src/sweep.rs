//! Walks the flow tables: who is alive, who has ended. Deletes what has ended and hands its final counts over.
//! Owns when a flow is over for userspace; the kernel ends flows on its own as well and tells so by event.

use crate::sys::Store;
use enforcer_common::flow::{Flow, FlowKey, tcp};
use std::collections::BTreeSet;
use std::io;

/// Why a flow was taken out of its table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Both sides closed it, or one reset it.
    Closed,
    /// No packet for its idle time.
    Idle,
    /// Its workload is no longer enforced here.
    WorkloadGone,
}

/// What one walk found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sweep {
    /// Admitted flows that go on, counts so far.
    pub live: Vec<(FlowKey, Flow)>,
    /// Admitted flows that ended, final counts; they are out of the table.
    pub ended: Vec<(FlowKey, Flow, End)>,
    /// Refused flows that are still tried, counts so far.
    pub refused: Vec<(FlowKey, Flow)>,
    /// Refused flows nobody tries any more, final counts; they are out of the table.
    pub refused_ended: Vec<(FlowKey, Flow, End)>,
    /// Admitted flows that their full table evicted since this data plane was opened, as far as it is certain yet: nobody
    /// is told of their end.
    pub evicted: u64,
    /// The same of refused flows.
    pub refused_evicted: u64,
}

/// Flows that go on and flows that ended.
type Split = (Vec<(FlowKey, Flow)>, Vec<(FlowKey, Flow, End)>);

/// Flows that are looked at between two calls of `meanwhile`: about a tenth of a millisecond.
const STRIDE: usize = 1024;

/// Splits one table into live and ended flows and takes the ended ones out; calls `meanwhile` now and then, for a full
/// table takes longer than events may wait.
pub(crate) fn split(
    table: &Store<FlowKey, Flow>,
    endpoints: &BTreeSet<u32>,
    now_ns: u64,
    meanwhile: &mut dyn FnMut(),
) -> io::Result<Split> {
    let (mut live, mut over) = (Vec::new(), Vec::new());
    table.for_each(|key, flow| {
        match end(flow, endpoints, now_ns) {
            None => live.push((*key, *flow)),
            Some(end) => over.push((*key, end)),
        }
        if (live.len() + over.len()).is_multiple_of(STRIDE) {
            meanwhile();
        }
    })?;
    let mut ended = Vec::with_capacity(over.len());
    for (key, end) in over {
        if ended.len() % STRIDE == STRIDE - 1 {
            meanwhile();
        }
        // Counted to the last packet: what is taken out is what is reported.
        if let Some(flow) = table.take(&key)? {
            ended.push((key, flow, end));
        }
    }
    Ok((live, ended))
}

/// Whether a flow is over, and why.
fn end(flow: &Flow, endpoints: &BTreeSet<u32>, now_ns: u64) -> Option<End> {
    if !endpoints.contains(&flow.endpoint) {
        return Some(End::WorkloadGone);
    }
    let idle_ns = u64::from(flow.idle_seconds) * 1_000_000_000;
    let is_over = flow.last_seen.saturating_add(idle_ns) < now_ns;
    is_over.then_some(if tcp::is_closed(flow.tcp) { End::Closed } else { End::Idle })
}

#[cfg(test)]
mod tests {
    use super::{End, end};
    use enforcer_common::flow::{Count, Flow, tcp};
    use std::collections::BTreeSet;

    fn flow(tcp: u8) -> Flow {
        Flow {
            revision: 1,
            slot: 0,
            endpoint: 7,
            rule: 0,
            identity: 0,
            name_class: 0,
            port: 443,
            idle_seconds: tcp::idle_seconds(tcp),
            verdict: 1,
            reason: 1,
            direction: 1,
            tcp,
            flags: 0,
            tcp_flags: 0,
            padding: 0,
            epoch: 0,
            staged_rule: 0,
            staged_verdict: 0,
            staged_reason: 0,
            list: 0,
            started: 0,
            last_seen: 1_000_000_000,
            sent: Count::default(),
            received: Count::default(),
            cookie: 0,
        }
    }

    #[test]
    fn a_flow_ends_by_silence_by_closing_or_with_its_workload() {
        let known = BTreeSet::from([7]);
        let at = |seconds: u64| seconds * 1_000_000_000;
        assert_eq!(end(&flow(tcp::SAW_SYN), &known, at(121)), None);
        assert_eq!(end(&flow(tcp::SAW_SYN), &known, at(122)), Some(End::Idle));
        assert_eq!(end(&flow(tcp::RESET), &known, at(11)), None);
        assert_eq!(end(&flow(tcp::RESET), &known, at(12)), Some(End::Closed));
        assert_eq!(end(&flow(tcp::SAW_SYN), &BTreeSet::new(), at(1)), Some(End::WorkloadGone));
    }
}
