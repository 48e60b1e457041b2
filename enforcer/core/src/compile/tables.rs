//! Tables: the rules that hold for one class of workloads and one direction, flattened in stages.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use enforcer_common::decide::Direction;
use enforcer_common::policy::{ANY_PEER, Action, HOST_BIT, MAX_STAGES, Rule};

use super::identities::Identities;
use super::names::Names;
use super::numbers::Numbers;
use super::order::Order;
use super::peers::{PortName, port_names};
use super::ports::{PortPrefix, prefixes};
use super::rows::Stage;
use super::workload_object;
use crate::object::Workload;
use crate::plan::{self, Table};
use crate::policy::{self, DefaultAction, Entity, Peer, Peers, PortMatch, Ports};
use crate::refusal::Refusal;

/// What workloads that share a table have in common.
#[derive(PartialEq, Eq, Hash)]
struct Class<'a> {
    direction: Direction,
    policies: Vec<usize>,
    ports: BTreeMap<PortName<'a>, Vec<u16>>,
}

/// What a class was compiled to.
#[derive(Clone, Copy)]
enum Outcome {
    /// No rule: nothing is decided.
    Nothing,
    /// The table of this index.
    Table(usize),
    /// More stages than there may be; the table refuses everything.
    TooManyStages(usize),
}

/// The tables made so far.
pub(super) struct Tables<'a> {
    order: &'a Order<'a>,
    numbers: &'a Numbers,
    identities: &'a Identities<'a>,
    names: &'a Names,
    classes: HashMap<Class<'a>, Outcome>,
    indices: HashMap<Table, usize>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(
        order: &'a Order<'a>,
        numbers: &'a Numbers,
        identities: &'a Identities<'a>,
        names: &'a Names,
    ) -> Self {
        Self { order, numbers, identities, names, classes: HashMap::new(), indices: HashMap::new() }
    }

    /// Indices of the tables for egress and ingress of a workload that these policies select; `None` when nothing is
    /// decided by any.
    pub(super) fn pair(
        &mut self,
        workload: &Workload,
        policies: &[usize],
        refused: &mut Vec<Refusal>,
    ) -> (Option<usize>, Option<usize>) {
        let egress = self.table(workload, policies, Direction::Egress, refused);
        (egress, self.table(workload, policies, Direction::Ingress, refused))
    }

    fn table(
        &mut self,
        workload: &Workload,
        policies: &[usize],
        direction: Direction,
        refused: &mut Vec<Refusal>,
    ) -> Option<usize> {
        let class = self.class(workload, policies, direction);
        let outcome = match self.classes.get(&class) {
            Some(outcome) => *outcome,
            None => {
                let outcome = self.compile(&class);
                self.classes.insert(class, outcome);
                outcome
            }
        };
        match outcome {
            Outcome::Nothing => None,
            Outcome::Table(index) => Some(index),
            Outcome::TooManyStages(index) => {
                refused.push(Refusal {
                    object: workload_object(&workload.id),
                    field: plan::text(direction).to_owned(),
                    reason: format!(
                        "more than {MAX_STAGES} tiers with Pass rules select it; everything is denied"
                    ),
                });
                Some(index)
            }
        }
    }

    /// The tables by index.
    pub(super) fn finish(self) -> Vec<Table> {
        let mut tables: Vec<(usize, Table)> =
            self.indices.into_iter().map(|(table, index)| (index, table)).collect();
        tables.sort_unstable_by_key(|(index, _)| *index);
        tables.into_iter().map(|(_, table)| table).collect()
    }

    fn class(&self, workload: &Workload, policies: &[usize], direction: Direction) -> Class<'a> {
        let has_rules = |policy: &&usize| self.order.rules(**policy, direction).is_some();
        let policies: Vec<usize> = policies.iter().filter(has_rules).copied().collect();
        let mut ports = BTreeMap::new();
        if direction == Direction::Ingress {
            let rules = policies.iter().flat_map(|policy| self.order.rules(*policy, direction)).flatten();
            for name in rules.flat_map(names_of) {
                ports.entry(name).or_insert_with(|| resolve(workload, name));
            }
        }
        Class { direction, policies, ports }
    }

    fn compile(&mut self, class: &Class<'a>) -> Outcome {
        let stages: Vec<_> =
            self.stages(class).iter().map(Stage::rows).filter(|rows| !rows.is_empty()).collect();
        if stages.is_empty() {
            return Outcome::Nothing;
        }
        if stages.len() > MAX_STAGES as usize {
            let mut stage = Stage::default();
            stage.add(ANY_PEER, &[PortPrefix::ALL], deny(0, self.numbers.limit(class.direction)));
            return Outcome::TooManyStages(self.intern(Table { stages: vec![stage.rows()] }));
        }
        Outcome::Table(self.intern(Table { stages }))
    }

    fn intern(&mut self, table: Table) -> usize {
        let next = self.indices.len();
        *self.indices.entry(table).or_insert(next)
    }

    /// Flattens tier after tier; a stage ends behind a tier that can be left by a rule.
    fn stages(&self, class: &Class<'a>) -> Vec<Stage> {
        let mut stages = vec![Stage::default()];
        let mut ranks = 0..;
        let mut rank = || ranks.next().expect("fewer than 2^32 rules fit into memory");
        for policies in class.policies.chunk_by(|a, b| self.tier(*a) == self.tier(*b)) {
            let stage = stages.last_mut().expect("there is always one");
            let mut can_be_left = false;
            for &policy in policies {
                let rules = self.order.rules(policy, class.direction).into_iter().flatten();
                for (index, rule) in rules.enumerate() {
                    can_be_left |= rule.action == Action::Pass;
                    let number = self.numbers.rule(policy, class.direction, index);
                    let action = rule.action as u8;
                    let value = Rule {
                        rank: rank(),
                        rule: number,
                        action,
                        tier_default: 0,
                        lists_queries: 0,
                        padding: 0,
                    };
                    self.add(class, rule, value, stage);
                }
            }
            let tier = self.tier(policies[0]);
            if self.order.tiers[tier].default_action == DefaultAction::Deny {
                let number = self.numbers.tier_default(tier, class.direction);
                stage.add(ANY_PEER, &[PortPrefix::ALL], deny(rank(), number));
                if !can_be_left {
                    break;
                }
            }
            if can_be_left {
                stages.push(Stage::default());
            }
        }
        stages
    }

    fn tier(&self, policy: usize) -> usize {
        self.order.policies[policy].tier
    }

    /// Adds one rule: for every peer at once where it can, by identity and name where it must.
    fn add(&self, class: &Class<'a>, rule: &'a policy::Rule, value: Rule, stage: &mut Stage) {
        let plain = plain_prefixes(rule, class);
        if !plain.is_empty() {
            for peer in self.peers(class.direction, &rule.peers) {
                stage.add(peer, &plain, value);
            }
        }
        if class.direction == Direction::Egress {
            names_of(rule).for_each(|name| self.add_named(rule, name, value, stage));
        }
    }

    /// Adds what an egress rule says of a port by name: it is another one on each workload.
    fn add_named(&self, rule: &policy::Rule, name: PortName<'a>, value: Rule, stage: &mut Stage) {
        let Some(resolved) = self.identities.with_port(name) else { return };
        let (protocol, text) = name;
        let named = PortMatch::Named { protocol, name: text.to_owned() };
        let peers = self.peers(Direction::Egress, &rule.peers);
        for (identity, ports) in resolved {
            if peers.contains(&ANY_PEER) || peers.contains(identity) {
                stage.add(*identity, &prefixes(&named, ports), value);
            }
        }
    }

    /// The peer numbers that rows of a rule have. This node's are left out where it is always admitted.
    fn peers(&self, direction: Direction, peers: &Peers) -> BTreeSet<u32> {
        let Peers::OneOf(peers) = peers else { return BTreeSet::from([ANY_PEER]) };
        if peers.contains(&Peer::Entity(Entity::All)) {
            return BTreeSet::from([ANY_PEER]);
        }
        let numbers = peers.iter().flat_map(|peer| match peer {
            Peer::Name(pattern) => self.names.of_pattern(pattern),
            peer => self.identities.of_peer(peer),
        });
        let judged = |number: &&u32| direction == Direction::Egress || *number & HOST_BIT == 0;
        numbers.filter(judged).copied().collect()
    }
}

