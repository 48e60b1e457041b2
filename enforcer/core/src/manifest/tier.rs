//! Tier objects.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Document;
use super::metadata::cluster_name;
use super::report::Report;
use crate::policy::{DefaultAction, Tier};

/// Spec of a Tier.
#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TierSpec {
    /// Place among the tiers, lower first.
    pub order: u32,
    /// What becomes of flows that no rule matches; `Deny` when not written.
    #[serde(default)]
    pub default_action: Option<DefaultActionSpec>,
    /// The controller it is reserved to; nobody's when absent.
    #[serde(default)]
    pub managed_by: Option<String>,
}

/// Default actions of tiers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
pub enum DefaultActionSpec {
    /// Drop.
    Deny,
    /// Leave to later tiers.
    Pass,
}

/// The valid tier of a document.
pub(super) fn tier(document: &Document<TierSpec>, report: &mut Report) -> Option<Tier> {
    let name = cluster_name(&document.metadata, report);
    let spec = report.require("spec", &document.spec);
    let (name, spec) = name.zip(spec)?;
    if Tier::built_in().iter().any(|tier| tier.name == name) {
        report.refuse("metadata.name", format!("tier {name:?} is built in and cannot be changed"));
    }
    if spec.managed_by.as_ref().is_some_and(String::is_empty) {
        report.refuse("spec.managedBy", "is empty: name the controller, or leave it out");
    }
    let default_action = match spec.default_action {
        None | Some(DefaultActionSpec::Deny) => DefaultAction::Deny,
        Some(DefaultActionSpec::Pass) => DefaultAction::Pass,
    };
    Some(Tier { name, order: spec.order, default_action, managed_by: spec.managed_by.clone() })
}
