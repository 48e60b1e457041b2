//! Which interface a pod is found at when the ways to it agree, and when they do not.

use std::fs;

use super::*;
use crate::agent::fake::FakeLinks;

const UID: &str = "0a1b-2c3d";

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

struct Host {
    root: tempfile::TempDir,
    links: FakeLinks,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().expect("a directory"), links: FakeLinks::default() };
        fs::create_dir_all(host.root.path().join("cni")).expect("made");
        host
    }

    fn finder(&self) -> Finder {
        let below = |name: &str| self.root.path().join(name);
        Finder::new(Options { cni_results: below("cni"), cgroups: below("cgroup"), processes: below("proc") })
    }

    fn remember(&self, sandbox: &str) {
        let text = format!(
            r#"{{"kind":"cniCacheV1","ifName":"eth0","cniArgs":[["K8S_POD_UID","{UID}"]],
                "result":{{"interfaces":[{{"name":"eth0","sandbox":"{sandbox}"}}]}}}}"#
        );
        fs::write(self.root.path().join("cni/pods-eth0"), text).expect("written");
    }
}

fn sandbox(path: &str) -> Sandbox {
    Sandbox { path: path.into(), interface: "eth0".to_owned() }
}

#[test]
fn a_pod_is_where_all_ways_lead() {
    let host = Host::new();
    host.links.set("/run/netns/a", Some((5, &["10.0.0.3", "fe80::1"])));
    host.remember("/run/netns/a");
    let mut finder = host.finder();
    finder.tell(UID, sandbox("/run/netns/a"));
    host.links.routes.borrow_mut().insert(address("10.0.0.3"), 5);
    let expected = Found {
        interface: (5, "veth5".to_owned()),
        addresses: vec![address("10.0.0.3")],
        sockets: Ok(1005),
        sandbox: Some(sandbox("/run/netns/a")),
    };
    assert_eq!(finder.search().find(UID, &[], &host.links), Ok(expected.clone()));
    assert_eq!(finder.search().find(UID, &[address("10.0.0.3")], &host.links), Ok(expected));
}

#[test]
fn a_namespace_with_other_addresses_is_another_pod_s() {
    let host = Host::new();
    host.links.set("/run/netns/a", Some((5, &["10.0.0.3"])));
    host.remember("/run/netns/a");
    let error = host.finder().search().find(UID, &[address("10.0.0.9")], &host.links).expect_err("another's");
    assert_eq!(
        error,
        "its interface cannot be found: the results of CNI: /run/netns/a has the addresses [10.0.0.3], the pod has \
         [10.0.0.9]"
    );
}

#[test]
fn ways_that_disagree_are_told_and_none_is_taken() {
    let host = Host::new();
    host.links.set("/run/netns/a", Some((5, &["10.0.0.3"])));
    host.links.set("/run/netns/b", Some((6, &["10.0.0.3"])));
    host.remember("/run/netns/a");
    let mut finder = host.finder();
    finder.tell(UID, sandbox("/run/netns/b"));
    let error = finder.search().find(UID, &[], &host.links).expect_err("in doubt");
    assert_eq!(
        error,
        "its interface is in doubt, so that none is enforced: the network plugin lead to veth6, the results of CNI \
         lead to veth5"
    );
    finder.retain(&BTreeSet::new());
    assert_eq!(finder.search().find(UID, &[], &host.links).expect("found").interface.0, 5);
}

#[test]
fn a_route_alone_leads_to_a_pair_and_nothing_leads_nowhere() {
    let host = Host::new();
    let finder = host.finder();
    assert!(
        finder
            .search()
            .find(UID, &[], &host.links)
            .expect_err("not there")
            .contains("not set up on this node yet")
    );
    host.links.set("/run/netns/a", Some((5, &["10.0.0.3"])));
    host.links.routes.borrow_mut().insert(address("10.0.0.3"), 5);
    let found = finder.search().find(UID, &[address("10.0.0.3")], &host.links).expect("found");
    let (interface, sockets) =
        ((5, "veth5".to_owned()), Err("its network namespace is not known".to_owned()));
    assert_eq!(found, Found { interface, addresses: Vec::new(), sockets, sandbox: None });
}

/// While a pod's interface is away, the way to its address may be the node's uplink: no pod's policy belongs there.
#[test]
fn a_route_counts_for_nothing_against_a_namespace_without_the_interface() {
    let host = Host::new();
    host.remember("/run/netns/a");
    host.links.set("/run/netns/other", Some((2, &["192.0.2.11"])));
    host.links.routes.borrow_mut().insert(address("10.0.0.3"), 2);
    let refused = host.finder().search().find(UID, &[address("10.0.0.3")], &host.links);
    assert!(refused.expect_err("it has no interface").contains("its interface cannot be found"));
}
