//! The file of the flow log. Owns its rotation: by size, or because somebody moved it and says so. Never cuts a line:
//! what it is given are whole lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// When the file is rotated.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rotation {
    /// Octets after which a new file is begun; never when absent.
    pub octets: Option<u64>,
    /// Former files that are kept: `FILE.1` is the latest.
    pub files: u32,
}

/// Where lines go.
pub(super) enum Output {
    /// A stream that is what it is.
    Stream(Box<dyn Write + Send>),
    /// A file.
    File(Rotated),
}

/// A file that is rotated.
pub(super) struct Rotated {
    path: PathBuf,
    file: File,
    octets: u64,
    rotation: Rotation,
}

impl Output {
    /// Opens a path; `-` is standard output. A new file is for the owner and the group only.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stream(Box::new(io::stdout())));
        }
        let (file, octets) = open(path)?;
        Ok(Self::File(Rotated { path: path.to_owned(), file, octets, rotation }))
    }

    /// Appends whole lines; returns how many were, and why not all.
    pub(super) fn write(&mut self, lines: &[u8]) -> (u64, io::Result<()>) {
        match self {
            Self::Stream(stream) => {
                let (octets, written) = append(stream, lines);
                (count(&lines[..octets]), written.and_then(|()| stream.flush()))
            }
            Self::File(file) => file.write(lines),
        }
    }

    /// Opens the path again: somebody moved the file.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Self::File(rotated) = self {
            (rotated.file, rotated.octets) = open(&rotated.path)?;
        }
        Ok(())
    }
}

impl Rotated {
    /// Appends whole lines, in as many files as they need.
    fn write(&mut self, mut lines: &[u8]) -> (u64, io::Result<()>) {
        let mut whole = 0;
        while !lines.is_empty() {
            if let Some(limit) = self.rotation.octets
                && self.octets > 0
                && fitting(lines, limit.saturating_sub(self.octets)) == 0
                && let Err(error) = self.rotate()
            {
                return (whole, Err(error));
            }
            let room = self.rotation.octets.map_or(u64::MAX, |limit| limit.saturating_sub(self.octets));
            let length = match fitting(lines, room) {
                0 => first_line(lines),
                length => length,
            };
            let (piece, rest) = lines.split_at(length);
            let (octets, written) = append(&mut self.file, piece);
            whole += count(&piece[..octets]);
            self.octets += octets as u64;
            if let Err(error) = written {
                self.take_back(octets - ending(&piece[..octets]));
                return (whole, Err(error));
            }
            lines = rest;
        }
        (whole, Ok(()))
    }

    /// Takes the beginning of a line back, so that the next one does not follow upon it.
    fn take_back(&mut self, octets: usize) {
        let taken =
            self.file.metadata().and_then(|file| self.file.set_len(file.len().saturating_sub(octets as u64)));
        match taken {
            Ok(()) => self.octets -= octets as u64,
            Err(error) => {
                tracing::error!(%error, "failed to take the beginning of a line out of the flow log")
            }
        }
    }

    /// Moves the file out of the way, and each former one by one; the last one goes.
    fn rotate(&mut self) -> io::Result<()> {
        let kept = self.rotation.files;
        for number in (1..kept).rev() {
            rename(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        match kept {
            0 => fs::remove_file(&self.path)?,
            _ => rename(&self.path, &numbered(&self.path, 1))?,
        }
        (self.file, self.octets) = open(&self.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    let octets = file.metadata()?.len();
    Ok((file, octets))
}

/// Writes until it fails; returns how many octets were written.
fn append(output: &mut (impl Write + ?Sized), mut octets: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while !octets.is_empty() {
        match output.write(octets) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => (written, octets) = (written + count, &octets[count..]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Whole lines.
fn count(octets: &[u8]) -> u64 {
    octets.iter().filter(|octet| **octet == b'\n').count() as u64
}

/// Octets up to the end of the last whole line.
fn ending(octets: &[u8]) -> usize {
    octets.iter().rposition(|octet| *octet == b'\n').map_or(0, |last| last + 1)
}

/// Octets of the lines at the beginning that fit into `room`.
fn fitting(lines: &[u8], room: u64) -> usize {
    let most = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    ending(&lines[..most])
}

/// Octets of the first line.
fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|octet| *octet == b'\n').map_or(lines.len(), |end| end + 1)
}

/// `FILE.NUMBER`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Renames a file that may not be there.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Option<String> {
        fs::read_to_string(path).ok()
    }

    #[test]
    fn a_full_file_is_moved_and_the_last_one_goes() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("flows");
        fs::write(&path, "0\n").expect("an earlier agent's");
        let mut output = Output::open(&path, Rotation { octets: Some(4), files: 2 }).expect("it opens");
        for line in ["1\n", "2\n", "3\n", "4\n", "5\n", "long line\n", "6\n"] {
            assert!(output.write(line.as_bytes()).1.is_ok());
        }
        let files = [path.clone(), numbered(&path, 1), numbered(&path, 2), numbered(&path, 3)];
        let expected = [Some("6\n"), Some("long line\n"), Some("4\n5\n"), None];
        assert_eq!(files.each_ref().map(|file| read(file)), expected.map(|text| text.map(str::to_owned)));
    }

    #[test]
    fn lines_that_come_together_are_in_files_of_their_size() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("flows");
        let mut output = Output::open(&path, Rotation { octets: Some(6), files: 9 }).expect("it opens");
        let (whole, written) = output.write(b"1\n2\n3\n4\na long line\n5\n");
        assert!(whole == 6 && written.is_ok());
        assert!(output.write(b"6\n7\n8\n").1.is_ok());
        let texts: Vec<_> = (0..5)
            .map(|number| match number {
                0 => read(&path),
                number => read(&numbered(&path, number)),
            })
            .collect();
        let expected =
            [Some("8\n"), Some("5\n6\n7\n"), Some("a long line\n"), Some("4\n"), Some("1\n2\n3\n")];
        assert_eq!(texts, expected.map(|text| text.map(str::to_owned)));
    }

    #[test]
    fn what_a_full_disk_takes_of_a_line_is_taken_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("flows");
        let mut output = Output::open(&path, Rotation::default()).expect("it opens");
        assert!(output.write(b"1\n2\n3").1.is_ok());
        let Output::File(file) = &mut output else { panic!("a stream") };
        file.take_back(1);
        assert_eq!((read(&path).as_deref(), file.octets), (Some("1\n2\n"), 4));
        assert_eq!((count(b"1\n2\n3"), ending(b"1\n2\n3"), ending(b"3")), (2, 4, 0));
    }

    #[test]
    fn a_file_that_was_moved_is_left_when_somebody_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("flows");
        let mut output = Output::open(&path, Rotation::default()).expect("it opens");
        let mut write = |line: &str, is_moved| {
            if is_moved {
                output.reopen().expect("it opens");
            }
            assert!(output.write(line.as_bytes()).1.is_ok());
        };
        write("1\n", false);
        rename(&path, &numbered(&path, 1)).expect("it is moved");
        write("2\n", false);
        write("3\n", true);
        assert_eq!(read(&numbered(&path, 1)).as_deref(), Some("1\n2\n"));
        assert_eq!(read(&path).as_deref(), Some("3\n"));
    }
}
