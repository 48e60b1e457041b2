//! A pod's interface that is taken away and made anew while the pod runs, as network plugins do that repair what they have made;
//! and a pod that has the name and the addresses of one that has gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use enforcer_tests::kube::{AGNHOST, Kube, Machine, node_name};
use serde_json::{Value, json};

use super::Story;
use super::install::{Pair, gone, status};

/// In order.
pub(crate) const STORIES: &[Story] = &[
    ("an_interface_that_is_made_anew_is_enforced_anew", an_interface_that_is_made_anew),
    ("a_name_and_addresses_that_are_used_again_are_the_new_pods", used_again),
];

const NAMESPACE: &str = "recreated";
/// Where the network plugin of a node keeps which addresses are taken, and which ones it gave last.
const ADDRESSES: &str = "/run/cni-addresses/cluster";

/// The pair of interfaces goes, and one of the same names takes its place; only the host's index is another one.
fn an_interface_that_is_made_anew(cluster: &Kube) -> Result<()> {
    let pair = Pair::make(cluster, NAMESPACE)?;
    let (number, sandbox) = cluster.sandbox(NAMESPACE, "server")?;
    let (node, inside) = (&cluster.nodes[number], Inside::new(&sandbox)?);
    let (name, index) = enforced(cluster, number)?.context("the server is enforced")?;
    pair.never_open(|| {
        let host = Side::read(node, &["ip"], &name)?;
        let pod = Side::read(node, &inside.ip(), "eth0")?;
        node.run("ip", &["link", "delete", &name])?;
        let peer = ["peer", "name", "eth0", "address", &pod.link, "index", &pod.index, "netns", &inside.0];
        let made = ["link", "add", &name, "address", &host.link, "type", "veth"];
        node.run("ip", &[&made[..], &peer].concat())?;
        host.write(node, &["ip"], &name)?;
        pod.write(node, &inside.ip(), "eth0")?;
        pair.awaits([true, false])?;
        let now = enforced(cluster, number)?.context("the server is enforced again")?;
        ensure!(now.0 == name && now.1 != index, "{now:?} was {name} with index {index}");
        Ok(())
    })?;
    gone(cluster, NAMESPACE)
}

/// A server that policy selects, in its place one that policy does not, and one that it does once more.
fn used_again(cluster: &Kube) -> Result<()> {
    let namespace = "again";
    drop(Pair::make(cluster, namespace)?);
    let (number, _) = cluster.sandbox(namespace, "server")?;
    let addresses = cluster.addresses(namespace, "server")?;
    for (app, open) in [("other", [true, true]), ("server", [true, false])] {
        cluster.kubectl(&["-n", namespace, "delete", "pod", "server"])?;
        let kept = |name: &str| cluster.nodes[number].seen(&format!("{ADDRESSES}/{name}"));
        cluster.wait("the addresses are free", || {
            Ok((!addresses.iter().any(|address| kept(&address.to_string()).exists())).then_some(()))
        })?;
        for (range, address) in addresses.iter().enumerate() {
            // The next pod has the one behind this.
            std::fs::write(kept(&format!("last_reserved_ip.{range}")), before(*address).to_string())?;
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "server", "namespace": namespace, "labels": {"app": app}},
            "spec": {
                "nodeName": node_name(number), "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "args": ["pause"]}],
            },
        });
        cluster.apply(&pod.to_string())?;
        cluster.ready(namespace, "pod/server")?;
        let now = cluster.addresses(namespace, "server")?;
        ensure!(now == addresses, "{now:?} are not {addresses:?}");
        Pair::between(cluster, namespace)?.awaits(open)?;
    }
    gone(cluster, namespace)
}

/// The address before another.
fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) - 1).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) - 1).into(),
    }
}

/// Name and index of the host's side of the server, if it is enforced.
fn enforced(cluster: &Kube, node: usize) -> Result<Option<(String, u64)>> {
    let status = status(cluster, node)?;
    let wanted = format!("{NAMESPACE}/server");
    let all = status["workloads"].as_array().context("workloads")?;
    let one = all.iter().find(|one| one["workload"] == wanted.as_str() && one["enforced"] == true);
    Ok(one.and_then(|one| Some((one["interface"].as_str()?.to_owned(), one["index"].as_u64()?))))
}

/// A network namespace of the node, by the name of its file.
struct Inside(String);

impl Inside {
    fn new(path: &str) -> Result<Self> {
        let name = path.strip_prefix("/run/netns/").with_context(|| format!("{path} is no sandbox"))?;
        Ok(Self(name.to_owned()))
    }

    /// How `ip` is called inside.
    fn ip(&self) -> [&str; 3] {
        ["ip", "-netns", &self.0]
    }
}

/// What one end of a pair has.
struct Side {
    index: String,
    /// Its hardware address: others remember it.
    link: String,
    bridge: Option<String>,
    addresses: Vec<String>,
    /// Of both families, with the family's flag.
    routes: Vec<(&'static str, String)>,
}

impl Side {
    fn read(node: &Machine, ip: &[&str], name: &str) -> Result<Self> {
        let run = |arguments: &[&str]| node.run(ip[0], &[&ip[1..], arguments].concat());
        let told: Value = serde_json::from_str(&run(&["-json", "address", "show", "dev", name])?)?;
        let told = &told[0];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let address = |one: &Value| Some(format!("{}/{}", text(&one["local"])?, one["prefixlen"]));
        let own = told["addr_info"].as_array().into_iter().flatten().filter(|one| one["scope"] == "global");
        let mut routes = Vec::new();
        for family in ["-4", "-6"] {
            let lines = run(&[family, "route", "show", "dev", name])?;
            let lines = lines.lines().filter(|line| !line.contains("proto kernel"));
            routes.extend(lines.map(|line| (family, line.trim().to_owned())));
        }
        // What leads through a gateway comes after the way to the gateway.
        routes.sort_by_key(|(_, line)| line.contains(" via "));
        Ok(Self {
            index: told["ifindex"].to_string(),
            link: text(&told["address"]).context("a hardware address")?,
            bridge: text(&told["master"]),
            addresses: own.filter_map(address).collect(),
            routes,
        })
    }

    /// Gives an interface what this one had.
    fn write(&self, node: &Machine, ip: &[&str], name: &str) -> Result<()> {
        let run = |arguments: &[&str]| node.run(ip[0], &[&ip[1..], arguments].concat());
        if let Some(bridge) = &self.bridge {
            run(&["link", "set", name, "master", bridge])?;
            node.run("bridge", &["link", "set", "dev", name, "hairpin", "on"])?;
        }
        run(&["link", "set", name, "up"])?;
        for address in &self.addresses {
            let flags: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            run(&[&["address", "replace", address, "dev", name], flags].concat())?;
        }
        for (family, line) in &self.routes {
            let words: Vec<&str> = line.split_whitespace().filter(|word| *word != "linkdown").collect();
            run(&[&[family, "route", "replace"], &words[..], &["dev", name]].concat())?;
        }
        Ok(())
    }
}
