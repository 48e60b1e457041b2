//! The objects of a large cluster, as an API server keeps them: with all that controllers and kubelets write into them, because
//! that is what agents are sent. The same number is the same object. Owns what they look like; never where they go.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

/// Pods of one deployment, and endpoints of its service.
pub const REPLICAS: usize = 10;
/// Policies of a namespace.
const POLICIES: usize = 10;
/// Namespaces of a team.
const TEAM: usize = 8;
/// Images that a kubelet tells of.
const IMAGES: usize = 20;
/// What pods are labelled with, and policies speak of.
pub(super) const TIERS: [&str; 3] = ["frontend", "backend", "data"];
/// When everything was made.
const MADE: &str = "2026-01-01T00:00:00Z";

/// How large a cluster is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Size {
    /// Nodes.
    pub nodes: usize,
    /// Pods, a tenth as many deployments and services.
    pub pods: usize,
    /// Policies, a tenth as many namespaces.
    pub policies: usize,
    /// Pods of the first node; the others have their share of the rest.
    pub local: usize,
}

impl Size {
    /// Namespaces.
    pub fn namespaces(self) -> usize {
        (self.policies / POLICIES).max(1)
    }

    /// Deployments, and services.
    pub fn deployments(self) -> usize {
        (self.pods / REPLICAS).max(1)
    }

    /// The node that a pod is on.
    fn node_of(self, pod: usize) -> usize {
        if pod < self.local { 0 } else { 1 + pod % (self.nodes - 1).max(1) }
    }
}

/// An object and where etcd has it.
pub type Kept = (String, Value);

/// Every object but those that belong to definitions of other groups than the cluster's own.
pub fn all(size: Size) -> impl Iterator<Item = Kept> {
    let namespaces = (0..size.namespaces()).map(namespace);
    let nodes = (0..size.nodes).map(node);
    let pods = (0..size.pods).map(move |number| {
        let it = pod(size, number, &pod_name(size, number), address(number));
        (format!("pods/{}/{}", text(&it, "namespace"), text(&it, "name")), it)
    });
    let services = (0..size.deployments()).flat_map(move |number| service(size, number));
    let policies = (0..size.policies).map(move |number| policy(size, number));
    namespaces.chain(nodes).chain(pods).chain(services).chain(policies)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Name of a namespace.
pub fn namespace_name(number: usize) -> String {
    format!("service-{number}")
}

/// Namespace of a deployment, and its name there.
pub fn deployment(size: Size, number: usize) -> (String, String) {
    let number = number % size.deployments();
    (namespace_name(number % size.namespaces()), format!("app-{}", number / size.namespaces()))
}

/// Name of a node.
pub fn node_name(number: usize) -> String {
    format!("node-{number:04}.example.internal")
}

/// Name of a pod.
pub fn pod_name(size: Size, number: usize) -> String {
    let hash = template_hash(number % size.deployments());
    format!("{}-{hash}-{number:05}", deployment(size, number).1)
}

/// Address of a pod.
pub fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 2)) + number as u32)
}

fn template_hash(deployment: usize) -> String {
    format!("{:010x}", deployment * 7919 + 0x1_0000)
}

fn uid(kind: u16, number: usize) -> String {
    format!("{kind:08x}-5ca1-4e00-8000-{number:012x}")
}

/// Who has written which fields, as an API server keeps it: `fields` is about as long as the part it speaks of.
fn managed(manager: &str, subresource: &str, fields: Value) -> Value {
    let mut entry = json!({
        "manager": manager, "operation": "Update", "apiVersion": "v1", "time": MADE,
        "fieldsType": "FieldsV1", "fieldsV1": fields,
    });
    if !subresource.is_empty() {
        entry["subresource"] = subresource.into();
    }
    entry
}

fn namespace(number: usize) -> Kept {
    let name = namespace_name(number);
    let environment = if number.is_multiple_of(4) { "staging" } else { "production" };
    let object = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "uid": uid(1, number), "creationTimestamp": MADE, "labels": {
            "kubernetes.io/metadata.name": name, "team": format!("team-{}", number / TEAM),
            "environment": environment, "pod-security.kubernetes.io/enforce": "baseline",
        }},
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    });
    (format!("namespaces/{name}"), object)
}

