//! `build`, `demo` and `test`: which cargo commands they are. Each first makes sure that nothing is missing.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::{image, setup, shell};

/// The product's binary.
pub(crate) const ENFORCER: &str = "enforcer";

/// Builds the kernel programs (by the data plane's build script) and the binary.
///
/// # Errors
/// When something is missing and cannot be installed, or the build fails.
pub(crate) fn build(release: bool) -> Result<()> {
    setup::run()?;
    build_binaries(&[ENFORCER], release)?;
    println!("built {}", binary(ENFORCER, release).display());
    Ok(())
}

/// Plays the example; the agent is optimised, because its memory and its start are measured.
///
/// # Errors
/// As [`build`]; also when a verdict of the demo differs from what is expected.
pub(crate) fn demo(keep: bool) -> Result<()> {
    need_root("demo")?;
    setup::run()?;
    build_binaries(&[ENFORCER, "demo"], true)?;
    let keep = keep.then_some("--keep");
    shell::run(Command::new(binary("demo", true)).args(keep).env("ENFORCER_BINARY", binary(ENFORCER, true)))
}

/// Runs every test of the default members, those in clusters included; `arguments` go to `cargo test`, and with any the
/// clusters are left out.
///
/// # Errors
/// As [`build`]; also when a test fails.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    need_root("test")?;
    setup::run_for_clusters()?;
    let begun = Instant::now();
    build_binaries(&[ENFORCER], false)?;
    let mut tests = shell::cargo(&["test", "--no-fail-fast"]);
    shell::run(tests.args(arguments).env("ENFORCER_BINARY", binary(ENFORCER, false)))?;
    if arguments.is_empty() {
        properties()?;
        clusters(&[])?;
    }
    println!("xtask test: all tests passed in {} s", begun.elapsed().as_secs());
    Ok(())
}

/// Runs the stories in clusters whose names contain what is asked for; `arguments` go to them.
///
/// # Errors
/// As [`test`].
pub(crate) fn e2e(arguments: &[String]) -> Result<()> {
    need_root("e2e")?;
    setup::run_for_clusters()?;
    clusters(arguments)
}

/// Writes the files of the tree that are made from others.
///
/// # Errors
/// When something is missing and cannot be installed, or a file cannot be written.
pub(crate) fn generate() -> Result<()> {
    setup::run()?;
    shell::run(&mut shell::cargo(&["test", "--package", "enforcer-tests", "--test", "e2e", "--", "gen"]))
}

/// Builds the image, and what clusters are made of when it is not there, and runs the stories in them.
fn clusters(arguments: &[String]) -> Result<()> {
    image::run(image::NAME)?;
    let mut tests = shell::cargo(&["test", "--package", "enforcer-tests", "--test", "e2e", "--"]);
    shell::run(tests.args(arguments).env("ENFORCER_IMAGE", image::archive()))
}

/// Runs the fuzzing tests of the data plane with as many messages.
///
/// # Errors
/// As [`test`]; what was read says how to repeat it.
pub(crate) fn fuzz(runs: u32, seed: Option<u64>, keep: bool) -> Result<()> {
    need_root("fuzz")?;
    setup::run()?;
    let mut tests = shell::cargo(&["test", "--package", "enforcer-dataplane", "fuzz", "--", "--nocapture"]);
    tests.env("ENFORCER_FUZZ_RUNS", runs.to_string());
    tests.envs(seed.map(|seed| ("ENFORCER_TEST_SEED", seed.to_string())));
    tests.envs(keep.then_some(("ENFORCER_FUZZ_KEEP", "1")));
    shell::run(&mut tests)
}

/// Cases of each property of the core.
const PROPERTY_CASES: &str = "10000";

/// Runs the core's property tests again, optimised and with many cases.
fn properties() -> Result<()> {
    let mut tests =
        shell::cargo(&["test", "--profile", "property", "--package", "enforcer-core", "--test", "*"]);
    shell::run(tests.env("PROPTEST_CASES", PROPERTY_CASES))
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

/// Builds binaries, for all default members at once: what they share is built once, as `cargo test` builds it.
///
/// # Errors
/// When the build fails.
pub(crate) fn build_binaries(names: &[&str], release: bool) -> Result<()> {
    let mut command = shell::cargo(&["build"]);
    command.args(names.iter().flat_map(|name| ["--bin", name])).args(release.then_some("--release"));
    shell::run(&mut command)
}

/// Where [`build_binaries`] leaves a binary.
pub(crate) fn binary(name: &str, release: bool) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    shell::root().join(target).join(if release { "release" } else { "debug" }).join(name)
}
