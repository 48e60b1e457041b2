//! Reads a DNS message where it lies (RFC 1035, section 4): header, question, answer section. Owns no octet and takes no
//! memory but for names that are asked for as text; never follows a pointer forwards, so every walk ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::numbers::{RecordType, ResponseCode};

/// Octets of a header.
const HEADER: usize = 12;
/// Most octets of a name on the wire, the zero at its end included (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 255;

/// What is wrong with a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header.
    #[error("the message is shorter than its header")]
    Header,
    /// There is not exactly one question, or it is cut, or its name is none.
    #[error("the message has no question that can be read")]
    Question,
    /// A record of the answer section is cut, or its owner is no name.
    #[error("a record of the answer section cannot be read")]
    Record,
    /// A name in a record's data is none.
    #[error("a name in a record cannot be read")]
    Name,
}

/// A message with one question, not yet walked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    octets: &'a [u8],
    /// Offset behind the question.
    answers_at: usize,
    /// Type asked for.
    pub kind: RecordType,
}

/// A record of the answer section.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer<'a> {
    octets: &'a [u8],
    owner_at: usize,
    data_at: usize,
    data_end: usize,
    /// Its type.
    pub kind: RecordType,
    /// Its class; 1 is IN.
    pub class: u16,
    /// Its time to live, seconds.
    pub ttl: u32,
}

/// The records of an answer section, one by one; ends behind the first that cannot be read.
#[derive(Clone, Debug)]
pub struct Answers<'a> {
    octets: &'a [u8],
    at: usize,
    left: u16,
}

impl<'a> Message<'a> {
    /// Reads header and question.
    ///
    /// # Errors
    /// When either cannot be read.
    pub fn read(octets: &'a [u8]) -> Result<Self, Malformed> {
        if octets.len() < HEADER {
            return Err(Malformed::Header);
        }
        let after = skip_labels(octets, HEADER).ok_or(Malformed::Question)?;
        let kind = number(octets, after).ok_or(Malformed::Question)?;
        if number(octets, 4) != Some(1) || number(octets, after + 2).is_none() {
            return Err(Malformed::Question);
        }
        Ok(Self { octets, answers_at: after + 4, kind: RecordType(kind) })
    }

    /// The transaction identifier.
    pub fn id(&self) -> u16 {
        id(self.octets)
    }

    /// The response code of the header.
    pub fn code(&self) -> ResponseCode {
        ResponseCode(self.octets[3] & 15)
    }

    /// Appends the question's name as text: lower case, without the trailing dot, `.` for the root.
    pub fn write_name(&self, text: &mut String) {
        // It was walked when the message was read.
        let _ = write_name(self.octets, HEADER, text);
    }

    /// The question's name on the wire, without the zero at its end, in the case it was asked in.
    pub fn wire_name(&self) -> &'a [u8] {
        &self.octets[HEADER..self.answers_at - 5]
    }

    /// The answer section.
    pub fn answers(&self) -> Answers<'a> {
        Answers { octets: self.octets, at: self.answers_at, left: number(self.octets, 6).unwrap_or(0) }
    }
}

/// The transaction identifier of a message that may have nothing else; 0 for less than two octets.
pub fn id(octets: &[u8]) -> u16 {
    number(octets, 0).unwrap_or(0)
}

/// A question as a message: identifier, name on the wire without the zero at its end, type; class IN.
pub fn question(id: u16, name: &[u8], kind: RecordType) -> Vec<u8> {
    let mut octets = Vec::with_capacity(HEADER + name.len() + 5);
    octets.extend(id.to_be_bytes());
    octets.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    octets.extend(name);
    octets.push(0);
    octets.extend(kind.0.to_be_bytes());
    octets.extend([0, 1]);
    octets
}

impl<'a> Iterator for Answers<'a> {
    type Item = Result<Answer<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let read = self.record();
        if read.is_none() {
            self.left = 0;
        }
        Some(read.ok_or(Malformed::Record))
    }
}

