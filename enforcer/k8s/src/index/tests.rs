//! What the index makes of what it is told.

use std::net::IpAddr;

use enforcer_core::object::Namespace;
use serde_json::json;

use super::*;
use crate::pod::tests::{administered, in_phase, labelled};

const PODS: Watched = Watched::Pods;
const POLICIES: Watched = Watched::Objects(Kind::NetworkPolicy);

fn pod(name: &str, uid: &str, node: &str, address: &str) -> Pod {
    labelled(name, "x", address, node, uid)
}

fn policy(name: &str, port: u32) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "n", "generation": port},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": port}]}]},
    })
}

fn names(changes: &Changes) -> Vec<(String, bool)> {
    let pods = changes.pods.iter().map(|(id, pod)| (id.to_string(), pod.is_some()));
    let objects = changes.objects.iter().map(|(key, object)| (key.to_string(), object.is_some()));
    pods.chain(objects).collect()
}

fn told(name: &str, is_there: bool) -> (String, bool) {
    (name.to_owned(), is_there)
}

#[test]
fn a_new_listing_takes_away_what_it_does_not_name() {
    let mut index = Index::new("here");
    index.begin(PODS);
    index.put_pod(&pod("a", "1", "here", "10.0.0.1"));
    index.put_pod(&pod("b", "2", "there", "10.0.0.2"));
    index.end(PODS);
    assert_eq!(names(&index.take()), [told("n/a", true), told("n/b", true)]);
    let uids =
        ["a", "b"].map(|name| index.pod(&WorkloadId::new("n", name)).expect("it is known").uid.to_string());
    assert_eq!(uids, ["1", ""], "only this node's pods are told apart by it");

    index.begin(PODS);
    index.put_pod(&pod("b", "2", "there", "10.0.0.2"));
    assert!(!index.has_changes(), "until it is whole, nothing is gone");
    index.end(PODS);
    assert_eq!(names(&index.take()), [told("n/a", false)]);
}

#[test]
fn what_says_nothing_new_is_no_change_and_a_pod_that_ends_is_gone() {
    let mut index = Index::new("here");
    index.put_pod(&pod("a", "1", "here", "10.0.0.1"));
    drop(index.take());
    index.put_pod(&pod("a", "1", "here", "10.0.0.1"));
    assert!(!index.has_changes());
    index.put_pod(&pod("a", "9", "here", "10.0.0.1"));
    assert_eq!(names(&index.take()), [told("n/a", true)], "another pod of that name");
    index.put_pod(&in_phase(pod("a", "9", "here", "10.0.0.1"), "Succeeded"));
    assert_eq!(names(&index.take()), [told("n/a", false)]);
}

#[test]
fn pods_with_the_same_labels_share_them() {
    let mut index = Index::new("here");
    index.put_pod(&pod("a", "1", "here", "10.0.0.1"));
    index.put_pod(&pod("b", "2", "here", "10.0.0.2"));
    let known = |name| index.pod(&WorkloadId::new("n", name)).expect("it is known");
    let labels = ["a", "b"].map(|name| Arc::clone(&known(name).workload.labels));
    assert!(Arc::ptr_eq(&labels[0], &labels[1]));
}

#[test]
fn an_object_that_is_refused_keeps_its_last_good_state() {
    let mut index = Index::new("here");
    index.put(Kind::NetworkPolicy, &policy("p", 80));
    assert_eq!(names(&index.take()), [told("NetworkPolicy n/p", true)]);
    let edition = index.edition();
    index.put(Kind::NetworkPolicy, &policy("p", 70_000));
    assert!(!index.has_changes());
    assert_ne!(index.edition(), edition);
    let entry = index.objects().values().next().expect("one");
    assert_eq!((entry.refusals.len(), entry.good.is_some(), entry.generation), (1, true, 70_000));
    assert!(entry.refusals[0].field.contains("ports[0].port"), "{:?}", entry.refusals);
    index.put(Kind::NetworkPolicy, &policy("p", 80));
    assert!(!index.has_changes(), "the state in force never changed");
    assert!(index.objects().values().all(|entry| entry.refusals.is_empty()));
}

