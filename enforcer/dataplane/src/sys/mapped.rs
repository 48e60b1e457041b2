//! Array maps as this process' memory (`BPF_F_MMAPABLE`): read without a call, and changed by the same exchanges as
//! kernel programs use. Owns the mappings; never knows what a value means but for the time of a [`Place`].

use aya::Pod;
use aya::maps::MapData;
use enforcer_common::question::{FREE, Place};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

/// An array map of `T`, mapped.
pub(crate) struct Mapped<T> {
    first: NonNull<T>,
    count: u32,
    types: PhantomData<fn() -> T>,
}

// SAFETY: memory that is mapped as long as the value lives, and read and written as others write it too.
unsafe impl<T: Pod> Send for Mapped<T> {}
// SAFETY: as above.
unsafe impl<T: Pod> Sync for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// Maps a map, which must have been made for it and hold values of this size, or of several in a row. It stays mapped
    /// when `data` is closed.
    pub(crate) fn new(data: &MapData) -> io::Result<Self> {
        let info = data.info().map_err(io::Error::other)?;
        let size = info.value_size();
        // An element takes whole words of eight octets.
        if !(size as usize).is_multiple_of(size_of::<T>()) || !size_of::<T>().is_multiple_of(8) {
            return Err(io::Error::other(format!("values have {size} octets")));
        }
        let count = info.max_entries() * (size / size_of::<T>() as u32);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let length = count as usize * size_of::<T>();
        // SAFETY: a new mapping, wherever there is room.
        let first = unsafe { mmap(null_mut(), length, access, MapFlags::SHARED, data.fd().as_fd(), 0) }?;
        let first = NonNull::new(first.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first, count, types: PhantomData })
    }

    /// The value at an index as it is now, which others may be writing; `None` beyond the last.
    pub(crate) fn get(&self, index: u32) -> Option<T> {
        // SAFETY: mapped as long as this lives, and every octet pattern is a `T`.
        self.at(index).map(|value| unsafe { value.read_volatile() })
    }

    /// Values there are.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Where a value lies; `None` beyond the last.
    pub(crate) fn at(&self, index: u32) -> Option<*mut T> {
        // SAFETY: within the mapping.
        (index < self.count).then(|| unsafe { self.first.as_ptr().add(index as usize) })
    }
}

impl Mapped<Place> {
    /// Gives a place free that has been taken since `time`; false when somebody else did, or took it anew.
    pub(crate) fn free(&self, index: u32, time: u64) -> bool {
        self.exchange(index, time, FREE)
    }

    /// Changes the time of a place from `old`; false when it is not that any more.
    pub(crate) fn exchange(&self, index: u32, old: u64, new: u64) -> bool {
        let Some(place) = self.at(index) else { return false };
        // SAFETY: within the mapping.
        let time = unsafe { &raw mut (*place).time };
        // SAFETY: an aligned u64 that everybody changes by exchanges.
        let time = unsafe { AtomicU64::from_ptr(time) };
        time.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nobody borrows from it any more. Fails for no mapping of ours.
        let _ = unsafe { munmap(self.first.as_ptr().cast(), self.count as usize * size_of::<T>()) };
    }
}
