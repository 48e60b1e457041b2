//! One data plane per pin directory: the lock, and whose it is when it is taken.

use crate::error::Error;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Held for as long as the value lives, and released by the kernel when the process ends however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    directory: OwnedFd,
}

impl Drop for Lock {
    /// Closing the descriptor is not enough: a process that is just being made has a copy until it runs its program.
    fn drop(&mut self) {
        // Fails for no descriptor that was locked.
        let _ = flock(&self.directory, FlockOperation::Unlock);
    }
}

impl Lock {
    /// Takes the lock of a pin directory, which must exist, without waiting.
    pub(crate) fn take(path: &Path) -> Result<Self, Error> {
        let failed = |source: Errno| Error::io("open", path, source.into());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty()).map_err(failed)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { directory }),
            Err(Errno::WOULDBLOCK) => {
                Err(Error::Locked { directory: path.to_owned(), by: holder(&directory) })
            }
            Err(source) => Err(Error::io("lock", path, source.into())),
        }
    }
}

/// The process that holds the lock, as the kernel lists it; `None` when it is not visible from here.
fn holder(directory: impl AsFd) -> Option<u32> {
    let inode = fstat(directory).ok()?.st_ino;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| parse_lock(line, inode))
}

/// The process of a line such as `1: FLOCK  ADVISORY  WRITE 708 00:1c:13 0 EOF`, when it is about this inode.
fn parse_lock(line: &str, inode: u64) -> Option<u32> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", process, file, ..] = fields[..] else { return None };
    let matches = file.rsplit(':').next()?.parse() == Ok(inode);
    matches.then(|| process.parse().ok()).flatten().filter(|process| *process != 0)
}

#[cfg(test)]
mod tests {
    use super::parse_lock;

    #[test]
    fn the_holder_is_read_from_the_line_of_its_inode() {
        let line = "12: FLOCK  ADVISORY  WRITE 708 00:1c:13 0 EOF";
        assert_eq!(parse_lock(line, 13), Some(708));
        assert_eq!(parse_lock(line, 14), None);
        assert_eq!(parse_lock("1: POSIX  ADVISORY  WRITE 708 00:1c:13 0 EOF", 13), None);
    }
}
