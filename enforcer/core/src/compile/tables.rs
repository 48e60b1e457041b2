//! Tables: the rules that hold for one class of workloads and one direction, flattened in stages. Tables are kept by
//! class, so that an identity that is new adds its rows to them and changes nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use enforcer_common::decide::Direction;
use enforcer_common::policy::{
    ANY_PEER, Action, HOST_BIT, MAX_STAGES, Mode, Rule, SERVER_NAME, TIER_DEFAULT,
};

use super::identities::Identities;
use super::names::Names;
use super::numbers::Numbers;
use super::order::Order;
use super::peers::{Facts, Meant, Used, port_names};
use super::ports::{PortPrefix, prefixes};
use super::rows::{Flat, Stage};
use crate::object::Workload;
use crate::plan::{Row, Table};
use crate::policy::{self, DefaultAction, Peer, Peers, PortMatch, Ports};
use crate::protocol::Protocol;

use services::{add_services, speaks_of};

mod services;

/// What tables are made from.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) order: &'a Order,
    pub(super) numbers: &'a Numbers,
    pub(super) used: &'a Used,
    pub(super) identities: &'a Identities,
    pub(super) names: &'a Names,
}

impl<'a> Sources<'a> {
    /// A rule in use by its policy and index.
    fn rule(self, direction: Direction, (policy, index): (usize, usize)) -> &'a policy::Rule {
        &self.order.rules(policy, direction).expect("a rule in use")[index]
    }
}

/// The ports of a workload by the names that rules ask for.
type Resolved = BTreeMap<(Protocol, String), Vec<u16>>;

/// What workloads that share a table have in common.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Class {
    direction: Direction,
    policies: Vec<usize>,
    ports: Resolved,
    /// What becomes of flows to services that no rule decides; ingress rules know no services.
    undecided_passes: bool,
}

/// What a class was compiled to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// No rule: nothing is decided.
    Nothing,
    /// The table of this index.
    Table(usize),
    /// More stages than there may be; the table refuses everything.
    TooManyStages(usize),
}

/// One rule of a class, or the default of a tier.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stage: usize,
    pub(super) tier: usize,
    pub(super) value: Rule,
    /// Policy and index of the rule; `None` for a default.
    pub(super) rule: Option<(usize, usize)>,
}

/// A class and its table.
#[derive(Debug)]
struct Compiled {
    class: Class,
    entries: Vec<Entry>,
    /// What holds for every peer, by stage.
    any: Vec<Flat>,
    /// Which stage of the table each stage is; stages without rows are left out.
    places: Vec<Option<usize>>,
    outcome: Outcome,
}

/// The rows that one identity gets.
#[derive(Default, Debug)]
pub(super) struct Added {
    /// Rows that are new in a table, by table and stage.
    pub(super) rows: Vec<(usize, usize, Row)>,
    /// True when a class has another table than before.
    pub(super) has_new_tables: bool,
}

/// The classes whose tables were made so far. The tables themselves are the plan's.
#[derive(Default, Debug)]
pub(super) struct Tables {
    classes: Vec<Compiled>,
    known: HashMap<Class, usize>,
    /// Indices of tables by a hash of what they held when they were made.
    by_content: HashMap<u64, Vec<usize>>,
    by_group: HashMap<u32, Vec<usize>>,
    by_port: HashMap<u32, Vec<usize>>,
    /// Classes for egress whose rules tell ports apart.
    with_ports: Vec<usize>,
}

impl Tables {
    /// What a workload gets that these policies select.
    pub(super) fn outcome(
        &mut self,
        sources: Sources<'_>,
        list: &mut Vec<Table>,
        (workload, mode, policies): (&Workload, Mode, &[usize]),
        direction: Direction,
    ) -> Outcome {
        let class = class(sources.order, (workload, mode), policies, direction);
        if let Some(known) = self.known.get(&class) {
            return self.classes[*known].outcome;
        }
        let place = self.classes.len();
        let compiled = self.compile(sources, list, class.clone());
        let outcome = compiled.outcome;
        self.index(sources, &compiled, place);
        self.classes.push(compiled);
        self.known.insert(class, place);
        outcome
    }

    /// True when some class was refused for its stages.
    pub(super) fn has_refused(&self) -> bool {
        self.classes.iter().any(|compiled| matches!(compiled.outcome, Outcome::TooManyStages(_)))
    }

