//! Batches on disk while the other side is away. Owns a directory of segments, bounded in octets and in age: the oldest
//! make room, those of what passed before any other, and their records are counted. What is here outlives the agent; what a crash tore is left out and counted.
//!
//! A segment is written once, from front to back, and removed as a whole; a new agent begins a new one. Which entries were
//! delivered already is written down after each, so that at most one is delivered twice. Nothing is flushed to the disk
//! itself: the spool is for an agent or a collector that ends, not for a node that loses power.

mod room;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::FlockOperation;

use super::batch::Batch;
use segment::{Entry, Segment};

/// Segments that a full spool has: so much of it goes at once when it is full.
const SEGMENTS: u64 = 16;
/// The smallest segment, in octets.
const SMALLEST: u64 = 64 << 10;

/// Bounds of a spool.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Its directory.
    pub directory: PathBuf,
    /// Octets at most.
    pub octets: u64,
    /// Age from which records are dropped.
    pub age: Duration,
}

/// Records that are gone.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Gone {
    /// They made room for others.
    pub dropped: u64,
    /// They were too old.
    pub expired: u64,
    /// They were damaged; an entry whose head cannot be read counts as one.
    pub damaged: u64,
}

/// A directory of segments.
#[derive(Debug)]
pub struct Spool {
    options: Options,
    segments: VecDeque<Segment>,
    /// The last segment, while this process writes it.
    writing: Option<File>,
    /// The first segment's number and the file it is read from.
    reading: Option<(u64, File)>,
    /// Which entry comes first, across processes.
    cursor: File,
    next_number: u64,
    octets: u64,
    records: u64,
    /// True while the first entry is under way to the other side.
    is_lent: bool,
    gone: Gone,
    _lock: File,
}

