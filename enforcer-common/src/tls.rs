//! The server name of a TLS ClientHello, read octet by octet as it comes: however it is cut into segments and records,
//! the same is read. Owns where a hello stands and what is wrong with one; never knows a connection.
//!
//! Sources: RFC 8446, sections 4.1.2 and 5.1 (older versions have the same layout, RFC 5246), and RFC 6066, section 3.
//! Nothing is kept but numbers and the name, so that a hello of any length costs the same memory.

use crate::event::NameEvent;
use crate::name::MAX_NAME;
use crate::packet::Octets;

/// Octets of the longest hello that is read.
pub const MAX_HELLO: u32 = 1 << 14;

/// Where a hello stands, and its name.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The name so far, as it is told; the rest is written by who tells it.
    pub event: NameEvent,
    /// The number being read, high octets first.
    number: u64,
    /// The record header being read.
    header: u64,
    /// Octets of the record header that are missing.
    header_missing: u32,
    /// Octets left in the record; 0 where a header comes next.
    record: u32,
    /// What is being read: a [`field`].
    field: u32,
    /// Octets of it that are missing.
    missing: u32,
    /// Octets to pass over before it.
    skip: u32,
    /// Octets of the hello that no length accounts for yet.
    rest: u32,
    /// Octets of the extension that names the server.
    extension: u32,
    /// Sequence number of the octet that comes next.
    pub next: u32,
}

/// What is read one after the other.
mod field {
    /// Type of the handshake message and its length.
    pub(super) const MESSAGE: u32 = 0;
    /// Version; behind it, unread, the random octets.
    pub(super) const VERSION: u32 = 1;
    /// Length of the session number.
    pub(super) const SESSION: u32 = 2;
    /// Length of the list of ciphers.
    pub(super) const CIPHERS: u32 = 3;
    /// Length of the list of compression methods.
    pub(super) const COMPRESSION: u32 = 4;
    /// Length of all extensions.
    pub(super) const EXTENSIONS: u32 = 5;
    /// Type and length of one.
    pub(super) const EXTENSION: u32 = 6;
    /// Length of the list of server names, type and length of its one entry.
    pub(super) const SERVER_NAME: u32 = 7;
    /// The name.
    pub(super) const NAME: u32 = 8;
    /// Nothing more.
    pub(super) const DONE: u32 = 9;
}

/// What is wrong with a hello.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It is none, or not well formed.
    NotTls = 1,
    /// It names no server.
    NoName = 2,
    /// It is longer than [`MAX_HELLO`].
    TooLong = 3,
}

const HANDSHAKE: u64 = 22;
const CLIENT_HELLO: u64 = 1;
/// Octets of a record header: type, version and length.
const RECORD_HEADER: u32 = 5;
/// Octets of the longest record.
const MAX_RECORD: u64 = 1 << 14;
const RANDOM: u32 = 32;
const MAX_SESSION: u32 = 32;
/// Octets in front of a name: lengths of list and name, and the type between them.
const NAME_HEADER: u32 = 5;

impl Hello {
    /// Before the first octet, which has this sequence number.
    #[inline(always)]
    pub const fn at(next: u32) -> Self {
        Self {
            event: NameEvent::EMPTY,
            number: 0,
            header: 0,
            header_missing: RECORD_HEADER,
            record: 0,
            field: field::MESSAGE,
            missing: 4,
            skip: 0,
            rest: 0,
            extension: 0,
            next,
        }
    }

    /// True once it was read to its end and names a server.
    #[inline(always)]
    pub const fn is_read(&self) -> bool {
        self.field == field::DONE && self.skip == 0
    }

    /// True once the name was read to its end.
    #[inline(always)]
    pub const fn has_name(&self) -> bool {
        self.event.length != 0 && self.field != field::NAME
    }
}

/// Reads on at an offset with `left` octets, at least 1: one octet, or those that mean nothing. How many were read.
///
/// # Errors
///
/// What is wrong; the hello must not be read on then.
#[inline(always)]
pub fn step<O: Octets>(hello: &mut Hello, octets: &O, at: u32, left: u32) -> Result<u32, Fault> {
    if hello.record != 0 && hello.skip != 0 {
        let mut here = if hello.skip < hello.record { hello.skip } else { hello.record };
        here = if left < here { left } else { here };
        hello.skip -= here;
        hello.record -= here;
        return Ok(here);
    }
    let Some([octet]) = octets.load::<1>(at) else { return Err(Fault::NotTls) };
    if hello.record == 0 {
        hello.header = hello.header << 8 | octet as u64;
        hello.header_missing -= 1;
        return if hello.header_missing == 0 { begin_record(hello) } else { Ok(1) };
    }
    hello.record -= 1;
    hello.missing -= 1;
    if hello.field == field::NAME {
        return add_to_name(hello, octet);
    }
    hello.number = hello.number << 8 | octet as u64;
    if hello.missing == 0 { take(hello) } else { Ok(1) }
}

