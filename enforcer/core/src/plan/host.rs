//! A plan as plain collections, so that the kernel's own decision runs on it anywhere: in tests, in the
//! simulator, in `explain`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use enforcer_common::address::{Address, V4_OFFSET};
use enforcer_common::decide::{Attempt, Decision, Force, Tables, decide, is_listed};
use enforcer_common::policy::{
    Endpoint, Learned, LearnedKey, MAX_ADDRESSES, Mode, Rule, RuleKey, Stages, WORLD,
};
use enforcer_common::verdict::Verdict;
use ipnet::IpNet;

use super::{EndpointPlan, Plan};
use crate::object::WorkloadId;

/// The maps a plan fills, with names that tests and simulations make workloads learn.
pub struct HostTables {
    identities: HashMap<(u128, u32), u32>,
    lengths: BTreeSet<u32>,
    rules: HashMap<(u128, u32), Rule>,
    learned: HashMap<LearnedKey, Learned>,
    endpoints: BTreeMap<WorkloadId, Endpoint>,
}

/// Lengths of row prefixes in bits, longest first.
const ROW_BITS: [u32; 18] = {
    let mut lengths = [RuleKey::PEER_BITS; 18];
    let mut bits = 0;
    while bits < 17 {
        lengths[bits as usize] = RuleKey::ALL_BITS - bits;
        bits += 1;
    }
    lengths
};

/// Generation of the identities; a plan has one.
const GENERATION: u32 = 1;
/// Revision of the endpoints; a plan has one.
const REVISION: u32 = 1;

impl HostTables {
    /// The maps of a plan.
    pub fn new(plan: &Plan) -> Self {
        let mut tables = Self {
            identities: HashMap::new(),
            lengths: BTreeSet::new(),
            rules: HashMap::new(),
            learned: HashMap::new(),
            endpoints: BTreeMap::new(),
        };
        plan.identities.iter().for_each(|(prefix, identity)| tables.insert_identity(*prefix, *identity));
        let stages = tables.insert_tables(plan);
        for (id, (workload, endpoint)) in (1..).zip(&plan.endpoints) {
            tables.endpoints.insert(workload.clone(), self::endpoint(id, endpoint, &stages));
        }
        tables
    }

    /// The endpoint of a local workload.
    pub fn endpoint(&self, workload: &WorkloadId) -> Option<&Endpoint> {
        self.endpoints.get(workload)
    }

    /// Makes a workload learn that an address answers to a name class, without end. False when its slots are full.
    pub fn learn(&mut self, workload: &WorkloadId, address: IpAddr, class: u32) -> bool {
        let Some(endpoint) = self.endpoints.get(workload) else { return false };
        let key = LearnedKey::new(endpoint.id, Address::from(address.to_canonical()));
        let learned = self.learned.entry(key).or_default();
        let slot = u64::from(class) << 32 | u64::from(u32::MAX);
        if learned.slots.contains(&slot) {
            return true;
        }
        let free = learned.slots.iter_mut().find(|slot| **slot == 0);
        free.map(|free| *free = slot).is_some()
    }

    /// Forgets all learned names.
    pub fn forget(&mut self) {
        self.learned.clear();
    }

    /// The kernel's decision; `None` when the workload is not one of the plan.
    pub fn decide(&self, workload: &WorkloadId, attempt: &Attempt) -> Option<Decision> {
        self.endpoint(workload).map(|endpoint| decide(self, endpoint, attempt, Force::Enforced))
    }

    /// What the kernel would decide were every staged policy enforced; `None` when the workload is not one of the plan,
    /// or no staged policy concerns it.
    pub fn decide_staged(&self, workload: &WorkloadId, attempt: &Attempt) -> Option<Decision> {
        let endpoint = self.endpoint(workload).filter(|endpoint| endpoint.has_staged != 0)?;
        Some(decide(self, endpoint, attempt, Force::Staged))
    }

    /// Whether the kernel would let the workload ask for a name of this class in a DNS query of the attempt.
    pub fn may_ask(&self, workload: &WorkloadId, attempt: &Attempt, class: u32) -> Option<bool> {
        let decision = self.decide(workload, attempt)?;
        let observes = self.endpoint(workload)?.mode == Mode::Observe as u8;
        let is_free = !decision.list.is_limited() || observes;
        Some(decision.verdict.passes() && (is_free || is_listed(self, decision.list, class)))
    }

