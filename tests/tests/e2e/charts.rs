//! The chart and the manifests before they are installed: taken by Helm and by a real API server, and no more powerful than they
//! say.

use anyhow::{Result, ensure};
use enforcer_tests::kube::{Kube, Parts, chart};

use super::Story;

/// In order.
pub(crate) const STORIES: &[Story] = &[
    ("the_chart_passes_helm_lint", the_chart_passes_helm_lint),
    ("values_that_do_not_exist_are_refused", values_that_do_not_exist_are_refused),
    ("plain_manifests_are_those_of_the_chart", plain_manifests_are_those_of_the_chart),
    ("the_api_server_takes_every_object", the_api_server_takes_every_object),
    ("the_account_may_do_what_it_needs_and_no_more", the_account_may_do_what_it_needs_and_no_more),
];

/// Values that change which objects there are, or what is in them.
const VARIANTS: &[&[&str]] = &[
    &[],
    &["uninstall=true"],
    &["cni.enabled=false"],
    &["cni.enabled=false", "nri.enabled=true", "host.nri=/run/nri"],
    &["uninstall=true", "cni.enabled=false"],
    &["defaultMode=enforce", "trustedResolvers={cluster,192.0.2.53}", "extraArgs={--flow-capacity=1000}"],
    &[
        "metrics.host=127.0.0.1",
        "metrics.port=19464",
        "networkPolicy.enabled=false",
        "updateStrategy.maxUnavailable=2",
    ],
    &["image.repository=registry.example/enforcer", "image.tag=v1", "image.pullSecrets={credentials}"],
    &["cri.socket=/var/run/crio/crio.sock"],
    &["networkPolicy.from[0].namespaceSelector.matchLabels.team=monitoring", "podAnnotations.team=network"],
];
/// The same, of kinds that a cluster may not have.
const MORE_VARIANTS: &[&[&str]] =
    &[&["metrics.podMonitor.enabled=true", "metrics.podMonitor.labels.release=prometheus"]];

fn the_chart_passes_helm_lint(_: &Kube) -> Result<()> {
    let (parts, directory) = (Parts::ready()?, chart::chart().display().to_string());
    for values in VARIANTS.iter().chain(MORE_VARIANTS) {
        let set = values.iter().flat_map(|value| ["--set", value]);
        let arguments: Vec<&str> = ["lint", "--strict", &directory].into_iter().chain(set).collect();
        chart::helm(&parts, &arguments)?;
    }
    Ok(())
}

fn values_that_do_not_exist_are_refused(_: &Kube) -> Result<()> {
    let parts = Parts::ready()?;
    for (value, place) in [
        ("imag.tag=1", "imag"),
        ("defaultMode=strict", "defaultMode"),
        ("metrics.port=0", "port"),
        ("cni.failurePolicy=perhaps", "failurePolicy"),
        ("cri.socket=containerd.sock", "socket"),
        ("image.digest=sha256:0", "digest"),
    ] {
        let refused =
            chart::render(&parts, &[value]).err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains(place), "{value}: {refused:?}");
    }
    Ok(())
}

fn plain_manifests_are_those_of_the_chart(_: &Kube) -> Result<()> {
    let [made, copy] = chart::definitions().map(std::fs::read_to_string);
    ensure!(made? == copy?, "the chart's definitions are not those of deploy/crds: run `cargo xtask gen`");
    let plain = std::fs::read_to_string(chart::manifests())?;
    ensure!(
        plain == chart::plain(&Parts::ready()?)?,
        "deploy/manifests is not the chart's: run `cargo xtask gen`"
    );
    Ok(())
}

/// With every field checked: what the server does not know, or knows twice, is an error.
fn the_api_server_takes_every_object(cluster: &Kube) -> Result<()> {
    let parts = Parts::ready()?;
    cluster.namespace(chart::NAMESPACE, &[])?;
    let arguments = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];
    for values in VARIANTS {
        let told = cluster.nodes[0].feed("kubectl", &arguments, &chart::render(&parts, values)?)?;
        ensure!(told.lines().any(|line| line.starts_with("daemonset.apps/enforcer ")), "{values:?}: {told}");
    }
    let plain = chart::manifests().display().to_string();
    cluster.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &plain])?;
    cluster.kubectl(&["delete", "namespace", chart::NAMESPACE]).map(drop)
}

fn the_account_may_do_what_it_needs_and_no_more(cluster: &Kube) -> Result<()> {
    let rendered = chart::render(&Parts::ready()?, &[])?;
    let is_rights = |object: &&str| object.contains("\nkind: ClusterRole");
    let rights: Vec<&str> = rendered.split("\n---\n").filter(is_rights).collect();
    cluster.apply(&rights.join("\n---\n"))?;
    let account = format!("--as=system:serviceaccount:{}:{}", chart::NAMESPACE, chart::RELEASE);
    let told = cluster.kubectl(&["auth", "can-i", "--list", "--no-headers", &account])?;
    let mut own: Vec<String> = told
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.contains("selfsubject") && !line.starts_with("[/"))
        .collect();
    own.sort();
    let watched = "[] [] [get list watch]";
    let expected = [
        format!("clusternetworkpolicies.policy.networking.k8s.io {watched}"),
        format!("clustersegmentpolicies.enforcer.dev {watched}"),
        "clustersegmentpolicies.enforcer.dev/status [] [] [patch]".to_owned(),
        format!("endpointslices.discovery.k8s.io {watched}"),
        "events.events.k8s.io [] [] [create patch]".to_owned(),
        format!("externalnetworks.enforcer.dev {watched}"),
        "externalnetworks.enforcer.dev/status [] [] [patch]".to_owned(),
        format!("namespaces {watched}"),
        format!("networkpolicies.networking.k8s.io {watched}"),
        format!("nodes {watched}"),
        format!("pods {watched}"),
        format!("segmentpolicies.enforcer.dev {watched}"),
        "segmentpolicies.enforcer.dev/status [] [] [patch]".to_owned(),
        format!("services {watched}"),
        format!("tiers.enforcer.dev {watched}"),
        "tiers.enforcer.dev/status [] [] [patch]".to_owned(),
    ];
    ensure!(own == expected, "{own:#?}");
    cluster.nodes[0].feed("kubectl", &["delete", "-f", "-"], &rights.join("\n---\n")).map(drop)
}
