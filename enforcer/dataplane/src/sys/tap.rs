//! Two sockets of the kernel that Rust's libraries have no door for: a TAP device that only this process reads, and a
//! packet socket that sends past the programs. Owns their ioctls; never knows what a frame holds.

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::raw::{c_int, c_short};

/// Where TAP devices come from.
pub(crate) const CLONE_DEVICE: &str = "/dev/net/tun";
/// What they are called; the kernel puts a number in the place of `%d`.
const NAME: &[u8] = b"enforcer%d";
/// Frames that may wait to be read; more are dropped, and counted by the interface.
const QUEUE: c_int = 1024;

/// A network interface whose frames this process reads. It is gone with the last descriptor.
#[derive(Debug)]
pub(crate) struct Tap {
    device: OwnedFd,
    name: String,
    index: u32,
}

impl Tap {
    /// Makes one in the network namespace of the calling thread, and brings it up.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let device = rustix::fs::open(CLONE_DEVICE, flags, Mode::empty())?;
        let mut made = request(NAME);
        made.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as c_short;
        // SAFETY: TUNSETIFF reads and writes an `ifreq`.
        unsafe { control(&device, libc::TUNSETIFF as _, &mut made) }?;
        let name: Vec<u8> = made.ifr_name.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
        let any = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        let mut queue = request(&name);
        queue.ifr_ifru.ifru_metric = QUEUE;
        // SAFETY: SIOCSIFTXQLEN reads an `ifreq`.
        unsafe { control(&any, libc::SIOCSIFTXQLEN as _, &mut queue) }?;
        let mut up = request(&name);
        up.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_NOARP) as c_short;
        // SAFETY: SIOCSIFFLAGS reads an `ifreq`.
        unsafe { control(&any, libc::SIOCSIFFLAGS as _, &mut up) }?;
        let mut index = request(&name);
        // SAFETY: SIOCGIFINDEX reads and writes an `ifreq`.
        unsafe { control(&any, libc::SIOCGIFINDEX as _, &mut index) }?;
        // SAFETY: the field that the call has written.
        let index = unsafe { index.ifr_ifru.ifru_ifindex } as u32;
        Ok(Self { device, name: String::from_utf8_lossy(&name).into_owned(), index })
    }

    /// Its index.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Frames that came while `QUEUE` others waited.
    pub(crate) fn dropped(&self) -> u64 {
        // Of this thread's namespace, wherever /sys was mounted. Received: eight columns; sent: octets, packets, errors, drops.
        let all = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        let own = all.lines().find_map(|line| line.trim_start().strip_prefix(&self.name)?.strip_prefix(':'));
        own.and_then(|columns| columns.split_whitespace().nth(11)?.parse().ok()).unwrap_or(0)
    }

    /// Reads one frame: its length; `None` when none waits.
    pub(crate) fn read(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.device, into) {
            Ok(length) => Ok(Some(length)),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Sends frames out of an interface past its queue and its programs.
#[derive(Debug)]
pub(crate) struct Wire(OwnedFd);

impl Wire {
    /// Opens it; it receives nothing.
    pub(crate) fn new() -> io::Result<Self> {
        let family = AddressFamily::from_raw(libc::AF_PACKET as u16);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::RAW, flags, None)?;
        let (level, option, on): (_, _, c_int) = (libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1);
        let (value, length) = (std::ptr::from_ref(&on).cast(), size_of::<c_int>() as u32);
        // SAFETY: the option is an integer, which is borrowed over the call.
        let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, length) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(socket)) }
    }

    /// Sends a frame, from its Ethernet header on.
    pub(crate) fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        // SAFETY: integers and arrays of integers only.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = interface as c_int;
        to.sll_halen = 6;
        let address = std::ptr::from_ref(&to).cast::<libc::sockaddr>();
        let length = size_of::<libc::sockaddr_ll>() as u32;
        let (octets, socket) = (frame.as_ptr().cast(), self.0.as_raw_fd());
        // SAFETY: frame and address are borrowed over the call, with their lengths.
        let sent = unsafe { libc::sendto(socket, octets, frame.len(), 0, address, length) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn request(name: &[u8]) -> libc::ifreq {
    // SAFETY: integers, arrays of integers and a union of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last octet stays 0.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name) {
        *to = *from as _;
    }
    request
}

/// # Safety
///
/// `command` takes an `ifreq`.
unsafe fn control(on: &OwnedFd, command: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: by contract; the request is borrowed over the call.
    let result = unsafe { libc::ioctl(on.as_raw_fd(), command, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
