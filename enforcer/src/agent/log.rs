//! The flow log: every record, of flows and of DNS, as a line of JSON, appended. Owns the file, the thread that writes it and the counts of
//! lines that are missing; never stops the agent: what whoever reads or stores it cannot take in time is dropped.
//!
//! Lines gather in one bounded buffer. The writer takes all of it at once and writes while the next lines gather, so
//! at most two buffers are in memory. Both are made whole at the start, so that growing leaves no holes in the heap;
//! pages that are never filled cost nothing.

mod file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use enforcer_core::record::Record;
use enforcer_core::record::line::Lines;
use serde::Serialize;

use crate::telemetry::told::Told;
use file::Output;
pub use file::Rotation;

/// Octets that wait for the writer at most: more lines than the kernel's ring buffer has events.
const ROOM: usize = 24 << 20;
/// Octets of a line for which there is still room then.
const LONG_LINE: usize = 1 << 20;
/// Octets of them that lines of flows that passed may take: refusals are worth more.
const ROOM_OF_PASSED: usize = ROOM / 4 * 3;
/// Octets that are worth waking the writer in the middle of a turn: to wake it costs more than a thousand lines.
const WORTHWHILE: usize = 1 << 20;

/// Where records are logged.
#[derive(Debug)]
pub struct FlowLog {
    path: PathBuf,
    lines: Lines,
    shared: Arc<Shared>,
}

/// What the agent and the writer share.
#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Lines came, or the log is closed.
    filled: Condvar,
    /// Everything that came was written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<u8>,
    /// Lines of `waiting`.
    lines: u64,
    /// Lines in the writer's hands.
    writing: u64,
    is_closed: bool,
    /// Somebody moved the file.
    is_moved: bool,
    dropped: u64,
    failed: u64,
}

impl FlowLog {
    /// Opens the log; `-` is standard output. A new file is for the owner and the group only.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or no thread can be started.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        Self::to(path, Output::open(path, rotation)?)
    }

    fn to(path: &Path, output: Output) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        shared.lock().waiting.reserve_exact(ROOM + LONG_LINE);
        let (theirs, place) = (Arc::clone(&shared), path.to_owned());
        thread::Builder::new().name("flow-log".to_owned()).spawn(move || theirs.write(output, &place))?;
        Ok(Self { path: path.to_owned(), lines: Lines::default(), shared })
    }

    /// Appends a flow record, as [`Self::append`] does.
    pub fn append_record(&mut self, record: &Record) {
        let mut lines = std::mem::take(&mut self.lines);
        self.append_line(record.has_passed(), |line| lines.write(record, line));
        self.lines = lines;
    }

    /// Appends a record; drops and counts it when there is no room, which is less for what `passed`. Never waits for the
    /// writer.
    pub fn append(&mut self, passed: bool, record: &impl Serialize) {
        let mut written = Ok(());
        self.append_line(passed, |line| {
            let before = line.len();
            written = serde_json::to_writer(&mut *line, record);
            if written.is_err() {
                line.truncate(before);
            }
        });
        if let Err(error) = written {
            self.shared.lock().failed += 1;
            tracing::error!(%error, "failed to write a record as JSON");
        }
    }

    /// Appends the line that `write` appends to what it is given, as [`Self::append`] does; nothing when it is empty.
    pub fn append_line(&mut self, passed: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let mut queue = self.shared.lock();
        let room = if passed { ROOM_OF_PASSED } else { ROOM };
        let before = queue.waiting.len();
        if before >= room {
            if queue.dropped == 0 {
                tracing::warn!(path = %self.path.display(), "the flow log is read or stored too slowly; records are lost there");
            }
            queue.dropped += 1;
            return;
        }
        write(&mut queue.waiting);
        if queue.waiting.len() == before {
            return;
        }
        queue.waiting.push(b'\n');
        queue.lines += 1;
        if queue.waiting.len() / WORTHWHILE > before / WORTHWHILE {
            self.shared.filled.notify_one();
        }
    }

    /// Has the writer take what was appended.
    pub fn flush(&self) {
        self.shared.filled.notify_one();
    }

    /// Has the writer open the file again: somebody moved it.
    pub fn reopen(&self) {
        self.shared.lock().is_moved = true;
        self.shared.filled.notify_one();
    }

    /// Closes the log and waits for what was appended to be written, at most `patience`; returns how many lines
    /// nobody took.
    pub fn close(&self, patience: Duration) -> u64 {
        let mut queue = self.shared.lock();
        queue.is_closed = true;
        self.shared.filled.notify_one();
        let is_busy = |queue: &mut Queue| queue.writing + queue.lines > 0;
        let waited = self.shared.emptied.wait_timeout_while(queue, patience, is_busy);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.writing + queue.lines
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lines that were dropped because those before them were not taken.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Lines that could not be written.
    pub fn failed(&self) -> u64 {
        self.shared.lock().failed
    }
}

