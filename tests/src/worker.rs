//! A thread that does one step over and over until its owner is dropped. Owns the stopping.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a step may wait for something to do before it looks whether it should stop.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// The thread; dropping this stops and joins it.
#[derive(Debug)]
pub(crate) struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Repeats `step`, which waits [`TICK`] at most, until dropped or until it fails for another reason than time.
    pub(crate) fn start(mut step: impl FnMut(&Arc<AtomicBool>) -> io::Result<()> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let run = move || {
            while !seen.load(Ordering::Relaxed) {
                match step(&seen) {
                    Err(error) if !is_timeout(&error) => return,
                    _ => {}
                }
            }
        };
        Self { stop, thread: Some(std::thread::spawn(run)) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A step that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// True when there was nothing to do within the time given.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}
