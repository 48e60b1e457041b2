//! Plans on real maps.

use super::{World, counts, row, two_workloads, workload};
use crate::options::{Capacities, Options};
use crate::sync::adopt;
use crate::{ApplyError, Dataplane};
use enforcer_core::compile::Delta;
use enforcer_core::plan::{Plan, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

fn opened(world: &World, options: &Options) -> Dataplane {
    let mut dataplane = Dataplane::open(options).expect("it opens");
    for name in ["a", "b"] {
        let interface = world.pair(name);
        dataplane.attach(&workload(name), interface).expect("it is attached");
    }
    dataplane
}

/// The maps hold what the mirror says.
fn assert_mirrored(dataplane: &Dataplane) {
    let read = adopt::mirror(&dataplane.maps).expect("maps can be read");
    assert_eq!(read.endpoints, dataplane.mirror.endpoints);
    assert_eq!(read.tables, dataplane.mirror.tables);
    assert_eq!(read.generations, dataplane.mirror.generations);
    assert_eq!(read.name_swaps, dataplane.mirror.name_swaps);
    for endpoint in dataplane.mirror.endpoints.values() {
        let revision = dataplane.maps.revisions.get(&endpoint.slot).expect("maps can be read");
        assert_eq!(revision, Some(endpoint.revision));
    }
}

#[test]
fn a_changed_plan_writes_what_changed_and_deletes_what_went() {
    let world = World::enter();
    let mut dataplane = opened(&world, &world.options());
    let first = dataplane.apply(&two_workloads(&[22])).expect("the plan fits");
    assert_eq!(counts(&first), (3, 2, 2, 0));
    assert_mirrored(&dataplane);
    let b = dataplane.attached()[1].clone();

    let second = dataplane.apply(&two_workloads(&[22, 443])).expect("the plan fits");
    assert_eq!(counts(&second), (2, 0, 1, 0));
    assert_mirrored(&dataplane);
    assert_eq!(dataplane.attached()[1], b, "the other workload does not notice");

    let mut third = two_workloads(&[22, 443]);
    third.endpoints.remove(&workload("a"));
    let third = dataplane.apply(&third).expect("the plan fits");
    assert_eq!(counts(&third), (0, 0, 1, 0));
    assert_eq!(dataplane.attached()[0].revision, None);
    assert_mirrored(&dataplane);
}

#[test]
fn ten_thousand_rows_and_prefixes_arrive_whole_and_leave_whole() {
    let world = World::enter();
    let mut dataplane = opened(&world, &world.options());
    let mut large = two_workloads(&[22]);
    large.tables[0] = Table { stages: vec![(0..10_000).map(|port| row(0, port)).collect()] };
    let prefix = |n: u32| (format!("10.{}.{}.0/24", n >> 8, n & 255).parse().expect("a prefix"), 100 + n);
    large.identities = (0..10_000).map(prefix).collect();
    let applied = dataplane.apply(&large).expect("the plan fits");
    assert_eq!(counts(&applied), (10_002, 10_000, 2, 0));
    assert_mirrored(&dataplane);
    dataplane.apply(&two_workloads(&[22])).expect("the plan fits");
    assert_mirrored(&dataplane);
    assert_eq!(dataplane.mirror.rows(), 3);
}

#[test]
fn a_change_is_followed_in_place() {
    let world = World::enter();
    let mut dataplane = opened(&world, &world.options());
    let mut plan = two_workloads(&[22]);
    dataplane.apply(&plan).expect("the plan fits");
    let before = dataplane.attached();
    let prefix = |text: &str| text.parse().expect("a prefix");

    let new = row(22, 8080);
    plan.identities.insert(prefix("10.1.2.3/32"), 22);
    plan.tables[1].stages[0].push(new);
    let delta = Delta {
        prefixes: BTreeMap::from([(prefix("10.1.2.3/32"), Some(22))]),
        moved: BTreeSet::from([(20, 22)]),
        rows: vec![(1, 0, new)],
        endpoints: BTreeSet::new(),
    };
    let applied = dataplane.follow(&plan, &delta).expect("the change fits");
    assert_eq!(counts(&applied), (1, 1, 1, 0));
    assert_mirrored(&dataplane);
    let after = dataplane.attached();
    assert_eq!(after[0], before[0], "nothing of that address is said to the other workload");
    assert_ne!(after[1].revision, before[1].revision);

    plan.identities.remove(&prefix("10.1.2.3/32"));
    let prefixes = BTreeMap::from([(prefix("10.1.2.3/32"), None)]);
    let delta = Delta { prefixes, moved: BTreeSet::from([(22, 20)]), ..Delta::default() };
    let applied = dataplane.follow(&plan, &delta).expect("the change fits");
    assert_eq!(counts(&applied), (0, 1, 1, 0));
    assert_mirrored(&dataplane);
    assert_eq!(counts(&dataplane.apply(&plan).expect("the plan fits")), (0, 0, 0, 0));
}

#[test]
fn names_go_into_the_idle_half() {
    let world = World::enter();
    let mut dataplane = opened(&world, &world.options());
    let mut plan = two_workloads(&[22]);
    dataplane.apply(&plan).expect("the plan fits");
    let class = |dataplane: &Dataplane, half: u32| {
        let state = half * enforcer_common::abi::capacity::NAME_STATES + 2;
        dataplane.maps.name_classes.get(&state).expect("maps can be read")
    };
    let swaps = dataplane.mirror.name_swaps;
    let half = swaps & 1;
    assert_eq!(class(&dataplane, half), Some(5 | 1 << 30));
    plan.names.classes[2] = 6 | 1 << 30;
    let applied = dataplane.apply(&plan).expect("the plan fits");
    assert_eq!(counts(&applied), (0, 0, 0, 0));
    assert_eq!(dataplane.mirror.name_swaps, swaps + 1);
    assert_eq!(class(&dataplane, half), Some(5 | 1 << 30));
    assert_eq!(class(&dataplane, 1 - half), Some(6 | 1 << 30));
    assert_mirrored(&dataplane);
}

#[test]
fn what_does_not_fit_is_refused_and_what_was_in_force_stays() {
    let world = World::enter();
    let capacities = Capacities { rules: 6, ..world.options().capacities };
    let mut dataplane = opened(&world, &Options { capacities, ..world.options() });
    dataplane.apply(&two_workloads(&[22])).expect("the plan fits");
    let before = dataplane.attached();
    let refused = dataplane.apply(&two_workloads(&[1, 2, 3, 4]));
    let Err(ApplyError::Overflow(overflow)) = refused else { panic!("{refused:?}") };
    assert_eq!((overflow.map, overflow.need, overflow.room), ("RULES", 7, 6));
    let unchanged = Delta::default();
    let again = dataplane.follow(&two_workloads(&[1, 2, 3, 4]), &unchanged);
    assert!(
        matches!(again, Err(ApplyError::Overflow(_))),
        "a change of what was refused is refused: {again:?}"
    );
    assert_eq!(dataplane.attached(), before);
    assert_mirrored(&dataplane);
    dataplane.apply(&two_workloads(&[1, 2, 3])).expect("the plan fits");
    assert_mirrored(&dataplane);
}

#[test]
fn workloads_that_are_not_attached_are_counted() {
    let world = World::enter();
    let mut dataplane = world.open();
    let applied = dataplane.apply(&two_workloads(&[22])).expect("the plan fits");
    assert_eq!(counts(&applied), (0, 0, 0, 2));
    let none = Plan { endpoints: Default::default(), ..two_workloads(&[22]) };
    assert_eq!(counts(&dataplane.apply(&none).expect("the plan fits")), (0, 0, 0, 0));
}

#[test]
fn resolvers_are_exactly_those_given() {
    let world = World::enter();
    let mut dataplane = world.open();
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let held = |dataplane: &Dataplane| {
        let mut held = Vec::new();
        let visit = |address: &_, _: &_| held.push(IpAddr::from(*address));
        dataplane.maps.resolvers.for_each(visit).expect("maps can be read");
        held.sort_unstable();
        held
    };
    dataplane.set_resolvers(&[address("10.0.0.53"), address("2001:db8::53")]).expect("they fit");
    assert_eq!(held(&dataplane), [address("10.0.0.53"), address("2001:db8::53")]);
    dataplane.set_resolvers(&[address("10.0.0.54"), address("2001:db8::53")]).expect("they fit");
    assert_eq!(held(&dataplane), [address("10.0.0.54"), address("2001:db8::53")]);
    let many: Vec<IpAddr> = (0..65).map(|n| IpAddr::from([10, 0, 1, n])).collect();
    let refused = dataplane.set_resolvers(&many).expect_err("they do not fit");
    assert_eq!(
        refused.to_string(),
        "the list of trusted resolvers does not fit RESOLVERS: 65 needed, room for 64"
    );
    assert_eq!(held(&dataplane).len(), 2);
}
