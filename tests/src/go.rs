//! Programs written in Go that the tests speak to: each a module below `tests/tools`, pinned by its go.sum, that holds the
//! program itself or names it as its tool. Owns their building; Go's own cache makes that quick after the first time.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

/// Builds a module and returns the program. Processes that want the same one wait for each other.
///
/// # Errors
/// When there is no Go, a module cannot be fetched, or it does not build.
pub fn tool(name: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(name);
    let directory = target()?.join("tools");
    std::fs::create_dir_all(&directory).with_context(|| format!("failed to make {}", directory.display()))?;
    let lock = File::create(directory.join(format!("{name}.lock")))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let program = directory.join(name);
    let mut go = Command::new("go");
    go.args(["build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags=-s -w", "-o"]);
    let package = package(&source)?;
    let built = go.arg(&program).arg(package).current_dir(&source).env("CGO_ENABLED", "0").output();
    let built = built.context("failed to run go; `cargo xtask setup` installs it")?;
    ensure!(built.status.success(), "failed to build {name}: {}", String::from_utf8_lossy(&built.stderr));
    Ok(program)
}

/// What is built of a module: the tool that its go.mod names, else its own program.
fn package(source: &Path) -> Result<String> {
    let file = source.join("go.mod");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    let tool = text.lines().find_map(|line| line.strip_prefix("tool "));
    Ok(tool.unwrap_or(".").to_owned())
}

/// Cargo's target directory: that of this program.
fn target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let is_profile = |name: &std::ffi::OsStr| name == "debug" || name == "release";
    let profile = own.ancestors().find(|directory| directory.file_name().is_some_and(is_profile));
    let target =
        profile.and_then(Path::parent).context("this program lies outside cargo's target directory")?;
    Ok(target.to_owned())
}