    /// Whether policy would admit the attempt once it is known which server name its TLS ClientHello shows: one of this
    /// class, or with 0 none that counts.
    pub fn may_show(&self, workload: &WorkloadId, attempt: &Attempt, class: u32) -> Option<bool> {
        let decision = self.decide(workload, attempt)?;
        if !decision.list.verifies_sni() {
            return Some(decision.verdict == Verdict::Forwarded);
        }
        let shown = Attempt { admitted_as: class, ..*attempt };
        let decision = decide(&ByName(self), self.endpoint(workload)?, &shown, Force::Enforced);
        Some(decision.verdict == Verdict::Forwarded)
    }

    fn insert_identity(&mut self, prefix: IpNet, identity: u32) {
        let offset = if prefix.addr().is_ipv4() { V4_OFFSET } else { 0 };
        let bits = u32::from(prefix.prefix_len()) + offset;
        let address = u128::from_be_bytes(Address::from(prefix.network()).octets());
        self.identities.insert((address & high_bits(bits), bits), identity);
        self.lengths.insert(bits);
    }

    /// Writes the rows of all tables; returns where the stages of each lie.
    fn insert_tables(&mut self, plan: &Plan) -> Vec<Stages> {
        let mut next = 1;
        let mut placed = Vec::new();
        for table in &plan.tables {
            placed.push(table.stages_from(next));
            for rows in &table.stages {
                for row in rows {
                    let (key, bits) = row.key(next);
                    self.rules.insert((bits_of(&key) & high_bits(bits), bits), row.rule);
                }
                next += 1;
            }
        }
        placed
    }
}

/// The tables where no name counts but the one that an attempt is admitted as.
struct ByName<'a>(&'a HostTables);

impl Tables for ByName<'_> {
    fn identity(&self, generation: u32, address: &Address) -> u32 {
        self.0.identity(generation, address)
    }

    fn learned(&self, _key: &LearnedKey) -> Option<Learned> {
        None
    }

    fn rule(&self, key: &RuleKey) -> Option<Rule> {
        self.0.rule(key)
    }
}

impl Tables for HostTables {
    fn identity(&self, _generation: u32, address: &Address) -> u32 {
        let address = u128::from_be_bytes(address.octets());
        let longest_first = self.lengths.iter().rev();
        let mut matches =
            longest_first.filter_map(|bits| self.identities.get(&(address & high_bits(*bits), *bits)));
        matches.next().copied().unwrap_or(WORLD)
    }

    fn learned(&self, key: &LearnedKey) -> Option<Learned> {
        self.learned.get(key).copied()
    }

    fn rule(&self, key: &RuleKey) -> Option<Rule> {
        let key = bits_of(key);
        ROW_BITS.iter().find_map(|bits| self.rules.get(&(key & high_bits(*bits), *bits))).copied()
    }
}

/// The key's octets as the leading bits of a number.
fn bits_of(key: &RuleKey) -> u128 {
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&key.table);
    octets[4..8].copy_from_slice(&key.peer);
    octets[8] = key.protocol;
    octets[9..11].copy_from_slice(&key.port);
    u128::from_be_bytes(octets)
}

/// A mask of the leading bits.
fn high_bits(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

fn endpoint(id: u32, plan: &EndpointPlan, placed: &[Stages]) -> Endpoint {
    let mut addresses = [Address::default(); MAX_ADDRESSES];
    let count = plan.addresses.len().min(MAX_ADDRESSES);
    for (slot, address) in addresses.iter_mut().zip(&plan.addresses) {
        *slot = Address::from(*address);
    }
    let stages = |table: Option<usize>| table.map_or(Stages::default(), |table| placed[table]);
    Endpoint {
        id,
        slot: id,
        revision: REVISION,
        generation: GENERATION,
        mode: plan.mode as u8,
        address_count: count as u8,
        has_staged: plan.staged.is_some().into(),
        padding: 0,
        egress: stages(plan.egress),
        ingress: stages(plan.ingress),
        staged_egress: stages(plan.staged.as_ref().and_then(|staged| staged.egress)),
        staged_ingress: stages(plan.staged.as_ref().and_then(|staged| staged.ingress)),
        addresses,
        seal: REVISION,
    }
}
