//! Bounds on learned addresses: which make room, and that every one that did is counted, by whomever.

use super::Lab;
use super::dns::{NAMED, exchange, lab, names};
use super::messages::{answer, octets, question, record};
use crate::monotonic_ns;
use crate::tests::workload;
use enforcer_common::event::DnsOutcome;
use hickory_proto::rr::RecordType;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// Addresses of one answer.
const EACH: u32 = 100;
/// What [`Lab`] has room for.
const CAPACITY: u64 = 4096;

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from((11 << 24) + number).into()
}

/// The workload learns these addresses; the higher its number, the later one expires, ten at a time.
fn learn(lab: &mut Lab, numbers: std::ops::Range<u32>) {
    for first in numbers.step_by(EACH as usize) {
        let asked = question(first as u16, NAMED, RecordType::A);
        let records = (first..first + EACH).map(|number| record(NAMED, 100 + number / 10, address(number)));
        let reply = octets(&answer(&asked, records.collect()));
        assert_eq!(exchange(lab, &asked, &reply), Some(DnsOutcome::Learned));
    }
}

fn now() -> u32 {
    (monotonic_ns() / 1_000_000_000) as u32
}

fn numbered(numbers: std::ops::Range<u32>) -> BTreeSet<IpAddr> {
    numbers.map(address).collect()
}

#[test]
fn a_workload_keeps_what_expires_last_and_no_more_than_its_bound() {
    let mut lab = lab();
    let endpoint = lab.endpoint().id;
    learn(&mut lab, 0..1_000);
    let walk = lab.dataplane.walk_learned(now(), 1_000).expect("maps can be walked");
    assert_eq!((walk.evicted, walk.evicted_by_map), (vec![], 0));
    assert_eq!(walk.live, [(endpoint, numbered(0..1_000))].into());
    let walk = lab.dataplane.walk_learned(now(), 300).expect("maps can be walked");
    let evicted: BTreeSet<_> = walk.evicted.iter().map(|(_, address)| *address).collect();
    assert_eq!((walk.evicted.len(), evicted), (700, numbered(0..700)));
    assert_eq!(walk.live, [(endpoint, numbered(700..1_000))].into());
    let walk = lab.dataplane.walk_learned(now(), 300).expect("maps can be walked");
    assert_eq!((walk.evicted.len(), walk.evicted_by_map), (0, 0));
    // They expire, and minutes later they are not even kept.
    let entries = |lab: &Lab| lab.dataplane.learned().expect("maps can be read").len();
    let walk = lab.dataplane.walk_learned(now() + 300, 300).expect("maps can be walked");
    assert_eq!((walk.live.len(), entries(&lab)), (0, 300));
    let walk = lab.dataplane.walk_learned(now() + 600, 300).expect("maps can be walked");
    assert_eq!((walk.evicted_by_map, entries(&lab)), (0, 0));
}

#[test]
fn what_a_full_map_evicts_is_counted_to_the_last() {
    let mut lab = lab();
    learn(&mut lab, 0..200);
    let walk = lab.dataplane.walk_learned(now(), 150).expect("maps can be walked");
    assert_eq!((walk.evicted.len(), walk.evicted_by_map), (50, 0));
    learn(&mut lab, 1_000..9_000);
    let present = lab.dataplane.learned().expect("maps can be read").len() as u64;
    assert!(present <= CAPACITY, "{present}");
    let walk = lab.dataplane.walk_learned(now(), 1_000).expect("maps can be walked");
    assert_eq!(walk.evicted_by_map, 150 + 8_000 - present);
    assert_eq!(walk.evicted.len() as u64, present - 1_000);
    let walk = lab.dataplane.walk_learned(now(), 1_000).expect("maps can be walked");
    assert_eq!((walk.evicted_by_map, walk.evicted.len()), (150 + 8_000 - present, 0));
}

#[test]
fn a_name_class_is_taken_back_and_the_last_one_takes_the_address_along() {
    let mut lab = lab();
    let endpoint = lab.endpoint().id;
    let class = |name: &str| names().automaton.class_of(name);
    learn(&mut lab, 0..EACH);
    let other = question(9, "a.wild.example.", RecordType::A);
    let reply = octets(&answer(&other, vec![record("a.wild.example.", 60, address(0))]));
    assert_eq!(exchange(&mut lab, &other, &reply), Some(DnsOutcome::Learned));
    lab.dataplane.unlearn(endpoint, address(0), class(NAMED)).expect("maps can be written");
    lab.dataplane.unlearn(endpoint, address(1), class(NAMED)).expect("maps can be written");
    lab.dataplane.unlearn(endpoint, address(5_000), class(NAMED)).expect("nothing to do");
    let learned = lab.dataplane.learned().expect("maps can be read");
    let of = |number| learned.iter().find(|one| one.address == address(number));
    let classes: Option<Vec<u32>> = of(0).map(|one| one.classes.iter().map(|(class, _)| *class).collect());
    assert_eq!(classes, Some(vec![class("a.wild.example")]));
    assert_eq!((of(1), learned.len()), (None, 99));
    let walk = lab.dataplane.walk_learned(now(), 1_000).expect("maps can be walked");
    assert_eq!(walk.evicted_by_map, 0, "what was taken back was not evicted");
}

#[test]
fn a_workload_that_goes_leaves_nothing_behind() {
    let mut lab = lab();
    learn(&mut lab, 0..EACH);
    lab.dataplane.detach(&workload("a")).expect("it is attached");
    let walk = lab.dataplane.walk_learned(now(), 1_000).expect("maps can be walked");
    assert_eq!((walk.live.len(), walk.evicted.len(), walk.evicted_by_map), (0, 0, 0));
    assert_eq!(lab.dataplane.learned().expect("maps can be read"), []);
}
