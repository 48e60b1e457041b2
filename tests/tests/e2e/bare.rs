//! What a cluster does by itself: these stories hold the harness to account, not the product.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use enforcer_tests::kube::{HOLD, Kube, node_name};
use enforcer_tests::zone;

use super::Story;

/// In order.
pub(crate) const STORIES: &[Story] = &[("pods_talk_and_names_resolve", pods_talk_and_names_resolve)];
/// The same for one cluster, whichever that is.
pub(crate) const ONCE: &[Story] = &[
    ("pods_talk_and_names_resolve", pods_talk_and_names_resolve),
    ("a_killed_cluster_leaves_nothing_behind", a_killed_cluster_leaves_nothing_behind),
];

/// A server on the last node, a client on the first; by address of either family, by service and by name.
fn pods_talk_and_names_resolve(cluster: &Kube) -> Result<()> {
    cluster.namespace("bare", &[])?;
    let last = node_name(cluster.nodes.len() - 1);
    cluster.pod("bare", "server", &last, &["netexec", "--http-port=8080"])?;
    cluster.pod("bare", "client", &node_name(0), &["pause"])?;
    cluster.kubectl(&["-n", "bare", "expose", "pod", "server", "--port=80", "--target-port=8080"])?;
    let mut targets = vec!["server.bare.svc.cluster.local:80".to_owned(), "github.com:22".to_owned()];
    for address in cluster.addresses("bare", "server")? {
        targets.push(std::net::SocketAddr::from((address, 8080)).to_string());
    }
    ensure!(targets.len() == 4, "a pod has an address of each family: {targets:?}");
    for target in &targets {
        let command = ["/agnhost", "connect", "--timeout=2s", target];
        let reached = || Ok(cluster.exec("bare", "client", &command)?.0.then_some(()));
        cluster.wait(&format!("the client reaches {target}"), reached)?;
    }
    let (_, said) = cluster.exec("bare", "client", &["nslookup", "-type=a", "github.com"])?;
    let known =
        zone::addresses("github.com").iter().filter(|address| said.contains(&address.to_string())).count();
    ensure!(known > 0, "CoreDNS asks the internet: {said}");
    cluster.kubectl(&["delete", "namespace", "bare", "--wait=false"]).map(drop)
}

/// Another process makes a cluster beside this one and is killed.
fn a_killed_cluster_leaves_nothing_behind(cluster: &Kube) -> Result<()> {
    let mut other = Command::new(std::env::current_exe()?);
    let mut other = other.arg(HOLD).stdout(Stdio::piped()).spawn()?;
    let mut said = String::new();
    BufReader::new(other.stdout.take().expect("its standard output is a pipe")).read_line(&mut said)?;
    ensure!(said.trim() == HOLD, "the other cluster did not come up");
    let name = format!("enforcer-{}-", other.id());
    let own = cluster.directory().parent().expect("it lies below others");
    let places =
        [own, Path::new("/run/netns"), Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/unified")];
    let left = || -> Result<Vec<String>> {
        let there = places.iter().filter(|place| place.is_dir()).map(std::fs::read_dir);
        let all = there.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        let names = all.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names = names.collect::<Result<Vec<_>>>()?;
        Ok(names.into_iter().filter(|found| found.starts_with(&name)).collect())
    };
    let before = left()?;
    ensure!(before.len() == 3, "its directory, the internet and its cgroup: {before:?}");
    other.kill()?;
    other.wait()?;
    cluster.wait("nothing is left of the other cluster", || Ok(left()?.is_empty().then_some(())))
}
