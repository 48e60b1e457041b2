//! What becomes of pods as an API server serves them.

use std::sync::Arc;

use super::*;

/// A running pod of a Deployment on the node `here`.
pub(crate) fn running(name: &str, namespace: &str) -> Pod {
    let port = |name: &str, container_port, protocol: &str| ContainerPort {
        name: name.to_owned(),
        container_port,
        protocol: protocol.to_owned(),
    };
    let labels = [("app", "web"), ("pod-template-hash", "5d4f")];
    Pod {
        metadata: Some(Metadata {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            uid: "u-1".to_owned(),
            resource_version: "7".to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            owner_references: vec![owner("ReplicaSet", "web-5d4f")],
        }),
        spec: Some(PodSpec {
            containers: vec![
                container(vec![port("http", 8080, "TCP"), port("", 9, "")]),
                container(vec![port("dns", 53, "UDP"), port("odd", 70_000, "")]),
            ],
            service_account_name: "shop".to_owned(),
            node_name: "here".to_owned(),
            host_network: false,
            init_containers: vec![container(vec![port("side", 1, "")])],
            ephemeral_containers: Vec::new(),
        }),
        status: Some(PodStatus {
            phase: "Running".to_owned(),
            conditions: Vec::new(),
            pod_ip: "10.0.0.5".to_owned(),
            pod_ips: ["10.0.0.5", "fd00::5"].map(|ip| PodIp { ip: ip.to_owned() }).into(),
        }),
    }
}

/// A pod that has labels, one address or none and a node.
pub(crate) fn labelled(name: &str, app: &str, address: &str, node: &str, uid: &str) -> Pod {
    let mut pod = running(name, "n");
    let metadata = pod.metadata.as_mut().expect("metadata");
    metadata.labels = BTreeMap::from([("app".to_owned(), app.to_owned())]);
    metadata.uid = uid.to_owned();
    metadata.owner_references.clear();
    node.clone_into(&mut pod.spec.as_mut().expect("a spec").node_name);
    let ips = (!address.is_empty()).then(|| PodIp { ip: address.to_owned() });
    pod.status = Some(PodStatus {
        phase: "Running".to_owned(),
        conditions: Vec::new(),
        pod_ip: address.to_owned(),
        pod_ips: ips.into_iter().collect(),
    });
    pod
}

/// The same pod in another phase.
pub(crate) fn in_phase(mut pod: Pod, phase: &str) -> Pod {
    phase.clone_into(&mut pod.status.as_mut().expect("a status").phase);
    pod
}

/// The same pod with a container that may change its network.
pub(crate) fn administered(mut pod: Pod) -> Pod {
    let spec = pod.spec.as_mut().expect("a spec");
    spec.containers[0].security_context = Some(SecurityContext { privileged: true, capabilities: None });
    pod
}

fn container(ports: Vec<ContainerPort>) -> Container {
    Container { ports, ..Container::default() }
}

fn owner(kind: &str, name: &str) -> OwnerReference {
    OwnerReference { kind: kind.to_owned(), name: name.to_owned(), controller: true }
}

fn pod(change: impl FnOnce(&mut Metadata, &mut PodSpec, &mut PodStatus)) -> Option<Workload> {
    let mut pod = running("web-5d4f-x2x", "shop");
    let Pod { metadata: Some(metadata), spec: Some(spec), status: Some(status) } = &mut pod else {
        panic!("it has all parts");
    };
    change(metadata, spec, status);
    pod.workload("here", &mut Shared::default())
}

#[test]
fn a_pod_is_a_workload_with_all_that_rules_refer_to() {
    let port = |name: &str, protocol, port| NamedPort { name: name.to_owned(), protocol, port };
    let labels = [("app", "web"), ("pod-template-hash", "5d4f")];
    let expected = Workload {
        id: WorkloadId::new("shop", "web-5d4f-x2x"),
        labels: Arc::new(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        service_account: Some("shop".into()),
        controller: Some("Deployment/web".into()),
        addresses: ["10.0.0.5", "fd00::5"].map(|address| address.parse().expect("an address")).to_vec(),
        ports: [
            port("http", Protocol::TCP, 8080),
            port("dns", Protocol::UDP, 53),
            port("side", Protocol::TCP, 1),
        ]
        .into(),
        local: true,
    };
    assert_eq!(pod(|_, _, _| {}), Some(expected));
}

#[test]
fn a_pod_without_a_network_of_its_own_is_no_workload() {
    assert_eq!(pod(|_, spec, _| spec.host_network = true), None);
    assert_eq!(pod(|_, _, status| status.phase = "Succeeded".to_owned()), None);
    assert_eq!(pod(|_, _, status| status.phase = "Failed".to_owned()), None);
    let pending = pod(|_, _, status| *status = PodStatus::default()).expect("a workload");
    assert_eq!(pending.addresses, Vec::<IpAddr>::new());
}

#[test]
fn a_pod_of_another_node_is_not_local_and_its_controller_may_be_any() {
    let elsewhere = pod(|_, spec, _| spec.node_name = "there".to_owned()).expect("a workload");
    assert!(!elsewhere.local);
    let controller = |owners: Vec<OwnerReference>| {
        let controller =
            pod(|metadata, _, _| metadata.owner_references = owners).expect("a workload").controller;
        controller.map(|controller| controller.to_string())
    };
    assert_eq!(controller(vec![owner("StatefulSet", "db")]), Some("StatefulSet/db".to_owned()));
    assert_eq!(controller(vec![owner("ReplicaSet", "other-77")]), Some("ReplicaSet/other-77".to_owned()));
    assert_eq!(controller(Vec::new()), None);
}

/// Who may change the network of a pod whose containers have a capability: one of its containers, of its first ones or of those
/// added later.
fn administrator(capability: &str, of: &str, is_prepared: &str) -> Administrator {
    let mut pod = running("web-5d4f-x2x", "shop");
    let (Some(spec), Some(status)) = (&mut pod.spec, &mut pod.status) else { panic!("it has both") };
    let capabilities = Some(Capabilities { add: vec!["CHOWN".to_owned(), capability.to_owned()] });
    let one = Container {
        security_context: Some(SecurityContext { capabilities, privileged: false }),
        restart_policy: if of == "sidecar" { "Always".to_owned() } else { String::new() },
        ..Container::default()
    };
    match of {
        "container" => spec.containers.push(one),
        "first" | "sidecar" => spec.init_containers.push(one),
        _ => spec.ephemeral_containers.push(EphemeralContainer { common: Some(one) }),
    }
    let condition =
        |kind: &str, status: &str| PodCondition { kind: kind.to_owned(), status: status.to_owned() };
    status.conditions = vec![condition("Ready", "True"), condition("Initialized", is_prepared)];
    pod.administrator()
}

#[test]
fn whoever_has_the_capability_may_change_the_network_as_long_as_it_runs() {
    use Administrator::{Container, None, Preparation};
    for name in ["NET_ADMIN", "CAP_NET_ADMIN", "SYS_ADMIN", "SYS_MODULE", "ALL"] {
        assert_eq!(administrator(name, "container", "True"), Container, "{name}");
    }
    assert_eq!(administrator("NET_RAW", "container", "True"), None);
    for of in ["sidecar", "ephemeral"] {
        assert_eq!(administrator("NET_ADMIN", of, "True"), Container, "{of}");
    }
    assert_eq!(administrator("NET_ADMIN", "first", "False"), Preparation);
    assert_eq!(administrator("NET_ADMIN", "first", "True"), None);
    assert_eq!(running("a", "b").administrator(), None);
    assert_eq!(administered(running("a", "b")).administrator(), Container);
}
