//! The proof that an image is made of the tree and nothing else: it is built again from a copy elsewhere, with a target directory
//! elsewhere, and compared octet for octet. Owns the copy; leaves nothing of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{archive, run, target};
use crate::shell;

/// Builds the image twice and compares.
///
/// # Errors
/// When the tree is not committed, a build fails, or the images differ; then with the first octet that does.
pub(crate) fn twice(name: &str) -> Result<()> {
    let root = shell::root().display().to_string();
    let changes =
        shell::output("git", &["-C", &root, "status", "--porcelain"]).context("failed to ask git")?;
    ensure!(changes.trim().is_empty(), "the copy is of what is committed: commit first\n{changes}");
    run(name)?;
    let elsewhere = target().join("image/elsewhere");
    let copy = elsewhere.display().to_string();
    shell::run(
        Command::new("git").args(["-C", &root, "worktree", "add", "--force", "--detach", &copy, "HEAD"]),
    )?;
    let outcome = again(name, &elsewhere);
    shell::run(Command::new("git").args(["-C", &root, "worktree", "remove", "--force", &copy]))?;
    outcome
}

fn again(name: &str, elsewhere: &Path) -> Result<()> {
    let target = elsewhere.join("target");
    let mut cargo = shell::cargo(&["xtask", "image", "--name", name]);
    shell::run(cargo.current_dir(elsewhere).env("CARGO_TARGET_DIR", &target))?;
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("failed to read {}", path.display()));
    let (one, other) = (read(&archive())?, read(&target.join("image/enforcer.tar"))?);
    let differs = one.iter().zip(&other).position(|(one, other)| one != other);
    ensure!(
        one.len() == other.len() && differs.is_none(),
        "the images differ: {} and {} octets, from octet {} on",
        one.len(),
        other.len(),
        differs.unwrap_or(one.len().min(other.len()))
    );
    println!("both images are the same, octet for octet");
    Ok(())
}
