//! Room for the next batch in a full spool. Owns who makes it: the oldest segment that holds anything of what passed gives
//! that up, and is written anew with the rest. Refusals go, a segment of the oldest at once, when there is nothing else and a
//! refusal comes.

use std::fs::{self, File};
use std::io;

use super::segment::{self, Segment};
use super::{Spool, private};

impl Spool {
    /// Makes room for a batch of so many octets; false when there are only refusals, and it tells of none.
    pub(super) fn make_room(&mut self, length: u64, has_passed: bool) -> io::Result<bool> {
        while self.octets + length > self.options.octets {
            let gives = |segment: &Segment| segment.entries.iter().any(|entry| entry.has_passed);
            self.gone.dropped += match self.segments.iter().position(gives) {
                Some(at) => self.thin(at)?,
                None if has_passed => return Ok(false),
                None if self.segments.is_empty() => break,
                None => self.remove(0)?,
            };
        }
        Ok(true)
    }

    /// Removes a segment; returns how many records were still in it, and nobody else has.
    pub(super) fn remove(&mut self, at: usize) -> io::Result<u64> {
        self.stop_writing(at);
        let Some(segment) = self.segments.remove(at) else { return Ok(0) };
        let left: u64 = segment.entries.iter().map(|entry| u64::from(entry.records)).sum();
        let is_lent = at == 0 && std::mem::take(&mut self.is_lent);
        let lent = segment.entries.front().filter(|_| is_lent);
        let lost = left - lent.map_or(0, |entry| u64::from(entry.records));
        self.octets -= segment.octets;
        self.records -= left;
        match fs::remove_file(segment::path(&self.options.directory, segment.number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(lost),
        }
    }

    /// Takes what passed out of a segment; returns how many records were there, and nobody else has.
    fn thin(&mut self, at: usize) -> io::Result<u64> {
        if self.segments[at].entries.iter().all(|entry| entry.has_passed) {
            return self.remove(at);
        }
        self.stop_writing(at);
        let thinned = self.written_anew(at)?;
        let (before, is_first) = (std::mem::replace(&mut self.segments[at], thinned), at == 0);
        let passed = before.entries.iter().filter(|entry| entry.has_passed);
        let passed: u64 = passed.map(|entry| u64::from(entry.records)).sum();
        // Whoever has borrowed the first batch has it still.
        let lent = before.entries.front().filter(|entry| is_first && self.is_lent && entry.has_passed);
        if lent.is_some() {
            self.is_lent = false;
        }
        self.octets = self.octets - before.octets + self.segments[at].octets;
        self.records -= passed;
        Ok(passed - lent.map_or(0, |entry| u64::from(entry.records)))
    }

    /// Writes a segment without what passed, in its own place.
    fn written_anew(&mut self, at: usize) -> io::Result<Segment> {
        let (directory, before) = (&self.options.directory, &self.segments[at]);
        let (path, unfinished) =
            (segment::path(directory, before.number), segment::unfinished(directory, before.number));
        let (old, new) =
            (File::open(&path)?, private().write(true).create(true).truncate(true).open(&unfinished)?);
        let mut thinned = Segment::new(before.number);
        for entry in before.entries.iter().filter(|entry| !entry.has_passed) {
            thinned.copy(&new, entry, &old)?;
        }
        if at == 0 {
            // Before the file is another one: after a crash in between something is delivered twice, and nothing left out.
            self.cursor_at(before.number, 0)?;
        }
        fs::rename(&unfinished, &path)?;
        self.reading = self.reading.take().filter(|(number, _)| *number != thinned.number);
        Ok(thinned)
    }

    /// Has the next batch begin a segment, where this one is written.
    fn stop_writing(&mut self, at: usize) {
        if at + 1 == self.segments.len() {
            self.writing = None;
        }
    }
}
