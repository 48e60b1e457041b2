//! Changes in place against the model: at every step each endpoint is told of each address what it was told before, what
//! it is told afterwards, or, where its own tables change too, what its new ones say of what the address was. Who is told
//! something else judges its flows again.

use super::*;
use crate::sync::follow::follow;
use enforcer_core::compile::Delta;
use ipnet::IpNet;
use prop::collection::vec;
use prop::sample::Index;

/// Addresses that plans speak of.
const ADDRESSES: u8 = 4;

/// The rows that hold for one address, stage after stage of each table, whatever number its identity has.
type Told = Vec<Vec<Row>>;

/// What each endpoint may be told of each address.
#[derive(Default)]
pub(super) struct Allowed(BTreeMap<(u32, u8), [Option<Told>; 3]>);

impl Allowed {
    pub(super) fn check(&self, model: &Model) {
        for ((interface, address), allowed) in &self.0 {
            let now = model.told(*interface, *address);
            assert!(
                now.is_none() || allowed.contains(&now),
                "{interface} of {address}: {now:?}, {allowed:?}"
            );
        }
    }
}

fn prefix(address: u8) -> IpNet {
    IpAddr::from([192, 0, 2, address]).into()
}

fn told<'a>(stages: impl Iterator<Item = &'a Vec<Row>>, identity: Option<u32>) -> Told {
    let identity = identity.unwrap_or(1);
    let of = |rows: &Vec<Row>| {
        let held = rows.iter().filter(|row| row.peer == identity);
        held.map(|row| Row { peer: 0, ..*row }).collect()
    };
    stages.map(of).collect()
}

impl Model {
    /// What an endpoint is told of an address; `None` when there is no endpoint.
    fn told(&self, interface: u32, address: u8) -> Option<Told> {
        let (stages, prefixes) = self.view(self.endpoints.get(&interface)?);
        Some(told(stages.iter(), prefixes.get(&prefix(address)).copied()))
    }
}

/// What a plan tells a workload of an address.
fn planned(plan: &Plan, owner: &WorkloadId, address: u8) -> Option<Told> {
    let endpoint = plan.endpoints.get(owner)?;
    let stages = endpoint.tables().flat_map(|index| &plan.tables[index].stages);
    Some(told(stages, plan.identities.get(&prefix(address)).copied()))
}

