//! How much every rule decided about, and would decide about were all staged policy enforced: packets, bytes and flows by
//! workload and rule, from the kernel's own counts. A flow's counts belong to the rule that decided about it last. Owns
//! the sums; never what a rule number means.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_common::flow::{Flow, tcp};
use enforcer_core::plan::RuleInfo;
use enforcer_core::record::Count;
use enforcer_dataplane::Sweep;

use crate::api::rules::Total;

/// Every live flow is summed at every walk.
type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// What decided about a flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Decider {
    /// Endpoint number of the workload.
    pub endpoint: u32,
    /// A [`enforcer_common::decide::Direction`] as its number.
    pub direction: u8,
    /// A [`enforcer_common::verdict::Reason`] as its number.
    pub reason: u8,
    /// Rule number, 0 where none decided.
    pub rule: u32,
}

/// A kind of flows of a workload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fate {
    /// Endpoint number of the workload.
    pub endpoint: u32,
    /// A [`enforcer_common::decide::Direction`] as its number.
    pub direction: u8,
    /// A [`enforcer_common::verdict::Verdict`] as its number.
    pub verdict: u8,
}

/// The sums of one node. As many as there are workloads and rules that decided, no more.
#[derive(Debug, Default)]
pub struct Tally {
    ended: Sums,
    live: Sums,
    former: HashMap<u32, Total>,
}

/// Flows summed by what decided, by what would have, and by what became of them.
#[derive(Debug, Default)]
struct Sums {
    decided: HashMap<Decider, Total>,
    previewed: HashMap<Decider, Total>,
    fates: HashMap<Fate, Total>,
}

impl Total {
    /// Adds another total.
    pub fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        for (own, more) in [(&mut self.sent, &other.sent), (&mut self.received, &other.received)] {
            own.packets += more.packets;
            own.bytes += more.bytes;
        }
    }

    fn of(flow: &Flow) -> Self {
        let count =
            |count: enforcer_common::flow::Count| Count { packets: count.packets, bytes: count.bytes };
        Self { flows: 1, sent: count(flow.sent), received: count(flow.received) }
    }
}

impl Tally {
    /// Takes the final counts of a flow whose end the kernel told.
    pub fn end(&mut self, flow: &Flow) {
        self.ended.add(flow);
    }

    /// Takes what a walk over the flow tables found: final counts for good, the others until the next walk. A flow whose
    /// end was told is in neither: its counts came with the telling.
    pub fn sweep(&mut self, sweep: &Sweep) {
        let is_told = |flow: &Flow| flow.tcp & tcp::TOLD != 0;
        let ended = sweep.ended.iter().filter(|(_, flow, _)| !is_told(flow)).chain(&sweep.refused_ended);
        ended.for_each(|(_, flow, _)| self.ended.add(flow));
        self.live = Sums::default();
        let live = sweep.live.iter().filter(|(_, flow)| !is_told(flow)).chain(&sweep.refused);
        live.for_each(|(_, flow)| self.live.add(flow));
    }

    /// Goes over to another plan: what rules counted that no longer mean the same becomes their workload's former sum,
    /// and workloads that are gone are forgotten.
    pub fn renumber(
        &mut self,
        before: &BTreeMap<u32, RuleInfo>,
        after: &BTreeMap<u32, RuleInfo>,
        endpoints: &BTreeSet<u32>,
    ) {
        let stays =
            |rule: u32| rule == 0 || (before.get(&rule) == after.get(&rule) && after.contains_key(&rule));
        let former = &mut self.former;
        self.ended.decided.retain(|decider, total| {
            let stays = stays(decider.rule);
            if !stays {
                former.entry(decider.endpoint).or_default().add(total);
            }
            stays && endpoints.contains(&decider.endpoint)
        });
        let is_there = |decider: &Decider| stays(decider.rule) && endpoints.contains(&decider.endpoint);
        self.ended.previewed.retain(|decider, _| is_there(decider));
        former.retain(|endpoint, _| endpoints.contains(endpoint));
        self.ended.fates.retain(|fate, _| endpoints.contains(&fate.endpoint));
    }

    /// Everything counted for a workload by what decided, ended and live flows together.
    pub fn of(&self, endpoint: u32) -> BTreeMap<Decider, Total> {
        sum(self.ended.decided.iter().chain(&self.live.decided).filter(|(of, _)| of.endpoint == endpoint))
    }

    /// As [`Self::of`], by what would have decided were all staged policy enforced.
    pub fn previewed(&self, endpoint: u32) -> BTreeMap<Decider, Total> {
        sum(self.ended.previewed.iter().chain(&self.live.previewed).filter(|(of, _)| of.endpoint == endpoint))
    }

    /// Everything counted by workload, direction and verdict, whatever became of the rules.
    pub fn fates(&self) -> BTreeMap<Fate, Total> {
        sum(self.ended.fates.iter().chain(&self.live.fates))
    }