impl Spool {
    /// Opens the directory and finds what an earlier agent left.
    ///
    /// # Errors
    /// When it cannot be made, read or written, or another process has it.
    pub fn open(options: &Options) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&options.directory)?;
        let lock = private().write(true).create(true).truncate(false).open(options.directory.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::other("another process uses this spool"))?;
        let cursor = private()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(options.directory.join("cursor"))?;
        let mut spool = Self {
            options: options.clone(),
            segments: VecDeque::new(),
            writing: None,
            reading: None,
            cursor,
            next_number: 1,
            octets: 0,
            records: 0,
            is_lent: false,
            gone: Gone::default(),
            _lock: lock,
        };
        spool.recover()?;
        Ok(spool)
    }

    /// Appends a batch at a time; the oldest make room, as [`room`] says.
    ///
    /// # Errors
    /// When it cannot be written; nothing of it remains.
    pub fn append(&mut self, batch: &Batch, now: Timestamp) -> io::Result<()> {
        let length = segment::length(batch);
        if length > self.options.octets {
            self.gone.dropped += u64::from(batch.records);
            return Ok(());
        }
        if !self.make_room(length, batch.has_passed)? {
            self.gone.dropped += u64::from(batch.records);
            return Ok(());
        }
        let full = (self.options.octets / SEGMENTS).max(SMALLEST);
        if self.segments.back().is_none_or(|last| last.octets + length > full) {
            self.writing = None;
        }
        if self.writing.is_none() {
            let path = segment::path(&self.options.directory, self.next_number);
            self.writing = Some(private().write(true).create_new(true).open(path)?);
            self.segments.push_back(Segment::new(self.next_number));
            self.next_number += 1;
        }
        let (Some(file), Some(last)) = (&self.writing, self.segments.back_mut()) else {
            return Err(io::Error::other("no segment is open"));
        };
        if let Err(error) = last.append(file, batch, now) {
            self.writing = None;
            return Err(error);
        }
        self.octets += length;
        self.records += u64::from(batch.records);
        Ok(())
    }

    /// The oldest batch that is neither too old nor damaged. It is lent: it stays until it is [forgotten](Self::forget) or
    /// [kept](Self::keep), unless it makes room for others; then it is the borrower's alone, and is not counted.
    ///
    /// # Errors
    /// When a segment cannot be read.
    pub fn first(&mut self, now: Timestamp) -> io::Result<Option<Batch>> {
        while let Some(entry) = self.first_entry() {
            if now.duration_since(entry.time).unsigned_abs() > self.options.age && now > entry.time {
                self.gone.expired += u64::from(entry.records);
                self.forget()?;
                continue;
            }
            match self.file()?.and_then(|file| segment::read(file, &entry)) {
                Some(batch) => {
                    self.is_lent = true;
                    return Ok(Some(batch));
                }
                None => {
                    self.gone.damaged += u64::from(entry.records);
                    self.forget()?;
                }
            }
        }
        Ok(None)
    }

    /// Forgets the oldest batch, and a segment with it when it was its last one.
    ///
    /// # Errors
    /// When a segment cannot be removed, or it cannot be written down.
    pub fn forget(&mut self) -> io::Result<()> {
        self.is_lent = false;
        let Some(first) = self.segments.front_mut() else { return Ok(()) };
        let Some(entry) = first.entries.pop_front() else { return Ok(()) };
        self.records -= u64::from(entry.records);
        if first.entries.is_empty() {
            return self.remove(0).map(drop);
        }
        let number = first.number;
        self.cursor_at(number, entry.end())
    }

    /// The batch that was lent stays.
    pub fn keep(&mut self) {
        self.is_lent = false;
    }

    /// True while the oldest batch is lent and still here.
    pub fn is_lent(&self) -> bool {
        self.is_lent
    }

    /// True when there is nothing.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Records in it.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Octets it takes.
    pub fn octets(&self) -> u64 {
        self.octets
    }

    /// What is gone since this was asked last.
    pub fn take_gone(&mut self) -> Gone {
        std::mem::take(&mut self.gone)
    }

    fn first_entry(&self) -> Option<Entry> {
        self.segments.front().and_then(|first| first.entries.front()).copied()
    }

    /// The file of the first segment; `None` when somebody took it away.
    fn file(&mut self) -> io::Result<Option<&File>> {
        let Some(first) = self.segments.front() else { return Ok(None) };
        if self.reading.as_ref().is_none_or(|(number, _)| *number != first.number) {
            let opened = File::open(segment::path(&self.options.directory, first.number));
            self.reading = match opened {
                Ok(file) => Some((first.number, file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
        }
        Ok(self.reading.as_ref().map(|(_, file)| file))
    }

    /// Writes down what comes first.
    fn cursor_at(&self, number: u64, offset: u64) -> io::Result<()> {
        self.cursor.write_all_at(&segment::cursor(number, offset), 0)
    }

    /// Finds the segments of an earlier agent.
    fn recover(&mut self) -> io::Result<()> {
        segment::remove_unfinished(&self.options.directory)?;
        let mut place = [0; segment::CURSOR];
        let read = self.cursor.read_at(&mut place, 0)?;
        let (number, offset) = segment::read_cursor(&place[..read]).unwrap_or_default();
        for found in segment::numbers(&self.options.directory)? {
            let path = segment::path(&self.options.directory, found);
            let (mut segment, damaged) = Segment::recover(&File::open(&path)?, found)?;
            self.gone.damaged += damaged;
            let delivered = if found < number {
                u64::MAX
            } else if found == number {
                offset
            } else {
                0
            };
            segment.entries.retain(|entry| entry.end() > delivered);
            self.next_number = found + 1;
            if segment.entries.is_empty() {
                fs::remove_file(&path)?;
                continue;
            }
            self.octets += segment.octets;
            self.records += segment.entries.iter().map(|entry| u64::from(entry.records)).sum::<u64>();
            self.segments.push_back(segment);
        }
        self.next_number = self.next_number.max(number + 1);
        Ok(())
    }
}

/// Files of the spool are for the owner only: records tell who speaks to whom.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}