/// The prefixes of a rule that are the same for every peer; none when all its ports are names yet to be resolved.
fn plain_prefixes(rule: &policy::Rule, class: &Class<'_>) -> Vec<PortPrefix> {
    let Ports::OneOf(ports) = &rule.ports else { return vec![PortPrefix::ALL] };
    let resolved = |port: &PortMatch| match port {
        PortMatch::Named { protocol, name } => {
            class.ports.get(&(*protocol, name.as_str())).cloned().unwrap_or_default()
        }
        _ => Vec::new(),
    };
    ports.iter().flat_map(|port| prefixes(port, &resolved(port))).collect()
}

fn names_of(rule: &policy::Rule) -> impl Iterator<Item = PortName<'_>> {
    let ports = match &rule.ports {
        Ports::Any => &[],
        Ports::OneOf(ports) => ports.as_slice(),
    };
    port_names(ports)
}

/// The ports that a workload gives this name to, ascending.
fn resolve(workload: &Workload, (protocol, name): PortName<'_>) -> Vec<u16> {
    let named = workload.ports.iter().filter(|port| port.protocol == protocol && port.name == name);
    named.map(|port| port.port).collect::<BTreeSet<u16>>().into_iter().collect()
}

/// A refusal that no author wrote.
fn deny(rank: u32, rule: u32) -> Rule {
    Rule { rank, rule, action: Action::Deny as u8, tier_default: 1, lists_queries: 0, padding: 0 }
}
