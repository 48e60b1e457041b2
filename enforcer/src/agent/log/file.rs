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

    /// Appends whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => stream.write_all(lines).and_then(|()| stream.flush()),
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
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let is_full = |limit: u64| self.octets > 0 && self.octets + lines.len() as u64 > limit;
        if self.rotation.octets.is_some_and(is_full) {
            self.rotate()?;
        }
        self.file.write_all(lines)?;
        self.octets += lines.len() as u64;
        Ok(())
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
            output.write(line.as_bytes()).expect("it is written");
        }
        let files = [path.clone(), numbered(&path, 1), numbered(&path, 2), numbered(&path, 3)];
        let expected = [Some("6\n"), Some("long line\n"), Some("4\n5\n"), None];
        assert_eq!(files.each_ref().map(|file| read(file)), expected.map(|text| text.map(str::to_owned)));
    }

    #[test]
    fn a_file_that_was_moved_is_left_when_somebody_says_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("flows");
        let mut output = Output::open(&path, Rotation::default()).expect("it opens");
        output.write(b"1\n").expect("it is written");
        rename(&path, &numbered(&path, 1)).expect("it is moved");
        output.write(b"2\n").expect("it is written");
        output.reopen().expect("it opens");
        output.write(b"3\n").expect("it is written");
        assert_eq!(read(&numbered(&path, 1)).as_deref(), Some("1\n2\n"));
        assert_eq!(read(&path).as_deref(), Some("3\n"));
    }
}
