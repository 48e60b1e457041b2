//! `build`, `demo` and `test`: which cargo commands they are. Each first makes sure that nothing is missing.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::{setup, shell};

/// Builds the kernel programs (by the data plane's build script) and the binary.
///
/// # Errors
/// When something is missing and cannot be installed, or the build fails.
pub(crate) fn build(release: bool) -> Result<()> {
    setup::run()?;
    build_binary(release)?;
    println!("built {}", binary(release).display());
    Ok(())
}

/// Plays the example; the agent is optimised, because its memory and its start are measured.
///
/// # Errors
/// As [`build`]; also when a verdict of the demo differs from what is expected.
pub(crate) fn demo(keep: bool) -> Result<()> {
    need_root("demo")?;
    setup::run()?;
    build_binary(true)?;
    let mut command = shell::cargo(&["run", "--quiet", "--package", "enforcer-tests", "--bin", "demo"]);
    command.env("ENFORCER_BINARY", binary(true));
    if keep {
        command.args(["--", "--keep"]);
    }
    shell::run(&mut command)
}

/// Runs every test of the default members; `arguments` go to `cargo test`.
///
/// # Errors
/// As [`build`]; also when a test fails.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    need_root("test")?;
    setup::run()?;
    let begun = Instant::now();
    build_binary(false)?;
    shell::run(
        shell::cargo(&["test", "--no-fail-fast"]).args(arguments).env("ENFORCER_BINARY", binary(false)),
    )?;
    println!("xtask test: all tests passed in {} s", begun.elapsed().as_secs());
    Ok(())
}

/// Fails with what to type when the user is not root.
///
/// # Errors
/// When the effective user is another than root.
pub(crate) fn need_root(command: &str) -> Result<()> {
    if !setup::is_root() {
        bail!(
            "`cargo xtask {command}` makes network namespaces and loads kernel programs, which needs root: \
             run it as root"
        );
    }
    Ok(())
}

/// Builds the enforcer binary.
///
/// # Errors
/// When the build fails.
pub(crate) fn build_binary(release: bool) -> Result<()> {
    let mut command = shell::cargo(&["build", "--package", "enforcer", "--bin", "enforcer"]);
    if release {
        command.arg("--release");
    }
    shell::run(&mut command)
}

/// Where [`build_binary`] leaves the binary.
pub(crate) fn binary(release: bool) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    shell::root().join(target).join(if release { "release" } else { "debug" }).join("enforcer")
}