    /// Adds the rows of an identity that no table has rows of. Classes that shared a table and no longer have the same
    /// rows get their own.
    pub(super) fn add_identity(
        &mut self,
        sources: Sources<'_>,
        list: &mut Vec<Table>,
        identity: u32,
        facts: &Facts,
    ) -> Added {
        let behind = sources.identities.services_of(identity).values().flatten();
        let behind: Vec<&Facts> = behind.map(|(kind, _)| sources.identities.facts_of_kind(*kind)).collect();
        let all = || behind.iter().copied().chain([facts]);
        let groups = all().flat_map(|facts| &facts.peers).filter_map(|group| self.by_group.get(group));
        let ports = all().flat_map(|facts| &facts.ports).filter_map(|(port, _)| self.by_port.get(port));
        let with_ports = self.with_ports.iter().filter(|_| !behind.is_empty());
        let concerned: BTreeSet<usize> = groups.chain(ports).flatten().chain(with_ports).copied().collect();
        let mut columns: BTreeMap<usize, Vec<Vec<Row>>> = BTreeMap::new();
        for &place in &concerned {
            let column = column(sources, &self.classes[place], identity, facts);
            if column.iter().any(|rows| !rows.is_empty()) {
                columns.insert(place, column);
            }
        }
        let mut added = Added::default();
        let tables: BTreeSet<usize> = columns.keys().filter_map(|place| self.table_of(*place)).collect();
        for table in tables {
            self.extend_table(sources, list, table, &columns, &mut added);
        }
        let empty: Vec<usize> =
            columns.keys().copied().filter(|place| self.table_of(*place).is_none()).collect();
        added.has_new_tables |= !empty.is_empty();
        empty.into_iter().for_each(|place| self.compile_again(sources, list, place));
        added
    }

    /// Adds columns to one table, or gives the classes that do not agree new ones.
    fn extend_table(
        &mut self,
        sources: Sources<'_>,
        list: &mut Vec<Table>,
        table: usize,
        columns: &BTreeMap<usize, Vec<Vec<Row>>>,
        added: &mut Added,
    ) {
        let sharing: Vec<usize> =
            (0..self.classes.len()).filter(|place| self.table_of(*place) == Some(table)).collect();
        let placed = |place: &usize| self.placed(*place, columns.get(place)?);
        let first = sharing.iter().find_map(placed);
        let (agreeing, others): (Vec<usize>, Vec<usize>) =
            sharing.iter().copied().partition(|place| first.is_some() && placed(place) == first);
        if let Some(rows) = first.filter(|_| !agreeing.is_empty()) {
            for (stage, row) in rows {
                let held = &mut list[table].stages[stage];
                held.insert(held.partition_point(|other| *other < row), row);
                added.rows.push((table, stage, row));
            }
        }
        for place in others {
            added.has_new_tables = true;
            self.compile_again(sources, list, place);
        }
    }

    /// The rows of a column by stage of the table; `None` when a stage gets rows that has no place in it.
    fn placed(&self, place: usize, column: &[Vec<Row>]) -> Option<Vec<(usize, Row)>> {
        let mut placed = Vec::new();
        for (rows, stage) in column.iter().zip(&self.classes[place].places) {
            if !rows.is_empty() {
                let stage = (*stage)?;
                placed.extend(rows.iter().map(|row| (stage, *row)));
            }
        }
        Some(placed)
    }

    fn table_of(&self, place: usize) -> Option<usize> {
        match self.classes[place].outcome {
            Outcome::Nothing => None,
            Outcome::Table(table) | Outcome::TooManyStages(table) => Some(table),
        }
    }

    fn compile_again(&mut self, sources: Sources<'_>, list: &mut Vec<Table>, place: usize) {
        let class = self.classes[place].class.clone();
        self.classes[place] = self.compile(sources, list, class);
    }

    fn compile(&mut self, sources: Sources<'_>, list: &mut Vec<Table>, class: Class) -> Compiled {
        let entries = entries(sources, &class);
        let count = entries.iter().map(|entry| entry.stage + 1).max().unwrap_or(0);
        let mut stages: Vec<Stage> = std::iter::repeat_with(Stage::default).take(count).collect();
        for entry in &entries {
            add(sources, &class, entry, &mut stages[entry.stage]);
        }
        if class.direction == Direction::Egress && !entries.is_empty() {
            let spoken = speaks_of(sources, &class, &entries);
            let concerned = sources.identities.frontends_of(&spoken);
            concerned.for_each(|identity| add_services(sources, &class, &entries, identity, &mut stages));
        }
        let mut filled = Vec::new();
        let mut places = Vec::new();
        for stage in &stages {
            let rows = stage.rows();
            places.push((!rows.is_empty()).then_some(filled.len()));
            filled.extend((!rows.is_empty()).then_some(rows));
        }
        let outcome = self.enter(sources, list, class.direction, filled);
        let any = stages.into_iter().map(Stage::into_any).collect();
        Compiled { class, entries, any, places, outcome }
    }

