//! The control plane, on the first node: its certificates, and etcd, API server, controllers and scheduler as processes. Owns
//! their arguments and their order.

use anyhow::{Context, Result};

use super::{Kube, PODS, SERVICES, address, addresses, node_name};

/// What runs.
pub(super) const PROGRAMS: [&str; 4] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Certificates of clients: name, user, group.
const CLIENTS: [(&str, &str, Option<&str>); 5] = [
    ("administrator", "administrator", Some("system:masters")),
    ("kube-apiserver", "kube-apiserver", Some("system:masters")),
    ("kube-controller-manager", "system:kube-controller-manager", None),
    ("kube-scheduler", "system:kube-scheduler", None),
    ("kube-proxy", "system:kube-proxy", None),
];

/// Names that pods reach the API server by.
const NAMES: [&str; 3] = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"];

impl Kube {
    /// Makes every certificate of the cluster.
    pub(super) fn certify(&self) -> Result<()> {
        let own = ["127.0.0.1", "10.96.0.1", "fd00:10:96::1"].map(|text| text.parse().expect("an address"));
        self.pki.serving("kube-apiserver-serving", &NAMES, &[&own[..], &addresses(0)].concat())?;
        for (name, user, group) in CLIENTS {
            self.pki.client(name, user, group)?;
        }
        for index in 0..self.setup.nodes {
            let node = node_name(index);
            self.pki.client(&node, &format!("system:node:{node}"), Some("system:nodes"))?;
            self.pki.serving(&format!("{node}-serving"), &[&node], &addresses(index))?;
        }
        Ok(())
    }

    /// Starts the control plane. Returns once the API server is ready.
    pub(super) fn start_control(&self) -> Result<()> {
        let node = &self.nodes[0];
        node.daemon("etcd", "etcd", &self.etcd())?;
        self.start_api_server()?;
        let with = |name: &str, more: &[String]| -> Vec<String> {
            let kubeconfig = self.pki.file(&format!("{name}.kubeconfig"));
            let uses = ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"];
            let own = uses.map(|flag| format!("--{flag}={kubeconfig}"));
            [&own[..], &["--leader-elect=false".to_owned()], more].concat()
        };
        let controllers = with("kube-controller-manager", &self.controllers());
        node.daemon("kube-controller-manager", "kube-controller-manager", &controllers)?;
        node.daemon("kube-scheduler", "kube-scheduler", &with("kube-scheduler", &[]))
    }

    /// Starts the API server, for the first time or again. Returns once it is ready.
    ///
    /// # Errors
    /// When it does not get ready; with its last words.
    pub fn start_api_server(&self) -> Result<()> {
        let node = &self.nodes[0];
        let is_free = || {
            let asked = node.output("kubectl", &["get", "--raw", "/livez", "--request-timeout=5s"])?;
            Ok(String::from_utf8_lossy(&asked.stderr).contains("refused").then_some(()))
        };
        self.wait("the one before has ended", is_free)?;
        node.daemon("kube-apiserver", "kube-apiserver", &self.api_server())?;
        let ready =
            || Ok(node.output("kubectl", &["get", "--raw", "/readyz"])?.status.success().then_some(()));
        self.wait("the API server is ready", ready).with_context(|| node.last_words("kube-apiserver"))
    }

    fn etcd(&self) -> Vec<String> {
        let data = self.file(&node_name(0)).join("etcd");
        let mut arguments =
            words("--unsafe-no-fsync --log-level=warn --listen-peer-urls=http://127.0.0.1:2380");
        arguments.extend(words("--listen-client-urls=http://127.0.0.1:2379"));
        arguments.extend(words("--advertise-client-urls=http://127.0.0.1:2379"));
        arguments.push(format!("--data-dir={}", data.display()));
        arguments
    }

    fn api_server(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.pki.file(name));
        let mut arguments =
            words("--etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443");
        arguments.extend(words("--authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction"));
        arguments.extend(words("--allow-privileged=true --kubelet-preferred-address-types=InternalIP"));
        arguments.extend(words("--service-account-issuer=https://kubernetes.default.svc"));
        arguments.extend([
            format!("--service-cluster-ip-range={SERVICES}"),
            format!("--advertise-address={}", address(0)),
            file("client-ca-file", "ca.crt"),
            file("kubelet-certificate-authority", "ca.crt"),
            file("tls-cert-file", "kube-apiserver-serving.crt"),
            file("tls-private-key-file", "kube-apiserver-serving.key"),
            file("kubelet-client-certificate", "kube-apiserver.crt"),
            file("kubelet-client-key", "kube-apiserver.key"),
            file("service-account-key-file", "accounts.pub"),
            file("service-account-signing-key-file", "accounts.key"),
        ]);
        arguments
    }

    fn controllers(&self) -> Vec<String> {
        let file = |flag: &str, name: &str| format!("--{flag}={}", self.pki.file(name));
        let mut arguments = words("--use-service-account-credentials --allocate-node-cidrs=true");
        arguments.extend(words("--node-cidr-mask-size-ipv4=24 --node-cidr-mask-size-ipv6=64"));
        arguments.extend([
            format!("--cluster-cidr={PODS}"),
            format!("--service-cluster-ip-range={SERVICES}"),
            file("service-account-private-key-file", "accounts.key"),
            file("root-ca-file", "ca.crt"),
            file("cluster-signing-cert-file", "ca.crt"),
            file("cluster-signing-key-file", "ca.key"),
        ]);
        arguments
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}
