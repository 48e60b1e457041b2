//! House rules of one source file: header, length, length of its functions, and words that mark unfinished work.

use std::path::Path;

/// Most lines of a file.
const MAX_FILE: usize = 500;
/// Most lines of a function, from `fn` to its closing brace.
const MAX_FUNCTION: usize = 60;

/// What one file breaks. Relies on rustfmt's layout: a function ends at the first line that holds only a brace
/// at the indentation of the line it began on.
pub(super) fn check(file: &Path, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut tell = |line: usize, what: String| findings.push(format!("{}:{line}: {what}", file.display()));
    if !text.starts_with("//! ") {
        tell(1, "no `//!` header that says what the file owns".to_owned());
    }
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > MAX_FILE {
        tell(lines.len(), format!("{} lines, {MAX_FILE} at most: it has two jobs", lines.len()));
    }
    for (index, line) in lines.iter().enumerate() {
        if let Some(length) = function_length(&lines[index..])
            && length > MAX_FUNCTION
        {
            tell(index + 1, format!("a function of {length} lines, {MAX_FUNCTION} at most"));
        }
        if ["TO", "FIX"].iter().zip(["DO", "ME"]).any(|(a, b)| line.contains(&format!("// {a}{b}"))) {
            tell(index + 1, "unfinished work belongs in an issue".to_owned());
        }
    }
    findings
}

/// Lines of the function that begins on the first line; `None` when none does, or it has no body of its own.
fn function_length(lines: &[&str]) -> Option<usize> {
    let first = lines.first()?;
    let indent = &first[..first.len() - first.trim_start().len()];
    first.split_whitespace().find(|word| !is_qualifier(word)).filter(|word| *word == "fn")?;
    if first.ends_with(['}', ';']) {
        return None;
    }
    for (index, line) in lines.iter().enumerate().skip(1) {
        match line.strip_prefix(indent) {
            Some("}") => return Some(index + 1),
            Some(rest) if rest.starts_with([')', 'w', '-']) && rest.ends_with(';') => return None,
            _ => {}
        }
    }
    None
}

fn is_qualifier(word: &str) -> bool {
    word.starts_with("pub")
        || ["const", "async", "unsafe", "extern", "\"C\"", "in", "crate)", "super)"].contains(&word)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    fn function(lines: usize) -> String {
        let body: String = (2..lines).map(|n| format!("    let _{n} = {n};\n")).collect();
        format!("//! Header.\n\npub(crate) const fn long() {{\n{body}}}\n")
    }

    #[test]
    fn a_long_function_is_found_and_a_shorter_one_is_not() {
        assert!(super::check(Path::new("a.rs"), &function(super::MAX_FUNCTION)).is_empty());
        let found = super::check(Path::new("a.rs"), &function(super::MAX_FUNCTION + 1));
        assert_eq!(found, ["a.rs:3: a function of 61 lines, 60 at most"]);
    }

    #[test]
    fn a_missing_header_and_a_long_file_are_found() {
        let found = super::check(Path::new("b.rs"), &"\n".repeat(super::MAX_FILE + 1));
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
