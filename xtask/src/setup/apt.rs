//! Packages of Debian and Ubuntu: which version is on offer, and installing them. Package lists are fetched
//! only when what they say does not suffice.

use std::process::Command;
use std::sync::Once;

use anyhow::{Result, bail};

use crate::shell;

/// The version of a package on offer; lists are fetched once when it is not known.
pub(super) fn candidate(package: &str) -> Option<String> {
    known_candidate(package).or_else(|| {
        update();
        known_candidate(package)
    })
}

/// True when this machine has apt.
pub(super) fn is_there() -> bool {
    shell::find("apt-get").is_some()
}

/// The command that installs packages.
pub(super) fn install(packages: &[String]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Programs are wanted, not services: systemctl starts nothing in this mode.
    command.env("SYSTEMD_OFFLINE", "1");
    command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    command
}

/// Installs packages; a second time with fresh lists when the first fails.
///
/// # Errors
/// When there is no apt, or a package cannot be had.
pub(super) fn perform(packages: &[String]) -> Result<()> {
    if !is_there() {
        bail!("no apt-get here: install {} by your distribution's own means", packages.join(", "));
    }
    for package in packages {
        if candidate(package).is_none() {
            bail!("the package sources of this machine offer no {package}");
        }
    }
    shell::run(&mut install(packages)).or_else(|_stale_lists| {
        update();
        shell::run(&mut install(packages))
    })
}

/// Names of the packages that `package` depends on.
pub(super) fn dependencies(package: &str) -> Vec<String> {
    let listing = shell::output("apt-cache", &["depends", "--important", package]).unwrap_or_default();
    listing.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::to_owned).collect()
}

/// Fetches the package lists, once.
fn update() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        println!("setup: fetching package lists (apt-get update)");
        if let Err(error) = shell::run(Command::new("apt-get").args(["update", "--quiet"])) {
            eprintln!("setup: {error:#}");
        }
    });
}

fn known_candidate(package: &str) -> Option<String> {
    let policy = shell::output("apt-cache", &["policy", package])?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}