/// Something that changes in a plan.
#[derive(Clone, Debug)]
enum Change {
    /// An address gets an identity there is, or none.
    Moves(u8, Option<u32>),
    /// An address gets a new identity, with rows by table and stage.
    Fresh(u8, Vec<(Index, Index, u32)>),
    /// A workload comes or changes, with one of the tables there are or a new one.
    Comes(usize, Option<Index>, Table),
    /// A workload goes.
    Goes(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let rows = vec((any::<Index>(), any::<Index>(), 0..4_u32), 0..4);
    prop_oneof![
        2 => (0..ADDRESSES, prop::option::of(16..20_u32)).prop_map(|(address, to)| Change::Moves(address, to)),
        2 => (0..ADDRESSES, rows).prop_map(|(address, rows)| Change::Fresh(address, rows)),
        1 => (0..4_usize, prop::option::of(any::<Index>()), table())
            .prop_map(|(number, known, table)| Change::Comes(number, known, table)),
        1 => (0..4_usize).prop_map(Change::Goes),
    ]
}

/// The plan after the changes, and their delta.
fn changed(before: &Plan, changes: &[Change], next: &mut u32) -> (Plan, Delta) {
    let (mut plan, mut delta) = (before.clone(), Delta::default());
    for change in changes {
        match change {
            Change::Moves(address, to) => set(&mut plan, &mut delta, *address, *to),
            Change::Fresh(address, rows) => {
                *next += 1;
                for (table, stage, rank) in rows {
                    let table = table.index(plan.tables.len());
                    let stage = stage.index(plan.tables[table].stages.len());
                    let held = &mut plan.tables[table].stages[stage];
                    if held.last().is_none_or(|last| last.peer != *next) {
                        held.push(row(*next, *rank));
                        let is_old = table < before.tables.len();
                        delta.rows.extend(is_old.then_some((table, stage, row(*next, *rank))));
                    }
                }
                set(&mut plan, &mut delta, *address, Some(*next));
            }
            Change::Comes(number, known, table) => {
                let egress = known.map(|known| known.index(plan.tables.len())).unwrap_or_else(|| {
                    plan.tables.push(table.clone());
                    plan.tables.len() - 1
                });
                let addresses = vec![IpAddr::from([10, 0, 0, *number as u8])];
                let (mode, egress) = (Mode::Enforce, Some(egress));
                let endpoint = EndpointPlan { mode, addresses, egress, ingress: None, staged: None };
                plan.endpoints.insert(workload(*number), endpoint);
                delta.endpoints.insert(workload(*number));
            }
            Change::Goes(number) => {
                plan.endpoints.remove(&workload(*number));
                delta.endpoints.insert(workload(*number));
            }
        }
    }
    (plan, delta)
}

fn set(plan: &mut Plan, delta: &mut Delta, address: u8, to: Option<u32>) {
    let before = match to {
        Some(identity) => plan.identities.insert(prefix(address), identity),
        None => plan.identities.remove(&prefix(address)),
    };
    if before != to {
        delta.prefixes.insert(prefix(address), to);
        delta.moved.insert((before.unwrap_or(1), to.unwrap_or(1)));
    }
}

/// Follows a change of the plan that is in force; true when it got to its end, `None` when it cannot be followed.
fn take(
    model: &mut Model,
    mirror: &mut Mirror,
    before: &Plan,
    (after, delta): &(Plan, Delta),
) -> Option<bool> {
    let attached = attached();
    let desired = Desired { plan: after, attached: &attached };
    let steps = follow(mirror, desired, delta, ROOM).expect("there is room")?;
    let each =
        || attached.iter().flat_map(|(owner, at)| (0..ADDRESSES).map(move |address| (owner, *at, address)));
    let allowed = each().map(|(owner, interface, address)| {
        let switched = Plan { identities: before.identities.clone(), ..after.clone() };
        let [between, told] = [&switched, after].map(|plan| planned(plan, owner, address));
        let allowed = [model.told(interface, address), between, told];
        ((interface, address), allowed)
    });
    model.follow_up = Some(Allowed(allowed.collect()));
    let revisions: BTreeMap<u32, u32> =
        model.endpoints.iter().map(|(interface, endpoint)| (*interface, endpoint.revision)).collect();
    let is_done = execute(model, mirror, &steps).is_ok();
    model.follow_up = None;
    if !is_done {
        return Some(false);
    }
    for (owner, interface) in &attached {
        if let Some(now) = model.endpoints.get(interface) {
            let differs = |address| planned(before, owner, address) != planned(after, owner, address);
            let is_told_anew = (0..ADDRESSES).any(differs);
            let has_new = revisions.get(interface) != Some(&now.revision);
            assert!(has_new || !is_told_anew, "{owner} is told something else under the same revision");
        }
        mirror.owners.insert(*interface, owner.clone());
    }
    Some(true)
}

proptest! {
    #[test]
    fn changes_are_followed_in_place(first in a_plan(), changes in vec(vec(change(), 1..4), 1..8)) {
        let (mut model, mut mirror) = (Model::default(), Mirror::default());
        prop_assert!(apply(&mut model, &mut mirror, &first));
        let (mut plan, mut next) = (first, 100);
        for changes in &changes {
            let change = changed(&plan, changes, &mut next);
            match take(&mut model, &mut mirror, &plan, &change) {
                Some(is_done) => prop_assert!(is_done),
                None => prop_assert!(apply(&mut model, &mut mirror, &change.0)),
            }
            assert_settled(&model, &mirror, &change.0);
            plan = change.0;
        }
    }

    #[test]
    fn a_failure_in_place_is_mended_by_the_next_plan(
        first in a_plan(),
        changes in vec((vec(change(), 1..4), prop::option::of(0..6_usize)), 1..8),
    ) {
        let (mut model, mut mirror) = (Model::default(), Mirror::default());
        prop_assert!(apply(&mut model, &mut mirror, &first));
        let (mut plan, mut next) = (first, 100);
        for (changes, failure) in &changes {
            let change = changed(&plan, changes, &mut next);
            model.steps_until_failure = *failure;
            let followed = take(&mut model, &mut mirror, &plan, &change);
            model.steps_until_failure = None;
            if followed != Some(true) {
                prop_assert!(apply(&mut model, &mut mirror, &change.0));
            }
            assert_settled(&model, &mirror, &change.0);
            plan = change.0;
        }
    }
}

#[test]
fn an_address_that_nobody_speaks_of_writes_one_prefix_and_no_endpoint() {
    let (mut model, mut mirror) = (Model::default(), Mirror::default());
    let first = small_plan(3);
    assert!(apply(&mut model, &mut mirror, &first));
    let after = changed(&first, &[Change::Moves(1, Some(19))], &mut 100);
    let attached = attached();
    let desired = Desired { plan: &after.0, attached: &attached };
    let steps = follow(&mirror, desired, &after.1, ROOM).expect("there is room").expect("it can be followed");
    let generation = mirror.endpoints[&100].generation;
    let prefixes = BTreeMap::from([(prefix(1), Some(19))]);
    assert_eq!(steps, [Step::SetIdentities { generation, prefixes }]);
}

#[test]
fn what_does_not_fit_is_refused_and_says_which_policy_is_large() {
    let (mut model, mut mirror) = (Model::default(), Mirror::default());
    let mut first = small_plan(199);
    let info = RuleInfo::tier_default("kubernetes", Direction::Egress);
    first.rules = (1..=199).map(|number| (number, info.clone())).collect();
    assert!(apply(&mut model, &mut mirror, &first));
    let rows = vec![Row { port: 1, ..row(101, 0) }, Row { port: 2, ..row(101, 0) }];
    let delta = Delta { rows: rows.into_iter().map(|row| (0, 0, row)).collect(), ..Delta::default() };
    let attached = attached();
    let refused = follow(&mirror, Desired { plan: &first, attached: &attached }, &delta, ROOM);
    let Err(ApplyError::Overflow(overflow)) = refused else { panic!("{refused:?}") };
    assert_eq!(
        overflow.to_string(),
        "the policy beside the one in force does not fit RULES: 201 needed, room for 200; most are of Tier kubernetes (199)"
    );
}
