//! Pauses of the agent's loop. Owns one timer of the kernel, set anew for each: the runtime's own timers wake it more than
//! once on the way to a time that is far away, and an idle agent does little else than wait.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits, one pause at a time.
#[derive(Debug)]
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// When the kernel or the runtime gives none.
    #[expect(deprecated, reason = "the descriptor is this value's own, and open as long as it is registered")]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
    }

    /// Waits so long; not at all when it is no time. A pause that is dropped is over.
    ///
    /// # Errors
    /// When the timer cannot be set or read.
    pub async fn wait(&self, pause: Duration) -> io::Result<()> {
        if pause.is_zero() {
            return Ok(());
        }
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec::try_from(pause).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: none, it_value: at };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut expirations)?));
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_pause_is_as_long_as_said_whatever_was_dropped_before() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let waited = runtime.block_on(async {
            let timer = Timer::new().expect("a timer");
            tokio::select! {
                biased;
                waited = timer.wait(Duration::from_millis(1)) => waited.expect("a pause"),
                () = std::future::ready(()) => {}
            }
            // What was dropped has run out, and nobody has read that.
            drop(timer.0.readable().await.expect("a timer"));
            let begun = Instant::now();
            timer.wait(Duration::from_millis(30)).await.expect("a pause");
            timer.wait(Duration::ZERO).await.expect("none");
            begun.elapsed()
        });
        assert!(waited >= Duration::from_millis(30), "{waited:?}");
    }
}