    fn enter(
        &mut self,
        sources: Sources<'_>,
        list: &mut Vec<Table>,
        direction: Direction,
        stages: Vec<Vec<Row>>,
    ) -> Outcome {
        if stages.is_empty() {
            return Outcome::Nothing;
        }
        if stages.len() > MAX_STAGES as usize {
            let mut stage = Stage::default();
            stage.add(ANY_PEER, &[PortPrefix::ALL], deny(0, sources.numbers.limit(direction)));
            return Outcome::TooManyStages(self.intern(list, Table { stages: vec![stage.rows()] }));
        }
        Outcome::Table(self.intern(list, Table { stages }))
    }

    fn intern(&mut self, list: &mut Vec<Table>, table: Table) -> usize {
        let same = self.by_content.entry(BuildHasherDefault::<DefaultHasher>::default().hash_one(&table));
        let same = same.or_default();
        if let Some(known) = same.iter().find(|index| list[**index] == table) {
            return *known;
        }
        same.push(list.len());
        list.push(table);
        list.len() - 1
    }

    /// Notes which groups and ports a class speaks of.
    fn index(&mut self, sources: Sources<'_>, compiled: &Compiled, place: usize) {
        let (mut groups, mut ports) = (BTreeSet::new(), BTreeSet::new());
        let direction = compiled.class.direction;
        for &(policy, index) in compiled.entries.iter().filter_map(|entry| entry.rule.as_ref()) {
            if let Meant::Groups(of) = sources.used.meant(policy, direction, index) {
                groups.extend(of);
            }
            let rule = &sources.order.rules(policy, direction).into_iter().flatten().nth(index);
            for (protocol, name) in rule.iter().flat_map(|rule| port_names(rule)) {
                ports.extend(sources.used.port(protocol, name).filter(|_| direction == Direction::Egress));
            }
        }
        if direction == Direction::Egress && speaks_of(sources, &compiled.class, &compiled.entries).ports {
            self.with_ports.push(place);
        }
        groups.iter().for_each(|group| self.by_group.entry(*group).or_default().push(place));
        ports.iter().for_each(|port| self.by_port.entry(*port).or_default().push(place));
    }
}

fn class(
    order: &Order,
    (workload, mode): (&Workload, Mode),
    policies: &[usize],
    direction: Direction,
) -> Class {
    let has_rules = |policy: &&usize| order.rules(**policy, direction).is_some();
    let policies: Vec<usize> = policies.iter().filter(has_rules).copied().collect();
    let mut ports = Resolved::new();
    if direction == Direction::Ingress {
        let rules = policies.iter().flat_map(|policy| order.rules(*policy, direction)).flatten();
        for (protocol, name) in rules.flat_map(port_names) {
            let resolved = || resolve(workload, protocol, name);
            ports.entry((protocol, name.to_owned())).or_insert_with(resolved);
        }
    }
    let undecided_passes = direction == Direction::Egress && mode != Mode::Enforce;
    Class { direction, policies, ports, undecided_passes }
}

/// Puts the rules of a class in their order; a stage ends behind a tier that can be left by a rule.
fn entries(sources: Sources<'_>, class: &Class) -> Vec<Entry> {
    let Sources { order, numbers, .. } = sources;
    let mut entries: Vec<Entry> = Vec::new();
    let mut stage = 0;
    let tier_of = |policy: &usize| order.policies[*policy].tier;
    let rank =
        |entries: &[Entry]| u32::try_from(entries.len()).expect("fewer than 2^32 rules fit into memory");
    for policies in class.policies.chunk_by(|a, b| tier_of(a) == tier_of(b)) {
        let mut can_be_left = false;
        for &policy in policies {
            let rules = order.rules(policy, class.direction).into_iter().flatten();
            for (index, rule) in rules.enumerate() {
                can_be_left |= rule.action == Action::Pass;
                let (number, action) = (numbers.rule(policy, class.direction, index), rule.action as u8);
                let rank = rank(&entries);
                let queries = match &rule.queries {
                    Some(_) => list_number(tier_of(&policy)),
                    None if rule.verifies_sni => SERVER_NAME,
                    None => 0,
                };
                let value = Rule { rank, rule: number, action, tier_default: 0, queries };
                entries.push(Entry { stage, tier: tier_of(&policy), value, rule: Some((policy, index)) });
            }
        }
        let tier = tier_of(&policies[0]);
        if order.tiers[tier].default_action == DefaultAction::Deny {
            let value = deny(rank(&entries), numbers.tier_default(tier, class.direction));
            entries.push(Entry { stage, tier, value, rule: None });
            if !can_be_left {
                break;
            }
        }
        stage += usize::from(can_be_left);
    }
    entries
}