impl<'a> Answers<'a> {
    fn record(&mut self) -> Option<Answer<'a>> {
        let (octets, owner_at) = (self.octets, self.at);
        let head_at = skip_owner(octets, owner_at)?;
        let head: [u8; 10] = octets.get(head_at..head_at + 10)?.try_into().ok()?;
        let pair = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let data_at = head_at + 10;
        let data_end = data_at + usize::from(pair(8));
        if data_end > octets.len() {
            return None;
        }
        self.at = data_end;
        let ttl = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        Some(Answer { octets, owner_at, data_at, data_end, kind: RecordType(pair(0)), class: pair(2), ttl })
    }
}

impl<'a> Answer<'a> {
    /// The data as it lies in the message; names in it may be compressed.
    pub fn data(&self) -> &'a [u8] {
        &self.octets[self.data_at..self.data_end]
    }

    /// The address of an A or AAAA record of class IN.
    pub fn address(&self) -> Option<IpAddr> {
        match (self.class, self.kind) {
            (1, RecordType::A) => Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.data()).ok()?).into()),
            (1, RecordType::AAAA) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(self.data()).ok()?).into()),
            _ => None,
        }
    }

    /// True when the owner is a pointer to the question's name; another form of the same name gives false.
    pub fn is_owned_by_question(&self) -> bool {
        self.octets.get(self.owner_at..self.owner_at + 2) == Some(&[0xc0, HEADER as u8])
    }

    /// Appends the owner as text, as [`Message::write_name`] writes it.
    ///
    /// # Errors
    /// When it is no name.
    pub fn write_owner(&self, text: &mut String) -> Result<(), Malformed> {
        write_name(self.octets, self.owner_at, text).map(drop).ok_or(Malformed::Name)
    }

    /// Appends the name that stands in the data, `skipped` octets behind its beginning.
    ///
    /// # Errors
    /// When it is no name, or does not end with the data.
    pub fn write_target(&self, skipped: usize, text: &mut String) -> Result<(), Malformed> {
        let after = write_name(self.octets, self.data_at + skipped, text);
        if after == Some(self.data_end) { Ok(()) } else { Err(Malformed::Name) }
    }
}

fn number(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// The offset behind a name that has no pointers.
fn skip_labels(octets: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match *octets.get(at)? {
            0 => return (at + 1 - start <= MAX_NAME).then_some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// The offset behind a name that may end in a pointer; where the pointer leads is not looked at.
fn skip_owner(octets: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        match *octets.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return (at + 2 <= octets.len()).then_some(at + 2),
            _ => return None,
        }
    }
}

/// Appends a name as text and returns the offset behind it in its own place. Every pointer must lead to somewhere
/// before the labels that led to it (RFC 1035, section 4.1.4: a prior occurrence).
fn write_name(octets: &[u8], start: usize, text: &mut String) -> Option<usize> {
    let (mut at, mut run, mut after, mut length) = (start, start, None, 1);
    let before = text.len();
    loop {
        match *octets.get(at)? {
            0 => break,
            octet @ 1..=63 => {
                let label = octets.get(at + 1..at + 1 + usize::from(octet))?;
                length += 1 + label.len();
                if length > MAX_NAME {
                    return None;
                }
                if text.len() > before {
                    text.push('.');
                }
                write_label(label, text);
                at += 1 + label.len();
            }
            0xc0.. => {
                let target = usize::from(number(octets, at)? & 0x3fff);
                if target >= run {
                    return None;
                }
                after.get_or_insert(at + 2);
                (at, run) = (target, target);
            }
            _ => return None,
        }
    }
    if text.len() == before {
        text.push('.');
    }
    Some(after.unwrap_or(at + 1))
}

/// Appends a label in lower case; what a text name cannot hold is written `\DDD` (RFC 1035, section 5.1).
fn write_label(label: &[u8], text: &mut String) {
    for octet in label {
        match octet {
            b'.' | b'\\' | 0..=b' ' | 0x7f.. => text.push_str(&format!("\\{octet:03}")),
            _ => text.push(char::from(octet.to_ascii_lowercase())),
        }
    }
}

#[cfg(test)]
mod tests;
