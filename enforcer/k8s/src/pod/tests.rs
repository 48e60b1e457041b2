//! What becomes of pods as an API server serves them.

use super::*;
use serde_json::{Value, json};

fn pod(change: impl FnOnce(&mut Value)) -> Option<Workload> {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web-5d4f-x2x", "namespace": "shop", "uid": "u-1", "resourceVersion": "7",
            "labels": {"app": "web", "pod-template-hash": "5d4f"},
            "annotations": {"a": "b"},
            "managedFields": [{"manager": "kubelet"}],
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d4f", "uid": "u-0", "controller": true}
            ],
        },
        "spec": {
            "nodeName": "here", "serviceAccountName": "shop",
            "containers": [
                {"name": "a", "image": "a", "ports": [
                    {"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"containerPort": 9}]},
                {"name": "b", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
            ],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}, {"ip": "fd00::5"}]},
    });
    change(&mut value);
    serde_json::from_value::<Pod>(value).expect("a pod").workload("here")
}

#[test]
fn a_pod_is_a_workload_with_all_that_rules_refer_to() {
    let port = |name: &str, protocol, port| NamedPort { name: name.to_owned(), protocol, port };
    let labels = [("app", "web"), ("pod-template-hash", "5d4f")];
    let expected = Workload {
        id: WorkloadId::new("shop", "web-5d4f-x2x"),
        labels: Arc::new(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        service_account: Some("shop".to_owned()),
        controller: Some("Deployment/web".to_owned()),
        addresses: ["10.0.0.5", "fd00::5"].map(|address| address.parse().expect("an address")).to_vec(),
        ports: vec![port("http", Protocol::TCP, 8080), port("dns", Protocol::UDP, 53)],
        local: true,
    };
    assert_eq!(pod(|_| {}), Some(expected));
}

#[test]
fn a_pod_without_a_network_of_its_own_is_no_workload() {
    assert_eq!(pod(|pod| pod["spec"]["hostNetwork"] = json!(true)), None);
    assert_eq!(pod(|pod| pod["status"]["phase"] = json!("Succeeded")), None);
    assert_eq!(pod(|pod| pod["status"]["phase"] = json!("Failed")), None);
    let pending = pod(|pod| pod["status"] = json!({"phase": "Pending"})).expect("a workload");
    assert_eq!(pending.addresses, Vec::<IpAddr>::new());
}

#[test]
fn a_pod_of_another_node_is_not_local_and_its_controller_may_be_any() {
    let elsewhere = pod(|pod| pod["spec"]["nodeName"] = json!("there")).expect("a workload");
    assert!(!elsewhere.local);
    let owner = |kind: &str, name: &str| {
        let owners =
            json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": "u", "controller": true}]);
        pod(|pod| pod["metadata"]["ownerReferences"] = owners).expect("a workload").controller
    };
    assert_eq!(owner("StatefulSet", "db"), Some("StatefulSet/db".to_owned()));
    assert_eq!(owner("ReplicaSet", "other-77"), Some("ReplicaSet/other-77".to_owned()));
    assert_eq!(pod(|pod| pod["metadata"]["ownerReferences"] = json!([])).expect("one").controller, None);
}
