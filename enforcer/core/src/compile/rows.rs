//! Rows of one stage: rules come in by rank, the rows in which the longest prefix is the best rank come out.

use std::collections::{BTreeMap, HashMap};

use enforcer_common::policy::{ANY_PEER, Rule};

use super::ports::PortPrefix;
use crate::plan::Row;

/// The rows of one stage under construction.
#[derive(Default)]
pub(super) struct Stage {
    peers: BTreeMap<u32, Flat>,
}

/// The best rule of every prefix of one peer.
type Flat = HashMap<PortPrefix, Rule>;

impl Stage {
    /// Adds a rule for a peer. Rules must come in ascending rank.
    pub(super) fn add(&mut self, peer: u32, prefixes: &[PortPrefix], rule: Rule) {
        let flat = self.peers.entry(peer).or_default();
        for prefix in prefixes {
            flat.entry(*prefix).or_insert(rule);
        }
    }

    /// The sorted rows: a row is left out when a wider one of the same peer, or one of every peer, that
    /// includes it has a better rank.
    pub(super) fn rows(&self) -> Vec<Row> {
        let nobody = Flat::new();
        let any = self.peers.get(&ANY_PEER).unwrap_or(&nobody);
        let mut rows = Vec::new();
        for (peer, flat) in &self.peers {
            for (prefix, rule) in flat {
                let outdone =
                    outdone(*prefix, rule, flat) || (*peer != ANY_PEER && outdone(*prefix, rule, any));
                if !outdone {
                    let PortPrefix { protocol, port, bits } = *prefix;
                    rows.push(Row { peer: *peer, protocol, port, port_bits: bits, rule: *rule });
                }
            }
        }
        rows.sort_unstable();
        rows
    }
}

/// True when a row that includes `prefix` has a better rank than `rule`.
fn outdone(prefix: PortPrefix, rule: &Rule, flat: &Flat) -> bool {
    let mut including = std::iter::successors(Some(prefix), |prefix| prefix.wider());
    including.any(|prefix| flat.get(&prefix).is_some_and(|other| other.rank < rule.rank))
}
