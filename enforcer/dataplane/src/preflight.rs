//! What must be true of the process and its surroundings before anything is loaded. Explains, never repairs.

use crate::error::{Error, MissingCapability};
use rustix::fs::statfs;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::path::{Path, PathBuf};

/// `BPF_FS_MAGIC` of the kernel's `magic.h`.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Name, bit (`linux/capability.h`) and reason of each capability that is needed.
const NEEDED: [(&str, u32, &str); 3] = [
    ("CAP_BPF", 39, "load programs and create maps"),
    ("CAP_NET_ADMIN", 12, "attach programs to interfaces and load packet programs"),
    ("CAP_PERFMON", 38, "let programs keep pointers and time, as the verifier demands of unprivileged ones"),
];
const CAP_SYS_ADMIN: u32 = 21;

/// Every needed capability must be effective; `CAP_SYS_ADMIN` stands in for the two that grew out of it.
pub(crate) fn check_capabilities() -> Result<(), Error> {
    let path = Path::new("/proc/thread-self/status");
    let status = std::fs::read_to_string(path).map_err(|source| Error::io("read", path, source))?;
    let missing = missing_capabilities(effective(&status).unwrap_or(0));
    if missing.is_empty() { Ok(()) } else { Err(Error::MissingCapabilities(missing)) }
}

fn missing_capabilities(effective: u64) -> Vec<MissingCapability> {
    let has = |bit: u32| effective & (1 << bit) != 0;
    let covered = |bit: u32| has(bit) || (bit >= 38 && has(CAP_SYS_ADMIN));
    NEEDED
        .into_iter()
        .filter(|(_, bit, _)| !covered(*bit))
        .map(|(name, _, reason)| MissingCapability { name, reason })
        .collect()
}

/// The effective set in the text of a `status` file.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Locked memory bounds maps on kernels before 5.11 only. It is raised where `CAP_SYS_RESOURCE` allows; where it does
/// not, creating a map fails with the kernel's own words.
pub(crate) fn raise_memory_limit() {
    let unlimited = Rlimit { current: None, maximum: None };
    // Kernels from 5.11 on account maps to the memory cgroup: nothing is lost when this is refused.
    let _ = setrlimit(Resource::Memlock, unlimited);
}

/// The pin directory must lie on a BPF filesystem; it is made when it is missing.
pub(crate) fn prepare_pin_directory(directory: &Path) -> Result<(), Error> {
    let root = existing_ancestor(directory);
    let found = statfs(&root).map_err(|source: Errno| Error::io("examine", &root, source.into()))?;
    if found.f_type as u64 & 0xffff_ffff != BPF_FS_MAGIC {
        return Err(Error::NoBpfFilesystem { directory: directory.to_owned(), examined: root });
    }
    std::fs::create_dir_all(directory).map_err(|source| Error::io("create", directory, source))
}

fn existing_ancestor(directory: &Path) -> PathBuf {
    directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::{effective, missing_capabilities};

    #[test]
    fn each_missing_capability_is_named() {
        let names = |set| missing_capabilities(set).into_iter().map(|c| c.name).collect::<Vec<_>>();
        assert_eq!(names(0), ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert_eq!(names(1 << 12 | 1 << 38 | 1 << 39), [""; 0]);
        assert_eq!(names(1 << 21), ["CAP_NET_ADMIN"]);
        assert_eq!(effective("Name:\tx\nCapEff:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
    }
}
