//! Interfaces and addresses of this namespace and of another.

use super::{World, run};
use crate::link::{
    Change, LinkError, Watch, by_name, host_addresses, host_side, namespace_addresses, route_to,
};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// A network namespace with a name of its own.
struct Namespace {
    name: String,
}

impl Namespace {
    fn new(name: &str) -> Self {
        let name = format!("enforcer-{}-{name}", std::process::id());
        run(&format!("ip netns add {name}"));
        Self { name }
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.name));
    }
}

fn addresses(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

#[test]
fn the_host_side_of_a_workload_is_found_by_its_namespace() {
    let _world = World::enter();
    let namespace = Namespace::new("host-side");
    let name = &namespace.name;
    // Another pair first, so that indices on both sides differ.
    run("ip link add spare type veth peer name spare-peer");
    run(&format!("ip link add host0 up type veth peer name eth0 netns {name}"));
    run(&format!("ip -n {name} address add 10.1.0.2/24 dev eth0"));
    run(&format!("ip -n {name} address add 2001:db8::2/64 dev eth0 nodad"));
    run(&format!("ip -n {name} link set eth0 up addrgenmode none"));
    let found = host_side(&namespace.path(), "eth0").expect("it is there");
    assert_eq!(found.interface.index, by_name("host0").expect("it was made").index);
    assert_eq!(found.addresses.into_iter().collect::<BTreeSet<_>>(), addresses(&["10.1.0.2", "2001:db8::2"]));
    let all = namespace_addresses(&namespace.path()).expect("they can be read");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), addresses(&["10.1.0.2", "2001:db8::2"]));
}

#[test]
fn a_route_leads_to_the_interface_that_packets_leave_by() {
    let _world = World::enter();
    let namespace = Namespace::new("route");
    let name = &namespace.name;
    run(&format!("ip link add pod0 up type veth peer name eth0 netns {name}"));
    run("ip route add 10.2.0.7/32 dev pod0");
    run("ip -6 route add 2001:db8::7/128 dev pod0");
    let index = by_name("pod0").expect("it was made").index;
    let route = |address: &str| route_to(address.parse().expect("an address")).expect("it is answered");
    assert_eq!([route("10.2.0.7"), route("2001:db8::7")], [Some(index), Some(index)]);
    assert_eq!(route("10.2.0.8"), None);
    run("ip route add 10.3.0.0/16 via 10.2.0.7 dev pod0");
    assert_eq!(route("10.3.0.1"), None, "what is there is the gateway");
}

#[test]
fn what_is_missing_is_named() {
    let _world = World::enter();
    let namespace = Namespace::new("missing");
    let path = namespace.path();
    let name = &namespace.name;
    assert!(matches!(host_side(&path, "eth0"), Err(LinkError::NotInNamespace { .. })));
    run(&format!("ip -n {name} link add eth0 type veth peer name other"));
    assert!(matches!(host_side(&path, "eth0"), Err(LinkError::NoHostSide { .. })));
    assert!(matches!(host_side(Path::new("/run/netns/none"), "eth0"), Err(LinkError::Namespace { .. })));
    assert!(matches!(host_side(Path::new("/etc/hostname"), "eth0"), Err(LinkError::Namespace { .. })));
    assert!(matches!(by_name("none"), Err(LinkError::UnknownInterface(_))));
}

#[test]
fn every_address_of_the_host_is_listed() {
    let world = World::enter();
    world.pair("a");
    run("ip address add 10.2.0.1/24 dev a");
    run("ip address add fe80::1/64 dev a nodad");
    let all: BTreeSet<IpAddr> = host_addresses().expect("they can be read").into_iter().collect();
    assert!(all.is_superset(&addresses(&["127.0.0.1", "::1", "10.2.0.1", "fe80::1"])), "{all:?}");
}

#[test]
fn changes_are_told() {
    let world = World::enter();
    let mut watch = Watch::open().expect("it can be watched");
    assert_eq!(watch.drain().expect("it can be read"), []);
    let a = world.pair("a");
    run("ip address add 10.2.0.1/24 dev a");
    let told = watch.drain().expect("it can be read");
    assert!(told.iter().any(|change| matches!(change, Change::Link(link) if link.name == "a")), "{told:?}");
    assert!(told.contains(&Change::Address(a)), "{told:?}");
    run("ip link del dev a");
    assert!(watch.drain().expect("it can be read").contains(&Change::LinkGone(a)));
}
