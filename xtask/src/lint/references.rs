//! Dead references of docs/walkthrough.md: every `path/to/file.rs::item` in backquotes must exist, as must every
//! path in backquotes that begins with a directory of the tree.

use std::path::Path;

use anyhow::{Context, Result};

const DOCUMENT: &str = "docs/walkthrough.md";

/// What stands before the name where an item is declared.
const DECLARATIONS: &[&str] =
    &["fn", "struct", "enum", "trait", "const", "static", "mod", "type", "macro_rules!", "union"];

/// References that lead nowhere. No document, no findings.
///
/// # Errors
/// When the document or a file it names cannot be read.
pub(super) fn check(root: &Path) -> Result<Vec<String>> {
    let document = root.join(DOCUMENT);
    if !document.is_file() {
        return Ok(Vec::new());
    }
    let text = std::fs::read_to_string(&document).with_context(|| format!("failed to read {DOCUMENT}"))?;
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for reference in line.split('`').skip(1).step_by(2) {
            if let Some(problem) = problem(root, reference)? {
                findings.push(format!("{DOCUMENT}:{}: `{reference}`: {problem}", index + 1));
            }
        }
    }
    Ok(findings)
}

/// Why a reference is dead; `None` when it is alive, or is no reference to the tree.
fn problem(root: &Path, reference: &str) -> Result<Option<String>> {
    let (file, items) = match reference.split_once(".rs::") {
        Some((stem, items)) => (format!("{stem}.rs"), items.trim_end_matches("()")),
        None => (reference.to_owned(), ""),
    };
    if !is_path(root, &file) {
        return Ok(None);
    }
    let path = root.join(&file);
    if !path.exists() {
        return Ok(Some("no such file".to_owned()));
    }
    if items.is_empty() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {file}"))?;
    let missing = items.split("::").find(|item| !declares(&text, item));
    Ok(missing.map(|item| format!("{file} declares no {item}")))
}

/// True when the text looks like a path that begins in the tree's top level.
fn is_path(root: &Path, text: &str) -> bool {
    let plain = !text.contains(|c: char| c.is_whitespace() || "<>{}*$:".contains(c));
    let first = text.split('/').next().unwrap_or_default();
    plain && text.contains('/') && !first.is_empty() && (root.join(first).is_dir() || text.ends_with(".rs"))
}

/// True when `text` declares `name`, as an item, a method, a variant or a field.
fn declares(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || "(<:={,;".contains(c)).collect();
        let declared = words.windows(2).any(|pair| DECLARATIONS.contains(&pair[0]) && pair[1] == name);
        declared
            || (words.first() == Some(&name) && line[name.len()..].starts_with([':', ' ', ',', '(', '{']))
    })
}

#[cfg(test)]
mod tests {
    use super::{declares, problem};

    #[test]
    fn declarations_are_found() {
        let text = "pub(crate) fn compile(x: u8) {}\npub struct Plan {\n    pub rows: u8,\n}\nenum E {\n    Allow = 1,\n}\n";
        for name in ["compile", "Plan", "Allow"] {
            assert!(declares(text, name), "{name}");
        }
        assert!(!declares(text, "comp") && !declares(text, "u8"));
    }

    #[test]
    fn dead_references_are_told_and_other_words_left_alone() {
        let root = crate::shell::root();
        let dead = |reference: &str| problem(&root, reference).unwrap().is_some();
        assert!(dead("xtask/src/nowhere.rs::item") && dead("xtask/src/shell.rs::no_such_item"));
        assert!(!dead("xtask/src/shell.rs::root") && !dead("cargo xtask demo") && !dead("application/json"));
    }
}