fn node(number: usize) -> Kept {
    let name = node_name(number);
    let images: Vec<Value> = (0..IMAGES)
        .map(|image| {
            let repository = format!("registry.example.com/platform/component-{image}");
            let digest = format!("{:064x}", image * 65_537 + 1);
            json!({"names": [format!("{repository}@sha256:{digest}"), format!("{repository}:v1.{image}.0")],
                "sizeBytes": 40_000_000 + image})
        })
        .collect();
    let room = json!({"cpu": "16", "ephemeral-storage": "101430960Ki", "hugepages-1Gi": "0", "hugepages-2Mi": "0",
        "memory": "65842788Ki", "pods": "110"});
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "uid": uid(2, number), "creationTimestamp": MADE,
            "labels": {
                "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
                "node.kubernetes.io/instance-type": "m6i.4xlarge", "topology.kubernetes.io/region": "eu-central-1",
                "topology.kubernetes.io/zone": format!("eu-central-1{}", ["a", "b", "c"][number % 3]),
                "example.com/pool": "general",
            },
            "annotations": {
                "node.alpha.kubernetes.io/ttl": "300",
                "csi.volume.kubernetes.io/nodeid": format!("{{\"csi.example.com\":\"i-{number:017x}\"}}"),
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
            "managedFields": [
                managed("kubelet", "", json!({"f:metadata": {"f:annotations": {".": {}}, "f:labels": {".": {}}}})),
                managed("kubelet", "status", json!({"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {}}, "f:images": {}}})),
            ],
        },
        "spec": {"podCIDR": "10.128.0.0/24", "providerID": format!("aws:///eu-central-1a/i-{number:017x}")},
        "status": {
            "addresses": [{"type": "InternalIP", "address": node_address(number).to_string()},
                {"type": "Hostname", "address": name}],
            "capacity": room, "allocatable": room, "conditions": node_conditions(MADE), "images": images,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {"architecture": "amd64", "bootID": uid(3, number), "containerRuntimeVersion": "containerd://2.1.4",
                "kernelVersion": "6.12.0-1-amd64", "kubeProxyVersion": "", "kubeletVersion": "v1.36.0",
                "machineID": uid(4, number), "operatingSystem": "linux", "osImage": "Debian GNU/Linux 13 (trixie)",
                "systemUUID": uid(5, number)},
        },
    });
    (format!("minions/{name}"), object)
}

/// What a kubelet says of its node at a moment.
pub fn node_conditions(at: &str) -> Value {
    let one = |kind: &str, status: &str, reason: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": format!("kubelet says {reason}"),
            "lastHeartbeatTime": at, "lastTransitionTime": MADE})
    };
    json!([
        one("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        one("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        one("PIDPressure", "False", "KubeletHasSufficientPID"),
        one("Ready", "True", "KubeletReady"),
    ])
}

fn node_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(172, 16, 0, 1)) + number as u32)
}

/// A pod of the deployment of `number`, with this name and address, as its kubelet tells of it once it is ready.
pub fn pod(size: Size, number: usize, name: &str, address: Ipv4Addr) -> Value {
    let (namespace, app) = deployment(size, number);
    let of = number % size.deployments();
    let hash = template_hash(of);
    let node = size.node_of(number);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "generateName": format!("{app}-{hash}-"),
            "uid": uid(6, number), "creationTimestamp": MADE,
            "labels": {
                "app": app, "app.kubernetes.io/name": app, "app.kubernetes.io/instance": format!("{app}-{namespace}"),
                "app.kubernetes.io/version": "1.27.3", "tier": TIERS[of % TIERS.len()],
                "pod-template-hash": hash,
            },
            "annotations": {
                "kubectl.kubernetes.io/default-container": "app", "prometheus.io/scrape": "true",
                "prometheus.io/port": "9090", "checksum/config": format!("{:064x}", of * 104_729 + 11),
            },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-{hash}"),
                "uid": uid(7, of), "controller": true, "blockOwnerDeletion": true}],
            "managedFields": pod_fields(),
        },
        "spec": pod_spec(&app, &node_name(node)),
        "status": pod_status(&app, node, address),
    })
}