#[test]
fn a_kind_that_is_not_served_counts_as_listed_only_where_the_cluster_may_do_without() {
    let mut index = Index::new("here");
    for kind in Watched::ALL {
        index.fail(kind, Trouble::Absent);
    }
    let fault = [Watched::Pods].into_iter().chain(
        [Kind::Namespace, Kind::Node, Kind::Service, Kind::EndpointSlice, Kind::NetworkPolicy]
            .map(Watched::Objects),
    );
    assert_eq!(index.unsynced().collect::<Vec<_>>(), fault.collect::<Vec<_>>());
    assert!(index.troubles().all(|(kind, _)| kind != Watched::Objects(Kind::ClusterNetworkPolicy)));
}

#[test]
fn trouble_leaves_what_is_known_and_ends_with_the_next_event() {
    let mut index = Index::new("here");
    index.begin(POLICIES);
    index.put(Kind::NetworkPolicy, &policy("p", 80));
    index.end(POLICIES);
    drop(index.take());
    index.fail(POLICIES, Trouble::Away("no route".to_owned()));
    assert!(!index.has_changes());
    let told: Vec<_> = index.troubles().map(|(kind, trouble)| (kind, trouble.clone())).collect();
    assert_eq!(told, [(POLICIES, Trouble::Away("no route".to_owned()))]);
    index.begin(POLICIES);
    index.end(POLICIES);
    assert_eq!(names(&index.take()), [told_gone()]);
    assert_eq!(index.troubles().count(), 0);
}

fn told_gone() -> (String, bool) {
    told("NetworkPolicy n/p", false)
}

#[test]
fn a_kind_that_is_followed_again_is_no_trouble_and_lists_are_counted() {
    let mut index = Index::new("here");
    index.begin(POLICIES);
    index.end(POLICIES);
    index.fail(POLICIES, Trouble::Away("no route".to_owned()));
    assert!(index.is_behind() && index.followed(POLICIES));
    assert!(!index.is_behind() && !index.followed(POLICIES));
    index.fail(Watched::Objects(Kind::Tier), Trouble::Absent);
    let lists: Vec<_> = index.lists().filter(|(_, lists)| *lists > 0).collect();
    assert_eq!(lists, [(POLICIES, 1)], "what is not served was not listed");
    assert_eq!(index.watches(|kind| kind == POLICIES), 2);
    assert_eq!(index.watches(|kind| kind != POLICIES), 0);
}

#[test]
fn other_kinds_become_the_core_s_values() {
    let mut index = Index::new("here");
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "n", "namespace": null, "labels": {"a": "b"}}, "spec": {"finalizers": ["kubernetes"]},
    });
    index.put(Kind::Namespace, &namespace);
    let objects: Vec<_> = index.take().objects.into_values().flatten().collect();
    let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
    let expected = Object::Namespace(Namespace { name: "n".to_owned(), labels });
    assert_eq!(objects.iter().map(|object| &**object).collect::<Vec<_>>(), [&expected]);
    let address: IpAddr = "10.0.0.1".parse().expect("an address");
    index.put_pod(&pod("a", "1", "here", "10.0.0.1"));
    assert_eq!(index.pod(&WorkloadId::new("n", "a")).expect("it is known").workload.addresses, [address]);
}

#[test]
fn who_may_change_the_network_of_a_pod_is_told_of_this_node_s_pods() {
    let mut index = Index::new("here");
    let told = |index: &mut Index| {
        let pods = index.take().pods.into_values().map(|pod| pod.expect("it is there").administrator);
        pods.collect::<Vec<_>>()
    };
    for node in ["here", "there"] {
        index.put_pod(&pod(node, "1", node, "10.0.0.1"));
    }
    assert_eq!(told(&mut index), [Administrator::None, Administrator::None]);
    for node in ["here", "there"] {
        index.put_pod(&administered(pod(node, "1", node, "10.0.0.1")));
    }
    assert_eq!(told(&mut index), [Administrator::Container]);
}