impl Drop for FlowLog {
    /// The writer ends once it has written what is there.
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.filled.notify_one();
    }
}

impl Shared {
    /// The writer: everything that waits, over and over, until the log is closed.
    fn write(&self, mut output: Output, path: &Path) {
        let mut chunk = Vec::with_capacity(ROOM + LONG_LINE);
        loop {
            let queue = self.lock();
            let is_idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.is_closed && !queue.is_moved;
            let mut queue = self.filled.wait_while(queue, is_idle).unwrap_or_else(PoisonError::into_inner);
            if std::mem::take(&mut queue.is_moved)
                && let Err(error) = output.reopen()
            {
                tracing::error!(path = %path.display(), %error, "failed to open the flow log again; the old file is written");
            }
            if queue.waiting.is_empty() {
                if queue.is_closed {
                    return;
                }
                continue;
            }
            std::mem::swap(&mut queue.waiting, &mut chunk);
            queue.writing = std::mem::take(&mut queue.lines);
            drop(queue);
            let (whole, written) = output.write(&chunk);
            chunk.clear();
            self.note(whole, written, path);
        }
    }

    /// Notes what became of the lines: how many are there whole, and why not all.
    fn note(&self, whole: u64, written: io::Result<()>, path: &Path) {
        let mut queue = self.lock();
        let lines = std::mem::take(&mut queue.writing).saturating_sub(whole);
        if let Err(error) = written {
            if queue.failed == 0 {
                tracing::error!(path = %path.display(), %error, "failed to write the flow log; records are lost there");
            }
            queue.failed += lines;
        }
        if queue.waiting.is_empty() {
            self.emptied.notify_all();
        }
    }

    /// Whoever panicked while holding the lock has moved whole lines and counted, and left one unfinished at most.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::testing::record;

    /// Far longer than a write takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_pipe_that_nobody_reads_costs_lines_and_never_time() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let mut log = FlowLog::to(Path::new("-"), Output::Stream(Box::new(writer))).expect("a thread");
        let mut appended = 0;
        while log.dropped() == 0 {
            log.append(true, &record(|r| r.revision = appended));
            log.flush();
            appended += 1;
        }
        log.append(false, &record(|r| r.revision = appended));
        assert_eq!(log.dropped(), 1, "there is room left for refusals");
        let read = thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        assert_eq!(log.close(PATIENCE), 0, "everything else is taken at last");
        drop(log);
        let text = read.join().expect("no panic").expect("text");
        let revisions: Vec<u32> = text
            .lines()
            .map(|line| serde_json::from_str::<Record>(line).expect("whole lines").revision)
            .collect();
        let expected: Vec<u32> = (0..appended - 1).chain([appended]).collect();
        assert_eq!(revisions, expected, "in order, but for the one dropped");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let mut log = FlowLog::to(Path::new("-"), Output::Stream(Box::new(writer))).expect("a thread");
        log.append(true, &record(|_| ()));
        log.append(true, &record(|_| ()));
        assert_eq!(log.close(PATIENCE), 0);
        assert_eq!((log.failed(), log.dropped()), (2, 0));
    }
}