fn pod_fields() -> Value {
    let container = json!({".": {}, "f:env": {".": {}, "k:{\"name\":\"LOG_LEVEL\"}": {".": {}, "f:name": {}, "f:value": {}}},
        "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:ports": {".": {},
        "k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:name": {}, "f:protocol": {}}},
        "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}});
    let condition =
        json!({".": {}, "f:lastProbeTime": {}, "f:lastTransitionTime": {}, "f:status": {}, "f:type": {}});
    json!([
        managed(
            "kube-controller-manager",
            "",
            json!({
            "f:metadata": {"f:annotations": {".": {}, "f:checksum/config": {}, "f:prometheus.io/port": {}},
                "f:generateName": {}, "f:labels": {".": {}, "f:app": {}, "f:app.kubernetes.io/name": {}, "f:tier": {},
                "f:pod-template-hash": {}}, "f:ownerReferences": {".": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"app\"}": container, "k:{\"name\":\"sidecar\"}": container},
                "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {},
                "f:securityContext": {}, "f:serviceAccount": {}, "f:serviceAccountName": {},
                "f:terminationGracePeriodSeconds": {}}})
        ),
        managed(
            "kubelet",
            "status",
            json!({"f:status": {"f:conditions": {"k:{\"type\":\"ContainersReady\"}": condition,
            "k:{\"type\":\"Initialized\"}": condition, "k:{\"type\":\"Ready\"}": condition},
            "f:containerStatuses": {}, "f:hostIP": {}, "f:hostIPs": {}, "f:phase": {}, "f:podIP": {},
            "f:podIPs": {".": {}}, "f:startTime": {}}})
        ),
    ])
}

fn pod_spec(app: &str, node: &str) -> Value {
    let container = |name: &str, port: u16, port_name: &str| {
        json!({
            "name": name, "image": format!("registry.example.com/shop/{app}-{name}:1.27.3"), "imagePullPolicy": "IfNotPresent",
            "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "NODE_NAME",
                "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}}],
            "ports": [{"name": port_name, "containerPort": port, "protocol": "TCP"}],
            "resources": {"limits": {"memory": "512Mi"}, "requests": {"cpu": "250m", "memory": "256Mi"}},
            "readinessProbe": {"httpGet": {"path": "/ready", "port": port, "scheme": "HTTP"}, "timeoutSeconds": 1,
                "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "volumeMounts": [{"name": "config", "mountPath": "/etc/app", "readOnly": true},
                {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true}],
        })
    };
    let tolerates = |taint: &str| {
        json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 300})
    };
    json!({
        "nodeName": node, "serviceAccountName": app, "serviceAccount": app, "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
        "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority", "priority": 0,
        "securityContext": {"runAsNonRoot": true, "fsGroup": 2000},
        "containers": [container("app", 8080, "http"), container("sidecar", 9090, "metrics")],
        "tolerations": [tolerates("not-ready"), tolerates("unreachable")],
        "volumes": [{"name": "config", "configMap": {"name": format!("{app}-config"), "defaultMode": 420}},
            {"name": "token", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}]}}],
    })
}

fn pod_status(app: &str, node: usize, address: Ipv4Addr) -> Value {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": MADE});
    let container = |name: &str| {
        let image = format!("registry.example.com/shop/{app}-{name}");
        let digest = format!("{:064x}", app.len() * 31 + name.len());
        json!({"name": name, "image": format!("{image}:1.27.3"), "imageID": format!("{image}@sha256:{digest}"),
            "containerID": format!("containerd://{digest}"), "ready": true, "started": true, "restartCount": 0,
            "state": {"running": {"startedAt": MADE}}, "lastState": {}})
    };
    let conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    json!({
        "phase": "Running", "qosClass": "Burstable", "startTime": MADE, "hostIP": node_address(node).to_string(),
        "hostIPs": [{"ip": node_address(node).to_string()}], "podIP": address.to_string(),
        "podIPs": [{"ip": address.to_string()}], "conditions": conditions.map(condition),
        "containerStatuses": [container("app"), container("sidecar")],
    })
}

/// The service of a deployment, the record of its address and its slice.
fn service(size: Size, number: usize) -> [Kept; 3] {
    let (namespace, app) = deployment(size, number);
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + number as u32).to_string();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": app, "namespace": namespace, "uid": uid(8, number), "creationTimestamp": MADE,
            "labels": {"app": app}},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "selector": {"app": app},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}]},
        "status": {"loadBalancer": {}},
    });
    let record = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": address, "uid": uid(9, number), "creationTimestamp": MADE, "labels": {
            "ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": app}},
    });
    let members = (number..size.pods).step_by(size.deployments());
    let endpoints: Vec<Value> =
        members.map(|pod| endpoint(size, pod, &pod_name(size, pod), self::address(pod))).collect();
    let slice_name = slice_name(&app);
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": slice_name, "namespace": namespace, "uid": uid(10, number), "creationTimestamp": MADE,
            "labels": {"kubernetes.io/service-name": app,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": app, "uid": uid(8, number),
                "controller": true, "blockOwnerDeletion": true}]},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    });
    [
        (format!("services/specs/{namespace}/{app}"), service),
        (format!("ipaddresses/{address}"), record),
        (format!("endpointslices/{namespace}/{slice_name}"), slice),
    ]
}

