//! A list that one thread writes and others wait on. Owns the waiting: nothing in the harness sleeps.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a condition may take before a test calls it false. Generous: it is waited out only by a failure.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Entries in the order they were pushed.
#[derive(Debug)]
pub struct Journal<T> {
    entries: Mutex<Vec<T>>,
    grew: Condvar,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self { entries: Mutex::new(Vec::new()), grew: Condvar::new() }
    }
}

impl<T> Journal<T> {
    /// Adds an entry and wakes who waits.
    pub fn push(&self, entry: T) {
        self.lock().push(entry);
        self.grew.notify_all();
    }

    /// Entries so far.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// True before the first entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at all entries.
    pub fn read<R>(&self, look: impl FnOnce(&[T]) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until `look` finds what it wants, at most `patience`; `None` when it never does.
    pub fn wait_within<R>(&self, patience: Duration, mut look: impl FnMut(&[T]) -> Option<R>) -> Option<R> {
        let deadline = Instant::now() + patience;
        let mut entries = self.lock();
        loop {
            if let Some(found) = look(&entries) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            entries = self.grew.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// As [`Self::wait_within`] with [`PATIENCE`].
    pub fn wait<R>(&self, look: impl FnMut(&[T]) -> Option<R>) -> Option<R> {
        self.wait_within(PATIENCE, look)
    }

    /// A thread that panicked while it held the lock has only pushed or looked: the list is whole.
    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
