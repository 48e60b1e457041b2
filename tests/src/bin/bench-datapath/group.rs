//! A control group for what is measured with programs at sockets: they run for processes in there only, so that the other
//! worlds of the same process are measured without. Owns the group; this process goes in and out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use enforcer_tests::reaper::{Kind, Remnant};

/// A control group of its own, removed on drop.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    /// Where this process was.
    home: PathBuf,
    _remnant: Remnant,
}

impl Group {
    /// Makes one below the root of the hierarchy of version 2.
    ///
    /// # Errors
    /// When none is mounted, or it cannot be made.
    pub(crate) fn create() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let mut roots = mounts.filter(|fields| fields.get(2) == Some(&"cgroup2"));
        let root = roots.next().context("no cgroup2 is mounted")?[1].to_owned();
        let path = Path::new(&root).join(format!("enforcer-bench-{}", std::process::id()));
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("no group of version 2")?;
        let remnant = Remnant::new(Kind::Directory, path.to_str().context("a path of text")?)?;
        fs::create_dir(&path)?;
        Ok(Self { path, home: Path::new(&root).join(own), _remnant: remnant })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `step` with this process in the group: sockets made meanwhile belong to it.
    ///
    /// # Errors
    /// Those of `step`, and when the process cannot be moved.
    pub(crate) fn within<R>(&self, step: impl FnOnce() -> Result<R>) -> Result<R> {
        let go = |to: &Path| {
            let moved = fs::write(to.join("cgroup.procs"), std::process::id().to_string());
            moved.with_context(|| format!("failed to go to {}", to.display()))
        };
        go(&self.path)?;
        let done = step();
        go(&self.home)?;
        done
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What fails here is left to the reaper.
        let _ = fs::remove_dir(&self.path);
    }
}