/// Name of the slice of a service.
pub fn slice_name(app: &str) -> String {
    format!("{app}-slice")
}

/// A pod as an endpoint of its service.
pub fn endpoint(size: Size, number: usize, name: &str, address: Ipv4Addr) -> Value {
    let (namespace, _) = deployment(size, number);
    json!({
        "addresses": [address.to_string()], "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": node_name(size.node_of(number)), "zone": "eu-central-1a",
        "targetRef": {"kind": "Pod", "name": name, "namespace": namespace, "uid": uid(6, number)},
    })
}

/// Policy `number`: every namespace has one of each shape.
pub fn policy(size: Size, number: usize) -> Kept {
    let (group, shape) = (number % size.namespaces(), number / size.namespaces());
    let (namespace, apps) = (namespace_name(group), (size.deployments() / size.namespaces()).max(1));
    let metadata = json!({"name": format!("policy-{shape}"), "namespace": namespace, "uid": uid(11, number),
        "generation": 1, "creationTimestamp": MADE, "labels": {"app.kubernetes.io/managed-by": "argocd"}});
    let any_app = |salt: usize| format!("app-{}", (number * 31 + salt) % apps);
    if shape == 8 {
        let fqdns = [format!("api-{}.example.com", group % 50), format!("*.{}.example.org", group % 20)];
        let object = json!({"apiVersion": "enforcer.dev/v1alpha1", "kind": "SegmentPolicy", "metadata": metadata,
            "spec": {"subject": select(&any_app(1)), "egress": [{"action": "Allow", "to": [{"fqdns": fqdns}],
                "ports": [{"protocol": "TCP", "port": 443}]}]}});
        return (format!("enforcer.dev/segmentpolicies/{namespace}/policy-{shape}"), object);
    }
    let other = namespace_name((group * 13 + 7) % size.namespaces());
    let spec = spec(shape, group, (&any_app(1), &any_app(2)), &other);
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec});
    (format!("networkpolicies/{namespace}/policy-{shape}"), object)
}

fn select(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

/// Rules of a NetworkPolicy of a shape.
fn spec(shape: usize, group: usize, (subject, peer): (&str, &str), other: &str) -> Value {
    let of_namespace = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let port = |number: u16| json!({"protocol": "TCP", "port": number});
    let named = |name: &str| json!({"protocol": "TCP", "port": name});
    let (ingress, egress) = (["Ingress"], ["Egress"]);
    match shape {
        0 => json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
        1 => json!({"podSelector": {}, "policyTypes": egress, "egress": [{"to": [{
            "namespaceSelector": of_namespace("service-0"), "podSelector": select("app-0")}],
            "ports": [{"protocol": "UDP", "port": 53}, port(53)]}]}),
        2 => json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}]}], "egress": [{"to": [{"podSelector": {}}]}]}),
        3 => json!({"podSelector": select(subject), "policyTypes": ingress, "ingress": [{"from": [{
            "namespaceSelector": of_namespace(other), "podSelector": select(peer)}], "ports": [named("http")]}]}),
        4 => json!({"podSelector": select(subject), "policyTypes": egress, "egress": [{"to": [{
            "namespaceSelector": of_namespace(other), "podSelector": select(peer)}], "ports": [named("http"), port(8443)]}]}),
        5 => json!({"podSelector": select(subject), "policyTypes": egress, "egress": [{"to": [{"ipBlock": {
            "cidr": "198.18.0.0/15", "except": [format!("198.18.{}.0/24", group % 256)]}}],
            "ports": [{"protocol": "TCP", "port": 8000, "endPort": 8999}]}]}),
        6 => json!({"podSelector": {}, "policyTypes": ingress, "ingress": [{"from": [{"namespaceSelector": {
            "matchLabels": {"team": format!("team-{}", group / TEAM)}}}], "ports": [named("metrics")]}]}),
        7 => {
            json!({"podSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["data"]}]},
            "policyTypes": ingress, "ingress": [{"from": [{"podSelector": {"matchExpressions": [{"key": "tier",
                "operator": "NotIn", "values": ["frontend"]}]}}], "ports": [port(5432), port(6379)]}]})
        }
        _ => json!({"podSelector": select(subject), "policyTypes": ingress, "ingress": [{"from": [{"ipBlock":
            {"cidr": format!("203.0.{}.0/24", group % 256)}}, {"ipBlock": {"cidr": "192.0.2.0/25"}}],
            "ports": [port(443), port(80)]}]}),
    }
}