    /// What rules counted for a workload that are no longer there.
    pub fn former(&self, endpoint: u32) -> Total {
        self.former.get(&endpoint).copied().unwrap_or_default()
    }
}

impl Sums {
    fn add(&mut self, flow: &Flow) {
        let Flow { endpoint, direction, reason, rule, verdict, .. } = *flow;
        let one = Total::of(flow);
        self.decided.entry(Decider { endpoint, direction, reason, rule }).or_default().add(&one);
        self.fates.entry(Fate { endpoint, direction, verdict }).or_default().add(&one);
        // 0 where no staged policy concerns the workload.
        if flow.staged_verdict != 0 {
            let (reason, rule) = (flow.staged_reason, flow.staged_rule);
            self.previewed.entry(Decider { endpoint, direction, reason, rule }).or_default().add(&one);
        }
    }
}

/// Sums of ended and live flows together.
fn sum<'a, K: Copy + Ord + 'a>(all: impl Iterator<Item = (&'a K, &'a Total)>) -> BTreeMap<K, Total> {
    let mut totals: BTreeMap<K, Total> = BTreeMap::new();
    all.for_each(|(key, total)| totals.entry(*key).or_default().add(total));
    totals
}

#[cfg(test)]
mod tests {
    use enforcer_common::decide::Direction;
    use enforcer_dataplane::End;

    use super::*;
    use crate::testing::flow;

    fn packets(tally: &Tally) -> Vec<(u32, u64, u64)> {
        tally.of(100).iter().map(|(decider, total)| (decider.rule, total.flows, total.sent.packets)).collect()
    }

    fn info(name: &str) -> RuleInfo {
        RuleInfo::tier_default(name, Direction::Egress)
    }

    #[test]
    fn every_packet_is_counted_once() {
        let mut tally = Tally::default();
        let (key, one) = flow(|flow| flow.rule = 1);
        let told = flow(|flow| (flow.rule, flow.tcp) = (1, tcp::RESET | tcp::TOLD)).1;
        tally.end(&one);
        let sweep = Sweep {
            live: vec![(key, one), (key, told)],
            ended: vec![(key, one, End::Idle), (key, told, End::Closed)],
            refused: vec![(key, flow(|flow| flow.rule = 2).1)],
            refused_ended: vec![(key, flow(|flow| flow.rule = 2).1, End::Idle)],
            ..Sweep::default()
        };
        tally.sweep(&sweep);
        assert_eq!(packets(&tally), [(1, 3, 6), (2, 2, 4)]);
        tally.sweep(&Sweep::default());
        assert_eq!(packets(&tally), [(1, 2, 4), (2, 1, 2)], "live flows are those of the latest walk");
        assert!(tally.of(101).is_empty());
    }

    #[test]
    fn what_staged_policy_would_decide_is_counted_beside() {
        let mut tally = Tally::default();
        let verdict = enforcer_common::verdict::Verdict::Denied as u8;
        let staged = flow(|flow| (flow.rule, flow.staged_rule, flow.staged_verdict) = (1, 2, verdict));
        let plain = flow(|flow| flow.rule = 1);
        tally.end(&staged.1);
        tally.sweep(&Sweep { live: vec![staged, plain], ..Sweep::default() });
        let rules = |totals: BTreeMap<Decider, Total>| -> Vec<(u32, u64, u64)> {
            totals.iter().map(|(decider, total)| (decider.rule, total.flows, total.sent.packets)).collect()
        };
        assert_eq!(rules(tally.of(100)), [(1, 3, 6)]);
        assert_eq!(rules(tally.previewed(100)), [(2, 2, 4)]);
        tally.renumber(&BTreeMap::from([(2, info("a"))]), &BTreeMap::new(), &BTreeSet::from([100]));
        tally.sweep(&Sweep::default());
        assert_eq!(rules(tally.previewed(100)), [], "its rule is gone");
    }

    #[test]
    fn what_is_no_longer_the_same_rule_becomes_former() {
        let mut tally = Tally::default();
        for rule in [0, 1, 2, 3] {
            tally.end(&flow(|flow| flow.rule = rule).1);
        }
        let before = BTreeMap::from([(1, info("a")), (2, info("b")), (3, info("c"))]);
        let after = BTreeMap::from([(1, info("a")), (2, info("x"))]);
        tally.renumber(&before, &after, &BTreeSet::from([100]));
        assert_eq!(packets(&tally), [(0, 1, 2), (1, 1, 2)]);
        assert_eq!((tally.former(100).flows, tally.former(100).sent.packets), (2, 4));
        let fates: Vec<_> = tally.fates().into_values().map(|total| total.flows).collect();
        assert_eq!(fates, [4], "of one verdict, whatever became of the rules");
        tally.renumber(&after, &after, &BTreeSet::new());
        assert_eq!((packets(&tally), tally.former(100)), (Vec::new(), Total::default()));
    }
}
