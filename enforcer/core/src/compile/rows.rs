//! Rows of one stage: rules come in by rank, the fewest rows in which the longest prefix is the best rank come out.

use std::collections::{BTreeMap, HashMap, HashSet};

use enforcer_common::policy::{ANY_PEER, LIST_PROTOCOL, LISTED, Rule};

use super::ports::PortPrefix;
use crate::plan::Row;

/// The rows of one stage under construction.
#[derive(Default, Debug)]
pub(super) struct Stage {
    peers: BTreeMap<u32, Flat>,
    /// Name classes that may be asked for, by class and number of the list.
    listed: BTreeMap<(u32, u16), Rule>,
}

/// The best rule of every prefix of one peer.
pub(super) type Flat = HashMap<PortPrefix, Rule>;

impl Stage {
    /// A stage in which this holds for every peer.
    pub(super) fn with_any(any: Flat) -> Self {
        Self { peers: BTreeMap::from([(ANY_PEER, any)]), listed: BTreeMap::new() }
    }

    /// Adds a rule for a peer. Rules must come in ascending rank.
    pub(super) fn add(&mut self, peer: u32, prefixes: &[PortPrefix], rule: Rule) {
        let flat = self.peers.entry(peer).or_default();
        for prefix in prefixes {
            flat.entry(*prefix).or_insert(rule);
        }
    }

    /// Puts a rule in place of whatever there is for a peer and prefix.
    pub(super) fn put(&mut self, peer: u32, prefix: PortPrefix, rule: Rule) {
        self.peers.entry(peer).or_default().insert(prefix, rule);
    }

    /// Lists a name class for the DNS queries that rules with this list admit.
    pub(super) fn list(&mut self, class: u32, rule: Rule) {
        self.listed.entry((class, rule.queries)).or_insert(Rule { action: LISTED, ..rule });
    }

    /// What holds for every peer.
    pub(super) fn into_any(mut self) -> Flat {
        self.peers.remove(&ANY_PEER).unwrap_or_default()
    }

    /// The sorted rows of all peers.
    pub(super) fn rows(&self) -> Vec<Row> {
        let listed = |(&(peer, port), &rule): (&(u32, u16), &Rule)| {
            let protocol = Some(LIST_PROTOCOL);
            Row { peer, protocol, port, port_bits: 16, rule }
        };
        let mut rows: Vec<Row> = self.peers.keys().flat_map(|peer| self.rows_of(*peer)).collect();
        rows.extend(self.listed.iter().map(listed));
        rows.sort_unstable();
        rows
    }

    /// The sorted rows of one peer. A row is left out when a wider one of the same peer, or one of every peer, that
    /// includes it has a better rank or is the same rule; and when narrower ones leave nothing of it.
    pub(super) fn rows_of(&self, peer: u32) -> Vec<Row> {
        let Some(flat) = self.peers.get(&peer) else { return Vec::new() };
        let any = self.peers.get(&ANY_PEER).filter(|_| peer != ANY_PEER);
        let matters = |(prefix, rule): &(&PortPrefix, &Rule)| {
            let wider = prefix.wider();
            !wider.is_some_and(|wider| is_outdone(wider, rule, flat))
                && !any.is_some_and(|any| is_outdone(**prefix, rule, any))
        };
        let kept: Flat = flat.iter().filter(matters).map(|(prefix, rule)| (*prefix, *rule)).collect();
        let row =
            |(PortPrefix { protocol, port, bits }, rule)| Row { peer, protocol, port, port_bits: bits, rule };
        let mut rows: Vec<Row> = join(kept).into_iter().map(row).collect();
        rows.sort_unstable();
        rows
    }
}

/// True when `prefix`, or one that includes it, has a better rank than `rule`, or is of the same rule.
fn is_outdone(prefix: PortPrefix, rule: &Rule, flat: &Flat) -> bool {
    let mut including = std::iter::successors(Some(prefix), |prefix| prefix.wider());
    including.any(|prefix| flat.get(&prefix).is_some_and(|other| other.rank <= rule.rank))
}

/// Puts halves of the same rule together and leaves out what narrower prefixes cover whole. Every prefix has a better
/// rank than those that include it.
fn join(mut flat: Flat) -> Flat {
    if flat.len() < 2 {
        return flat;
    }
    let mut covered: HashSet<PortPrefix> = flat.keys().copied().collect();
    for bits in (1..=16).rev() {
        let lower = |prefix: &&PortPrefix| prefix.bits == bits && prefix.is_lower_half();
        let pairs: Vec<PortPrefix> = covered.iter().filter(lower).copied().collect();
        for half in pairs {
            if !covered.contains(&half.other_half()) {
                continue;
            }
            let whole = half.wider().expect("a half has a whole");
            let rules = (flat.get(&half).copied(), flat.get(&half.other_half()).copied());
            flat.remove(&whole);
            if let (Some(one), Some(other)) = rules
                && one == other
            {
                flat.remove(&half);
                flat.remove(&half.other_half());
                flat.insert(whole, one);
            }
            covered.insert(whole);
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use enforcer_common::policy::{ANY_PEER, Rule};

    use super::Stage;
    use crate::compile::ports::prefixes;
    use crate::policy::PortMatch;
    use crate::protocol::Protocol;

    fn rule(rank: u32) -> Rule {
        Rule { rank, rule: rank + 1, action: 1, tier_default: 0, queries: 0 }
    }

    /// First and last port.
    type Ranges<'a> = &'a [(u16, u16)];

    /// Port, bits and rank of the rows of peer 20 that rules by peer, rank and ranges make.
    fn rows(rules: &[(u32, u32, Ranges<'_>)]) -> Vec<(u16, u8, u32)> {
        let mut stage = Stage::default();
        for (peer, rank, ranges) in rules {
            for (first, last) in *ranges {
                let range = PortMatch::Range { protocol: Protocol::TCP, first: *first, last: *last };
                stage.add(*peer, &prefixes(&range, &[]), rule(*rank));
            }
        }
        stage.rows_of(20).iter().map(|row| (row.port, row.port_bits, row.rule.rank)).collect()
    }

    #[test]
    fn ports_of_one_rule_are_covered_by_the_fewest_prefixes_however_they_are_written() {
        assert_eq!(rows(&[(20, 0, &[(80, 80), (81, 81)])]), [(80, 15, 0)]);
        assert_eq!(rows(&[(20, 0, &[(80, 80), (80, 95), (443, 443)])]), [(80, 12, 0), (443, 16, 0)]);
        let each: Vec<(u16, u16)> = (1024..2048).map(|port| (port, port)).collect();
        assert_eq!(rows(&[(20, 0, &each)]), [(1024, 6, 0)]);
    }

    #[test]
    fn what_others_leave_nothing_of_is_left_out() {
        let halves: Ranges<'_> = &[(80, 80)];
        let other: Ranges<'_> = &[(81, 81)];
        let both: Ranges<'_> = &[(80, 81)];
        assert_eq!(rows(&[(20, 0, halves), (20, 1, other), (20, 2, both)]), [(80, 16, 0), (81, 16, 1)]);
        assert_eq!(rows(&[(20, 0, halves), (20, 1, both)]), [(80, 15, 1), (80, 16, 0)]);
        assert_eq!(rows(&[(ANY_PEER, 0, both), (20, 1, halves)]), []);
        assert_eq!(rows(&[(20, 0, halves), (ANY_PEER, 1, both)]), [(80, 16, 0)]);
    }
}
