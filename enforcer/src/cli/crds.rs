//! `enforcer crds`: the definitions of our kinds as the API server takes them. Owns their form; what they say is
//! [`enforcer_k8s::crd`]'s.

use std::io::Write as _;

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::json;

/// Flags of `enforcer crds`.
#[derive(Args, Debug)]
pub struct CrdsArgs {
    /// How the definitions look.
    #[arg(long, short, value_enum, default_value_t = CrdsOutput::Yaml)]
    pub output: CrdsOutput,
}

/// Forms of definitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum CrdsOutput {
    /// One YAML document each.
    Yaml,
    /// One JSON document: a `List`.
    Json,
}

/// Prints the definitions.
///
/// # Errors
/// When standard output breaks.
pub fn run(args: &CrdsArgs) -> anyhow::Result<()> {
    let text = match args.output {
        CrdsOutput::Yaml => text()?,
        CrdsOutput::Json => {
            let items = enforcer_k8s::crd::definitions();
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            serde_json::to_string_pretty(&list)? + "\n"
        }
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The definitions.
fn text() -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in enforcer_k8s::crd::definitions() {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition).context("failed to write a definition")?);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn the_definitions_that_are_shipped_are_those_of_the_types() {
        let text = text().expect("written");
        for copy in ["crds", "helm/enforcer/crds"] {
            let path = format!("{}/../deploy/{copy}/enforcer.dev.yaml", env!("CARGO_MANIFEST_DIR"));
            let shipped = std::fs::read_to_string(path).unwrap_or_default();
            assert!(shipped == text, "write it anew: enforcer crds > deploy/{copy}/enforcer.dev.yaml");
        }
    }
}