/// Adds one rule: for every peer at once where it can, by identity and name where it must.
fn add(sources: Sources<'_>, class: &Class, entry: &Entry, stage: &mut Stage) {
    let Some((policy, index)) = entry.rule else {
        return stage.add(ANY_PEER, &[PortPrefix::ALL], entry.value);
    };
    let rule = &sources.order.rules(policy, class.direction).expect("a rule in use")[index];
    for pattern in rule.queries.iter().flatten() {
        sources.names.of_pattern(pattern).iter().for_each(|class| stage.list(*class, entry.value));
    }
    let meant = sources.used.meant(policy, class.direction, index);
    let peers = peers(sources, class.direction, rule, meant);
    let plain = plain_prefixes(rule, class);
    if !plain.is_empty() {
        peers.iter().for_each(|peer| stage.add(*peer, &plain, entry.value));
    }
    if class.direction == Direction::Egress {
        for (protocol, name) in port_names(rule) {
            let Some(port) = sources.used.port(protocol, name) else { continue };
            let named = PortMatch::Named { protocol, name: name.to_owned() };
            for (identity, ports) in sources.identities.with_port(port) {
                if *meant == Meant::Any || peers.contains(identity) {
                    stage.add(*identity, &prefixes(&named, ports), entry.value);
                }
            }
        }
    }
}

/// Number of the list of a tier: the names that its rules limit DNS queries to are one list.
fn list_number(tier: usize) -> u16 {
    u16::try_from(tier + 1).expect("fewer tiers than there are orders for")
}

/// The peer numbers that rows of a rule have. This node's are left out where it is always admitted.
fn peers(sources: Sources<'_>, direction: Direction, rule: &policy::Rule, meant: &Meant) -> BTreeSet<u32> {
    let Meant::Groups(groups) = meant else { return BTreeSet::from([ANY_PEER]) };
    let Peers::OneOf(written) = &rule.peers else { return BTreeSet::from([ANY_PEER]) };
    let judged = |number: &u32| direction == Direction::Egress || *number & HOST_BIT == 0;
    let identities = groups.iter().flat_map(|group| sources.identities.of_group(*group)).copied();
    let names = written.iter().filter_map(|peer| match peer {
        Peer::Name(pattern) => Some(sources.names.of_pattern(pattern)),
        _ => None,
    });
    identities.filter(judged).chain(names.flatten().copied()).collect()
}

/// The rows of one identity by stage.
fn column(sources: Sources<'_>, compiled: &Compiled, identity: u32, facts: &Facts) -> Vec<Vec<Row>> {
    let Compiled { class, entries, any, .. } = compiled;
    let mut stages: Vec<Stage> = any.iter().map(|any| Stage::with_any(any.clone())).collect();
    for entry in entries {
        let Some((policy, index)) = entry.rule else { continue };
        let is_meant = match sources.used.meant(policy, class.direction, index) {
            Meant::Any => None,
            Meant::Groups(groups) => {
                Some(groups.iter().any(|group| facts.peers.binary_search(group).is_ok()))
            }
        };
        if is_meant == Some(false) {
            continue;
        }
        let rule = &sources.order.rules(policy, class.direction).expect("a rule in use")[index];
        if is_meant == Some(true) {
            stages[entry.stage].add(identity, &plain_prefixes(rule, class), entry.value);
        }
        for (protocol, name) in port_names(rule).filter(|_| class.direction == Direction::Egress) {
            let Some(number) = sources.used.port(protocol, name) else { continue };
            let ports = facts.ports.iter().filter(|(of, _)| *of == number).map(|(_, port)| *port);
            let named = PortMatch::Named { protocol, name: name.to_owned() };
            stages[entry.stage].add(identity, &prefixes(&named, &ports.collect::<Vec<_>>()), entry.value);
        }
    }
    if class.direction == Direction::Egress {
        add_services(sources, class, entries, identity, &mut stages);
    }
    stages.iter().map(|stage| stage.rows_of(identity)).collect()
}

/// The prefixes of a rule that are the same for every peer; none when all its ports are names yet to be resolved.
fn plain_prefixes(rule: &policy::Rule, class: &Class) -> Vec<PortPrefix> {
    let Ports::OneOf(ports) = &rule.ports else { return vec![PortPrefix::ALL] };
    let resolved = |port: &PortMatch| match port {
        PortMatch::Named { protocol, name } => {
            class.ports.get(&(*protocol, name.clone())).cloned().unwrap_or_default()
        }
        _ => Vec::new(),
    };
    ports.iter().flat_map(|port| prefixes(port, &resolved(port))).collect()
}

/// The ports that a workload gives this name to, ascending.
fn resolve(workload: &Workload, protocol: Protocol, name: &str) -> Vec<u16> {
    let named = workload.ports.iter().filter(|port| port.protocol == protocol && port.name == name);
    named.map(|port| port.port).collect::<BTreeSet<u16>>().into_iter().collect()
}

/// A refusal that no author wrote.
fn deny(rank: u32, rule: u32) -> Rule {
    Rule { rank, rule, action: Action::Deny as u8, tier_default: TIER_DEFAULT, queries: 0 }
}
