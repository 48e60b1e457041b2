//! ExternalNetwork objects: named sets of addresses and names outside the cluster.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Document;
use super::metadata::cluster_name;
use super::report::Report;
use super::scalar::Cidr;
use crate::fqdn::Pattern;
use crate::object::ExternalNetwork;

/// Spec of an ExternalNetwork; at least one of the lists is given, and none is empty.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["cidrs"]}, {"required": ["fqdns"]}]))]
pub struct ExternalNetworkSpec {
    /// Its addresses.
    #[serde(default)]
    pub cidrs: Option<Vec<Cidr>>,
    /// Its names; they count in egress rules.
    #[serde(default)]
    pub fqdns: Option<Vec<Pattern>>,
}

/// The valid network of a document.
pub(super) fn network(
    document: &Document<ExternalNetworkSpec>,
    report: &mut Report,
) -> Option<ExternalNetwork> {
    let name = cluster_name(&document.metadata, report);
    let (name, spec) = name.zip(report.require("spec", &document.spec))?;
    if spec.cidrs.is_none() && spec.fqdns.is_none() {
        report.refuse("spec", "has neither cidrs nor fqdns: it would mean nobody");
    }
    let empty = [
        ("spec.cidrs", spec.cidrs.as_ref().is_some_and(Vec::is_empty)),
        ("spec.fqdns", spec.fqdns.as_ref().is_some_and(Vec::is_empty)),
    ];
    for (field, _) in empty.into_iter().filter(|(_, is_empty)| *is_empty) {
        report.refuse(field, "is empty: leave it out");
    }
    let mut cidrs = Vec::new();
    for (index, cidr) in spec.cidrs.iter().flatten().enumerate() {
        cidrs.push(cidr.exact(&format!("spec.cidrs[{index}]"), report));
    }
    Some(ExternalNetwork {
        name,
        labels: document.metadata.labels.clone(),
        cidrs: cidrs.into_iter().collect(),
        fqdns: spec.fqdns.iter().flatten().cloned().collect(),
    })
}
