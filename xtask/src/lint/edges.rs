//! Who may know whom: between crates by their manifests, inside the binary by module. The rules are
//! the architecture's; this holds them as data and looks for breaches.

use std::path::Path;

use anyhow::{Context, Result};

/// A crate's manifest and dependencies it must not have: names, or the beginning of names ended with `*`.
const CRATES: &[(&str, &[&str])] = &[
    ("enforcer-common/Cargo.toml", &["enforcer*", "tokio", "kube", "std*"]),
    (
        "enforcer-ebpf/Cargo.toml",
        &["enforcer", "enforcer-core", "enforcer-dataplane", "enforcer-tests", "aya"],
    ),
    (
        "enforcer/core/Cargo.toml",
        &["aya*", "kube", "k8s-openapi", "tokio", "rtnetlink", "enforcer", "enforcer-dataplane"],
    ),
    ("enforcer/dataplane/Cargo.toml", &["kube", "k8s-openapi", "enforcer", "enforcer-k8s"]),
    ("enforcer/k8s/Cargo.toml", &["aya*", "rtnetlink", "enforcer", "enforcer-dataplane"]),
    ("enforcer/Cargo.toml", &["aya", "rtnetlink", "netlink-packet-route"]),
    ("xtask/Cargo.toml", &["enforcer*"]),
];

/// Modules of the binary that never import one another.
const STRANGERS: &[&str] = &["agent", "collector", "controllers"];

/// Breaches between crates.
///
/// # Errors
/// When a manifest that is there cannot be read.
pub(super) fn check_crates(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for (manifest, forbidden) in CRATES {
        let path = root.join(manifest);
        if !path.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {manifest}"))?;
        for (line, dependency) in dependencies(&text) {
            if forbidden.iter().any(|pattern| matches(pattern, dependency)) {
                findings.push(format!("{manifest}:{line}: must not depend on {dependency}"));
            }
        }
    }
    Ok(findings)
}

/// Imports of one file of the binary that cross between [`STRANGERS`].
pub(super) fn check_modules(file: &Path, text: &str) -> Vec<String> {
    let own = file
        .strip_prefix("enforcer/src")
        .ok()
        .and_then(|path| path.iter().next())
        .map(|first| first.to_string_lossy().trim_end_matches(".rs").to_owned());
    let Some(own) = own.filter(|own| STRANGERS.contains(&own.as_str())) else { return Vec::new() };
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for stranger in STRANGERS.iter().filter(|stranger| **stranger != own) {
            if line.contains(&format!("crate::{stranger}")) || line.contains(&format!("super::{stranger}::"))
            {
                findings.push(format!("{}:{}: {own} must not know {stranger}", file.display(), index + 1));
            }
        }
    }
    findings
}

/// Line and name of every dependency of a manifest, those for tests left out.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (index, line) in manifest.lines().enumerate() {
        if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.contains("dev-");
            if let Some((_, name)) = section.rsplit_once("dependencies.") {
                found.push((index + 1, name));
            }
        } else if inside && line.contains('=') {
            found.push((index + 1, line.split(['.', '=', ' ']).next().unwrap_or_default()));
        }
    }
    found
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn dependencies_of_every_spelling_are_seen_and_those_for_tests_are_not() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\naya.workspace = true\nserde = \"1\"\n\
                        [dependencies.kube]\nversion = \"5\"\n[dev-dependencies]\ntokio = \"1\"\n";
        let found: Vec<_> = super::dependencies(manifest).into_iter().map(|(_, name)| name).collect();
        assert_eq!(found, ["aya", "serde", "kube"]);
    }

    #[test]
    fn strangers_are_told_apart() {
        let check = |file: &str, text: &str| super::check_modules(Path::new(file), text).len();
        assert_eq!(check("enforcer/src/agent/run.rs", "use crate::collector::Store;"), 1);
        assert_eq!(check("enforcer/src/agent.rs", "use crate::agent::flows;"), 0);
        assert_eq!(check("enforcer/src/cli.rs", "use crate::collector::Store;"), 0);
    }
}