/// A record's header is whole. Records without octets are refused, as RFC 8446 does for handshakes.
#[inline(always)]
fn begin_record(hello: &mut Hello) -> Result<u32, Fault> {
    let (kind, major, length) = (hello.header >> 32, hello.header >> 24 & 0xff, hello.header & 0xffff);
    if kind != HANDSHAKE || major != 3 || length == 0 || length > MAX_RECORD {
        return Err(Fault::NotTls);
    }
    hello.record = length as u32;
    hello.header = 0;
    hello.header_missing = RECORD_HEADER;
    Ok(1)
}

/// A number is whole: what comes next follows from it.
#[inline(always)]
fn take(hello: &mut Hello) -> Result<u32, Fault> {
    let number = hello.number;
    let low = number as u32;
    hello.number = 0;
    match hello.field {
        field::MESSAGE => {
            if number >> 24 != CLIENT_HELLO {
                return Err(Fault::NotTls);
            }
            hello.rest = low & 0xff_ffff;
            if hello.rest > MAX_HELLO {
                return Err(Fault::TooLong);
            }
            account(hello, 2 + RANDOM + 1)?;
            expect(hello, 0, field::VERSION, 2)
        }
        field::VERSION if low >> 8 == 3 => expect(hello, RANDOM, field::SESSION, 1),
        field::SESSION if low <= MAX_SESSION => {
            account(hello, low + 2)?;
            expect(hello, low, field::CIPHERS, 2)
        }
        field::CIPHERS if low >= 2 && low & 1 == 0 => {
            account(hello, low + 1)?;
            expect(hello, low, field::COMPRESSION, 1)
        }
        field::COMPRESSION if low != 0 => {
            account(hello, low)?;
            if hello.rest == 0 {
                return Err(Fault::NoName);
            }
            account(hello, 2)?;
            expect(hello, low, field::EXTENSIONS, 2)
        }
        field::EXTENSIONS if low == hello.rest => next_extension(hello, 0),
        field::EXTENSION => extension(hello, low >> 16, low & 0xffff),
        field::SERVER_NAME => server_name(hello, number),
        _ => Err(Fault::NotTls),
    }
}

/// What follows is `number` octets of a field, behind `skip` that mean nothing.
#[inline(always)]
fn expect(hello: &mut Hello, skip: u32, field: u32, number: u32) -> Result<u32, Fault> {
    hello.skip = skip;
    hello.field = field;
    hello.missing = number;
    Ok(1)
}

/// So many octets of the hello are spoken for.
#[inline(always)]
fn account(hello: &mut Hello, octets: u32) -> Result<(), Fault> {
    if hello.rest < octets {
        return Err(Fault::NotTls);
    }
    hello.rest -= octets;
    Ok(())
}

/// Behind `skip` octets comes an extension, or the end.
#[inline(always)]
fn next_extension(hello: &mut Hello, skip: u32) -> Result<u32, Fault> {
    if hello.rest != 0 {
        account(hello, 4)?;
        return expect(hello, skip, field::EXTENSION, 4);
    }
    if hello.event.length == 0 {
        return Err(Fault::NoName);
    }
    expect(hello, skip, field::DONE, 0)
}

/// Type and length of an extension are whole.
#[inline(always)]
fn extension(hello: &mut Hello, kind: u32, length: u32) -> Result<u32, Fault> {
    account(hello, length)?;
    if kind != 0 {
        return next_extension(hello, length);
    }
    // There is at most one of a type (RFC 8446, section 4.2).
    if length < NAME_HEADER || hello.event.length != 0 {
        return Err(Fault::NotTls);
    }
    hello.extension = length;
    expect(hello, 0, field::SERVER_NAME, NAME_HEADER)
}

/// The list of names has one entry, a host name, and nothing lies behind it.
#[inline(always)]
fn server_name(hello: &mut Hello, number: u64) -> Result<u32, Fault> {
    let (list, kind, length) = ((number >> 24) as u32, number >> 16 & 0xff, number as u32 & 0xffff);
    let is_filled = list + 2 == hello.extension && length + 3 == list;
    if kind != 0 || !is_filled || length == 0 || length > MAX_NAME as u32 {
        return Err(Fault::NotTls);
    }
    expect(hello, 0, field::NAME, length)
}

/// Adds a character to the name, which has no empty labels and no dot at its end. What cannot be part of a host name
/// ends it for some servers and not for others: it is refused.
#[inline(always)]
fn add_to_name(hello: &mut Hello, octet: u8) -> Result<u32, Fault> {
    let before = hello.number as u8;
    let is_last = hello.missing == 0;
    let begins_label = hello.event.length == 0 || before == b'.';
    let character = octet.to_ascii_lowercase();
    let is_known =
        character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, b'-' | b'_');
    let is_dot = character == b'.' && !begins_label && !is_last;
    if !is_known && !is_dot {
        return Err(Fault::NotTls);
    }
    hello.event.push(character);
    hello.number = character as u64;
    if !is_last {
        return Ok(1);
    }
    hello.number = 0;
    next_extension(hello, 0)
}

#[cfg(test)]
#[path = "tls/tests.rs"]
mod tests;
