//! Tells when a directory tree may have changed. Owns the inotify descriptor; never reads the files.
//!
//! States: armed, and settling: after the first event it waits until none came for [`QUIET`], so that an
//! editor's write-then-rename is one change.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// How long a tree must be quiet before it is read.
const QUIET: Duration = Duration::from_millis(5);
/// How often in a row a restless tree is waited for.
const MAX_WAITS: u32 = 40;

/// Watches directories.
#[derive(Debug)]
pub struct Watcher {
    descriptor: AsyncFd<OwnedFd>,
}

impl Watcher {
    /// A watcher of nothing. Needs a running event loop.
    ///
    /// # Errors
    /// When the kernel has no inotify instance left.
    pub fn new() -> io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "an OwnedFd is one descriptor for life, which is all that `register` asks"
        )]
        let descriptor = AsyncFd::new(descriptor)?;
        Ok(Self { descriptor })
    }

    /// Watches these directories too; those that are not there are left out. The parent of `root` tells when it
    /// comes back.
    pub fn watch<'a>(&self, root: &Path, others: impl IntoIterator<Item = &'a PathBuf>) {
        let parent = |path: &Path| path.parent().map(Path::to_owned).filter(|p| !p.as_os_str().is_empty());
        let around = [Some(root.to_owned()), parent(root)].into_iter().flatten();
        for directory in around.chain(others.into_iter().cloned()) {
            if let Err(error) = inotify::add_watch(&self.descriptor, &directory, flags()) {
                tracing::debug!(directory = %directory.display(), %error, "not watched");
            }
        }
    }

    /// Waits for a change and until it is over.
    ///
    /// # Errors
    /// When the descriptor can no longer be read.
    pub async fn changed(&self) -> io::Result<()> {
        self.drain_when_ready().await?;
        for _ in 0..MAX_WAITS {
            tokio::time::sleep(QUIET).await;
            if !self.drain()? {
                break;
            }
        }
        Ok(())
    }

    async fn drain_when_ready(&self) -> io::Result<()> {
        loop {
            let mut guard = self.descriptor.readable().await?;
            if self.drain()? {
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// Reads whatever is there; true when there was something.
    fn drain(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.descriptor, &mut buffer);
        let mut any = false;
        loop {
            match reader.next() {
                Ok(_) => any = true,
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(any),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Finished writes rather than every write: a file is read when its writer closed it.
fn flags() -> WatchFlags {
    WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVE_SELF
        | WatchFlags::ATTRIB
        | WatchFlags::ONLYDIR
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::Watcher;

    /// Far longer than a change takes to be told.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn writes_renames_and_a_directory_that_comes_back_are_changes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let parent = tempfile::tempdir().expect("a directory");
            let root = parent.path().join("root");
            fs::create_dir(&root).expect("the root");
            let watcher = Watcher::new().expect("a watcher");
            watcher.watch(&root, []);
            let changed = async || tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("told");
            fs::write(root.join("a.yaml"), "a").expect("written");
            changed().await.expect("readable");
            fs::write(root.join(".next"), "b").expect("written");
            fs::rename(root.join(".next"), root.join("a.yaml")).expect("renamed");
            changed().await.expect("readable");
            fs::remove_dir_all(&root).expect("removed");
            changed().await.expect("readable");
            fs::create_dir(&root).expect("the root again");
            changed().await.expect("readable");
            watcher.watch(&root, []);
            fs::write(root.join("b.yml"), "b").expect("written");
            changed().await.expect("readable");
        });
    }
}
