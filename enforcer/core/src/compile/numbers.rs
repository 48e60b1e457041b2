//! Rule numbers: stable over compilations, unique within one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use enforcer_common::decide::Direction;

use super::Use;
use super::order::Order;
use crate::number;
use crate::plan::{self, RuleInfo, RuleKind, Table};

/// Bits of a rule number.
const MASK: u32 = (1 << 31) - 1;

/// The numbers of all rules in use.
#[derive(Debug)]
pub(super) struct Numbers {
    rules: HashMap<(usize, Direction, usize), u32>,
    defaults: HashMap<(usize, Direction), u32>,
    limits: HashMap<Direction, u32>,
}

impl Numbers {
    /// Number of a policy's rule.
    pub(super) fn rule(&self, policy: usize, direction: Direction, index: usize) -> u32 {
        self.rules[&(policy, direction, index)]
    }

    /// Number of a tier's default.
    pub(super) fn tier_default(&self, tier: usize, direction: Direction) -> u32 {
        self.defaults[&(tier, direction)]
    }

    /// Number of the refusal that stands in for policy beyond the limits.
    pub(super) fn limit(&self, direction: Direction) -> u32 {
        self.limits[&direction]
    }
}

/// Forgets the refusals that stand in for policy in no table.
pub(super) fn forget_unused_limits(infos: &mut BTreeMap<u32, RuleInfo>, tables: &[Table]) {
    let rows = || tables.iter().flat_map(|table| &table.stages).flatten();
    infos.retain(|number, info| info.kind != RuleKind::Limit || rows().any(|row| row.rule.rule == *number));
}

/// Numbers the rules of the policies in use and the defaults of their tiers; returns what each number stands for, too.
pub(super) fn number(order: &Order, used: &BTreeSet<Use>) -> (Numbers, BTreeMap<u32, RuleInfo>) {
    let infos = infos(order, used);
    let mut taken = BTreeSet::new();
    let mut numbered: BTreeMap<&RuleInfo, u32> = infos.keys().map(|info| (info, 0)).collect();
    for (info, number) in &mut numbered {
        *number = number::free(hash(info), MASK, &mut taken);
    }
    let stands_for = numbered.iter().map(|(info, number)| (*number, (*info).clone())).collect();
    let mut numbers = Numbers { rules: HashMap::new(), defaults: HashMap::new(), limits: HashMap::new() };
    for (info, place) in &infos {
        let number = numbered[info];
        match *place {
            Place::Rule(policy, index) => numbers.rules.insert((policy, info.direction, index), number),
            Place::Default(tier) => numbers.defaults.insert((tier, info.direction), number),
            Place::Limit => numbers.limits.insert(info.direction, number),
        };
    }
    (numbers, stands_for)
}

/// Where a rule is found again.
#[derive(Clone, Copy)]
enum Place {
    Rule(usize, usize),
    Default(usize),
    Limit,
}

fn infos(order: &Order, used: &BTreeSet<Use>) -> BTreeMap<RuleInfo, Place> {
    let mut infos = BTreeMap::new();
    for &(policy, direction) in used {
        let placed = &order.policies[policy];
        let (id, tier) = (&placed.policy.id, &order.tiers[placed.tier].name);
        for (index, rule) in order.rules(policy, direction).into_iter().flatten().enumerate() {
            let info = RuleInfo {
                tier: tier.clone(),
                kind: id.kind.into(),
                namespace: id.namespace.clone(),
                name: id.name.clone(),
                direction,
                index: Some(index),
                rule_name: rule.name.clone(),
            };
            infos.insert(info, Place::Rule(policy, index));
        }
        infos.insert(RuleInfo::tier_default(tier, direction), Place::Default(placed.tier));
    }
    for direction in [Direction::Egress, Direction::Ingress] {
        infos.insert(limit(direction), Place::Limit);
    }
    infos
}

fn limit(direction: Direction) -> RuleInfo {
    RuleInfo {
        tier: String::new(),
        kind: RuleKind::Limit,
        namespace: None,
        name: "stages".to_owned(),
        direction,
        index: None,
        rule_name: None,
    }
}

fn hash(info: &RuleInfo) -> u64 {
    let index = info.index.map(|index| index.to_string()).unwrap_or_default();
    number::hash([
        info.tier.as_str(),
        info.kind.text(),
        info.namespace.as_deref().unwrap_or_default(),
        &info.name,
        plan::text(info.direction),
        &index,
        info.rule_name.as_deref().unwrap_or_default(),
    ])
}
