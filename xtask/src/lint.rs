//! `lint`: every check that reads the tree rather than runs it. Each check returns all it found, and all
//! findings are told together.

mod edges;
mod references;
mod sources;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell;

/// Formatting, clippy, then the house rules.
///
/// # Errors
/// When a check finds something, or the tree cannot be read.
pub(crate) fn run() -> Result<()> {
    let root = shell::root();
    let findings = house_rules(&root)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))?;
    shell::run(&mut shell::cargo(&["clippy", "--all-targets", "--", "-D", "warnings"]))?;
    // All targets are those that `cargo test` runs by itself.
    let clusters = ["clippy", "--package", "enforcer-tests", "--test", "e2e", "--", "-D", "warnings"];
    shell::run(&mut shell::cargo(&clusters))?;
    if !findings.is_empty() {
        bail!("{} finding(s), see above", findings.len());
    }
    println!("xtask lint: clean");
    Ok(())
}

/// What the house rules find, one line each, beginning with the place.
fn house_rules(root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in rust_files(root)? {
        let text = std::fs::read_to_string(root.join(&file))
            .with_context(|| format!("failed to read {}", file.display()))?;
        findings.extend(sources::check(&file, &text));
        findings.extend(edges::check_modules(&file, &text));
    }
    findings.extend(edges::check_crates(root)?);
    findings.extend(references::check(root)?);
    Ok(findings)
}

/// Every Rust file of the tree, relative to its top, in order.
fn rust_files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).with_context(|| format!("failed to list {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    /// The tree keeps its own rules; formatting and clippy are `cargo xtask lint`'s.
    #[test]
    fn the_tree_keeps_the_house_rules() {
        let findings = super::house_rules(&crate::shell::root()).unwrap();
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    }
}
