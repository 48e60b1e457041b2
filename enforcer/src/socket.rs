//! Unix sockets of the agent. Owns their files: who may connect, what becomes of one that is left over, and that each is
//! removed when the agent ends.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The file of a socket; removed when this is dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

/// Listens at `path`, for the owner and the group only. Its directory is made when it is missing; a socket that nobody
/// listens at is replaced.
///
/// # Errors
/// When another agent listens there, or the socket cannot be made.
pub fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent listens there"));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let socket = UnixListener::bind(path);
    rustix::process::umask(mask);
    let socket = socket?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    socket.set_nonblocking(true)?;
    Ok((socket, SocketFile(path.to_owned())))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever finds it gone or not removable loses nothing: the next agent replaces it.
        let _ = fs::remove_file(&self.0);
    }
}
