//! The places of questions as this process' memory: kernel programs and userspace change them by the same exchanges.

use aya::maps::MapData;
use enforcer_common::question::{FREE, Place};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

/// An array map of [`Place`]s, mapped.
pub(crate) struct Places {
    first: NonNull<Shared>,
    count: usize,
    /// Programs that are loaded later need its descriptor.
    #[expect(dead_code, reason = "held open")]
    data: MapData,
}

/// A [`Place`] that others write too.
#[repr(C)]
struct Shared {
    time: AtomicU64,
    mark: AtomicU64,
}

const _: () = assert!(size_of::<Shared>() == size_of::<Place>());

// SAFETY: atomics in memory that is mapped as long as the value lives.
unsafe impl Send for Places {}
// SAFETY: as above.
unsafe impl Sync for Places {}

impl Places {
    /// Maps a map, which must have been made for it (`BPF_F_MMAPABLE`).
    pub(crate) fn new(data: MapData) -> io::Result<Self> {
        let info = data.info().map_err(io::Error::other)?;
        if info.value_size() as usize != size_of::<Shared>() {
            return Err(io::Error::other(format!("values have {} octets", info.value_size())));
        }
        let count = info.max_entries() as usize;
        let (length, access) = (count * size_of::<Shared>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping, wherever there is room.
        let first = unsafe { mmap(null_mut(), length, access, MapFlags::SHARED, data.fd().as_fd(), 0) }?;
        let first = NonNull::new(first.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first, count, data })
    }

    /// A place as it is now.
    pub(crate) fn get(&self, index: u32) -> Place {
        let shared = &self.all()[index as usize];
        Place { time: shared.time.load(Ordering::Acquire), mark: shared.mark.load(Ordering::Relaxed) }
    }

    /// Gives a place free that has been taken since `time`; false when somebody else did, or took it anew.
    pub(crate) fn free(&self, index: u32, time: u64) -> bool {
        self.exchange(index, time, FREE)
    }

    /// Changes the time of a place from `old`; false when it is not that any more.
    pub(crate) fn exchange(&self, index: u32, old: u64, new: u64) -> bool {
        let time = &self.all()[index as usize].time;
        time.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Places there are.
    pub(crate) fn count(&self) -> u32 {
        self.count as u32
    }

    fn all(&self) -> &[Shared] {
        // SAFETY: mapped as long as this lives, and every octet pattern is a `Shared`.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.count) }
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nobody borrows from it any more. Fails for no mapping of ours.
        let _ = unsafe { munmap(self.first.as_ptr().cast(), self.count * size_of::<Shared>()) };
    }
}
