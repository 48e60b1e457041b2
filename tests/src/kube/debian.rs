//! Packages of a Debian release that need not be this machine's: fetched by apt with lists of its own, verified by Debian's
//! keys, unpacked into a directory and never installed. Owns which packages those are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::parts::once;

/// A release that stays as it is but for corrections.
const SUITE: &str = "trixie";
const PACKAGES: [&str; 4] = ["busybox-static", "containerd", "containernetworking-plugins", "etcd-server"];
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where Debian is to be had for machines that do not say.
const MIRROR: &str = "http://deb.debian.org/debian";

/// Fetches and unpacks the packages below `directory`; returns what stands for the root directory.
///
/// # Errors
/// When there is no apt, or a package cannot be had.
pub(super) fn unpacked(directory: &Path) -> Result<PathBuf> {
    let root = directory.join("debian");
    once(&directory.join("debian.stamp"), &[SUITE, &PACKAGES.join(" ")].join(" "), || {
        let apt = directory.join("apt");
        for below in ["lists/partial", "cache/archives/partial", "packages"] {
            std::fs::create_dir_all(apt.join(below))?;
        }
        std::fs::write(
            apt.join("sources.list"),
            format!("deb [signed-by={KEYS}] {} {SUITE} main\n", mirror()),
        )?;
        run(apt_get(&apt).args(["--quiet", "update"]))?;
        run(apt_get(&apt).arg("download").args(PACKAGES).current_dir(apt.join("packages")))?;
        for package in std::fs::read_dir(apt.join("packages"))? {
            run(Command::new("dpkg").arg("--extract").arg(package?.path()).arg(&root))?;
        }
        std::fs::remove_dir_all(&apt).context("failed to remove what was fetched")
    })?;
    Ok(root)
}

/// The mirror of Debian that this machine has its own packages from, where it is a Debian.
fn mirror() -> String {
    let asked =
        Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]).output();
    let answer = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let own = answer.lines().find(|line| !line.contains("security"));
    own.map_or_else(|| MIRROR.to_owned(), |line| line.trim_end_matches('/').to_owned())
}

/// apt-get with nothing of this machine's configuration of sources.
fn apt_get(apt: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let settings = [
        ("Dir::Etc::sourcelist", apt.join("sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".into()),
        ("Dir::State::lists", apt.join("lists")),
        ("Dir::Cache", apt.join("cache")),
        ("Acquire::Languages", "none".into()),
        ("APT::Sandbox::User", "root".into()),
    ];
    for (name, value) in settings {
        command.arg("-o").arg(format!("{name}={}", value.display()));
    }
    command
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("failed to start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
