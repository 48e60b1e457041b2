//! Which interface a pod is found at when the ways to it agree, and when they do not.

use std::fs;
use std::os::unix::fs::symlink;

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
        let options = Options {
            cni_results: below("cni"),
            cgroups: below("cgroup"),
            processes: below("proc"),
            ..Options::default()
        };
        Finder::new(options, None)
    }

    /// A finder that uses these ways only.
    fn finder_by(&self, ways: &[Way]) -> Finder {
        let mut finder = self.finder();
        finder.options.ways = ways.into();
        finder
    }

    /// A process of the pod, in a namespace that a symbolic link stands for.
    fn run(&self, namespace: &str) -> PathBuf {
        let processes = self.root.path().join("proc");
        let group = self.root.path().join("cgroup/kubepods").join(format!("pod{UID}"));
        fs::create_dir_all(&group).expect("made");
        fs::write(group.join("cgroup.procs"), "7\n").expect("written");
        for (process, namespace) in [("self", "net:[1]"), ("7", namespace)] {
            fs::create_dir_all(processes.join(process).join("ns")).expect("made");
            symlink(namespace, processes.join(process).join("ns/net")).expect("linked");
        }
        processes.join("7/ns/net")
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
    let evidence = |ways: &[Way]| Evidence { ways: ways.into(), doubts: Vec::new() };
    let named = evidence(&[Way::Plugin, Way::Results]);
    assert_eq!(finder.search().find(UID, &[], &host.links), Ok((expected.clone(), named)));
    let routed = evidence(&[Way::Plugin, Way::Results, Way::Route]);
    assert_eq!(finder.search().find(UID, &[address("10.0.0.3")], &host.links), Ok((expected, routed)));
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
        "its interface is in doubt, so that it is not attached anywhere else: veth6 by the network plugin, veth5 by \
         the results of CNI"
    );
    finder.retain(&BTreeSet::new());
    assert_eq!(finder.search().find(UID, &[], &host.links).expect("found").0.interface.0, 5);
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
    let (found, evidence) = finder.search().find(UID, &[address("10.0.0.3")], &host.links).expect("found");
    assert_eq!(evidence.ways, [Way::Route]);
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

#[test]
fn each_way_leads_there_alone_and_none_that_is_not_used() {
    let host = Host::new();
    host.remember("/run/netns/a");
    host.links.set("/run/netns/a", Some((5, &["10.0.0.3"])));
    let process = host.run("net:[2]");
    host.links.set(process.to_str().expect("text"), Some((5, &["10.0.0.3"])));
    host.links.routes.borrow_mut().insert(address("10.0.0.3"), 5);
    let ways = |used: &[Way]| {
        let mut finder = host.finder_by(used);
        finder.tell(UID, sandbox("/run/netns/a"));
        let found = finder.search().find(UID, &[address("10.0.0.3")], &host.links);
        found.map(|(found, evidence)| (found.interface.0, evidence.ways))
    };
    for way in [Way::Plugin, Way::Results, Way::Processes, Way::Route] {
        assert_eq!(ways(&[way]), Ok((5, vec![way])));
    }
    let nothing = host.finder_by(&[Way::Processes]).search().find("another", &[], &host.links);
    let reason = "it is not set up on this node yet: nothing leads to its interface, looked for by processes";
    assert_eq!(nothing.expect_err("it is not there"), reason);
    let all = vec![Way::Plugin, Way::Results, Way::Processes, Way::Route];
    assert_eq!(ways(&Way::ALL), Ok((5, all)));
}

/// As a result of CNI that is left of an earlier pod, or was given to another.
#[test]
fn a_way_that_leads_to_another_pod_s_namespace_is_told_beside_the_others() {
    let host = Host::new();
    host.remember("/run/netns/other");
    host.links.set("/run/netns/other", Some((6, &["10.0.0.4"])));
    let process = host.run("net:[2]");
    host.links.set(process.to_str().expect("text"), Some((5, &["10.0.0.3"])));
    let found = host.finder().search().find(UID, &[address("10.0.0.3")], &host.links);
    let (found, evidence) = found.expect("its processes lead to it");
    let doubt = "the results of CNI: /run/netns/other has the addresses [10.0.0.4], the pod has [10.0.0.3]"
        .to_owned();
    assert_eq!(
        (found.interface.0, evidence),
        (5, Evidence { ways: vec![Way::Processes], doubts: vec![doubt] })
    );
}
