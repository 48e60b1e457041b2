//! A segment of the spool on disk: entries one behind the other, each a head of 32 octets and a payload. Owns the form;
//! heads and payloads have checksums (CRC-32), so that what was torn is seen.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::telemetry::export::batch::Batch;

/// What every head begins with; another form has another one.
const MAGIC: [u8; 4] = *b"EnS1";
/// Octets of a head.
const HEAD: usize = 32;
/// Octets of the file that says what was delivered.
pub(super) const CURSOR: usize = 20;

/// One batch in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    /// Where its head is.
    offset: u64,
    /// Octets of its payload.
    length: u32,
    /// Records in it.
    pub(super) records: u32,
    /// When it came.
    pub(super) time: Timestamp,
    /// True when all of them tell of what passed.
    pub(super) has_passed: bool,
    /// Checksum of its payload.
    checksum: u32,
}

/// What is known of a segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number: segments are read in the order of theirs.
    pub(super) number: u64,
    /// Its entries, those that were delivered left out.
    pub(super) entries: VecDeque<Entry>,
    /// Octets of its file.
    pub(super) octets: u64,
}

impl Entry {
    /// Where the next one begins.
    pub(super) fn end(&self) -> u64 {
        self.offset + HEAD as u64 + u64::from(self.length)
    }

    fn head(&self) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&self.length.to_le_bytes());
        head[8..12].copy_from_slice(&self.records.to_le_bytes());
        head[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        head[16..24].copy_from_slice(&self.time.as_millisecond().to_le_bytes());
        head[24] = u8::from(!self.has_passed);
        let checksum = crc32fast::hash(&head[..HEAD - 4]);
        head[HEAD - 4..].copy_from_slice(&checksum.to_le_bytes());
        head
    }

    fn read(head: &[u8; HEAD], offset: u64) -> Option<Self> {
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let millisecond = u64::from(number(16)) | u64::from(number(20)) << 32;
        let is_whole = head[..4] == MAGIC && crc32fast::hash(&head[..HEAD - 4]) == number(HEAD - 4);
        is_whole.then_some(Self {
            offset,
            length: number(4),
            records: number(8),
            time: Timestamp::from_millisecond(millisecond.cast_signed()).ok()?,
            checksum: number(12),
            has_passed: head[24] == 0,
        })
    }
}

impl Segment {
    /// An empty one.
    pub(super) fn new(number: u64) -> Self {
        Self { number, entries: VecDeque::new(), octets: 0 }
    }

    /// Appends a batch to its file; takes it back when it cannot be written whole.
    pub(super) fn append(&mut self, file: &File, batch: &Batch, now: Timestamp) -> io::Result<()> {
        let length = u32::try_from(batch.payload.len()).map_err(io::Error::other)?;
        let checksum = crc32fast::hash(&batch.payload);
        let Batch { records, has_passed, .. } = *batch;
        let entry = Entry { offset: self.octets, length, records, time: now, checksum, has_passed };
        let written = file
            .write_all_at(&entry.head(), entry.offset)
            .and_then(|()| file.write_all_at(&batch.payload, entry.offset + HEAD as u64));
        if let Err(error) = written {
            file.set_len(self.octets)?;
            return Err(error);
        }
        self.octets = entry.end();
        self.entries.push_back(entry);
        Ok(())
    }

    /// Appends an entry of another segment's file as it is.
    pub(super) fn copy(&mut self, file: &File, entry: &Entry, from: &File) -> io::Result<()> {
        let mut payload = vec![0; entry.length as usize];
        from.read_exact_at(&mut payload, entry.offset + HEAD as u64)?;
        let entry = Entry { offset: self.octets, ..*entry };
        file.write_all_at(&entry.head(), entry.offset)?;
        file.write_all_at(&payload, entry.offset + HEAD as u64)?;
        self.octets = entry.end();
        self.entries.push_back(entry);
        Ok(())
    }

    /// What an earlier process wrote, and how many records of it are damaged.
    pub(super) fn recover(file: &File, number: u64) -> io::Result<(Self, u64)> {
        let octets = file.metadata()?.len();
        let (mut entries, mut offset) = (VecDeque::new(), 0);
        while offset < octets {
            let mut head = [0; HEAD];
            let entry = match file.read_exact_at(&mut head, offset) {
                Ok(()) => Entry::read(&head, offset),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
                Err(error) => return Err(error),
            };
            match entry {
                Some(entry) if entry.end() <= octets => {
                    offset = entry.end();
                    entries.push_back(entry);
                }
                torn => {
                    let damaged = torn.map_or(1, |entry| u64::from(entry.records));
                    return Ok((Self { number, entries, octets }, damaged));
                }
            }
        }
        Ok((Self { number, entries, octets }, 0))
    }
}

/// Octets that a batch takes.
pub(super) fn length(batch: &Batch) -> u64 {
    (HEAD + batch.payload.len()) as u64
}

/// The batch of an entry; `None` when it is damaged.
pub(super) fn read(file: &File, entry: &Entry) -> Option<Batch> {
    let mut payload = vec![0; entry.length as usize];
    file.read_exact_at(&mut payload, entry.offset + HEAD as u64).ok()?;
    let is_whole = crc32fast::hash(&payload) == entry.checksum;
    is_whole.then(|| Batch { payload: payload.into(), records: entry.records, has_passed: entry.has_passed })
}

/// The file of a segment.
pub(super) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.spool"))
}

/// The file in which a segment is written anew.
pub(super) fn unfinished(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:020}.part"))
}

/// Removes what an earlier process did not finish to write anew.
pub(super) fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Numbers of the segments in a directory, ascending.
pub(super) fn numbers(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(directory)? {
        let name = file?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".spool"));
        numbers.extend(stem.and_then(|stem| stem.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What says that a segment was delivered up to an offset, and all before it.
pub(super) fn cursor(number: u64, offset: u64) -> [u8; CURSOR] {
    let mut place = [0; CURSOR];
    place[..8].copy_from_slice(&number.to_le_bytes());
    place[8..16].copy_from_slice(&offset.to_le_bytes());
    let checksum = crc32fast::hash(&place[..16]);
    place[16..].copy_from_slice(&checksum.to_le_bytes());
    place
}

/// Segment and offset of what [`cursor`] wrote; `None` when it is damaged or absent.
pub(super) fn read_cursor(place: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = place.split_first_chunk::<8>()?;
    let (offset, checksum) = rest.split_first_chunk::<8>()?;
    let is_whole = crc32fast::hash(&place[..16]).to_le_bytes() == *checksum;
    is_whole.then(|| (u64::from_le_bytes(*number), u64::from_le_bytes(*offset)))
}
