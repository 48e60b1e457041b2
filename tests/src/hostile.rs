//! A name server that lies: what it answers is chosen by the first label of the name that it is asked for. Owns its
//! tricks; what they should come to is not known here.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context, Result};
use hickory_proto::op::{Message, MessageType};
use hickory_proto::rr::{Name, RData, Record};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::Namespace;
use crate::worker::{TICK, Worker};

/// Where it listens.
pub const ADDRESS: &str = "198.51.100.66:53";
/// The address that its answers hold.
pub const PRIZE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
/// Suffix of the names it is asked for: `<trick>.hostile.example`.
pub const SUFFIX: &str = "hostile.example";

/// What it does to an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Trick {
    /// Nothing.
    Honest,
    /// Another transaction identifier.
    OtherId,
    /// It comes from another port.
    OtherPort,
    /// Another name in the question, and in the record.
    OtherName,
    /// Another type in the question.
    OtherType,
    /// No question at all.
    NoQuestion,
    /// The TC bit, with the record there nevertheless.
    CutShort,
    /// It ends in the middle of its record.
    CutOff,
    /// It ends within its header.
    Stub,
    /// An owner that points to itself.
    Loop,
    /// An owner that points forwards.
    Forwards,
    /// More records than there are.
    Overcounted,
    /// An address of five octets.
    OddAddress,
    /// Longer than the kernel reads, and true.
    TooLong,
    /// An error code, with the record there nevertheless.
    Error,
    /// A query instead of an answer.
    Query,
}

impl Trick {
    /// Everything it can do.
    pub const ALL: [Self; 16] = [
        Self::Honest,
        Self::OtherId,
        Self::OtherPort,
        Self::OtherName,
        Self::OtherType,
        Self::NoQuestion,
        Self::CutShort,
        Self::CutOff,
        Self::Stub,
        Self::Loop,
        Self::Forwards,
        Self::Overcounted,
        Self::OddAddress,
        Self::TooLong,
        Self::Error,
        Self::Query,
    ];

    /// The name that asks for it.
    pub fn name(self) -> String {
        format!("{self:?}.{SUFFIX}").to_ascii_lowercase()
    }

    /// The trick that a question asks for.
    fn of(question: &Message) -> Option<Self> {
        let name = question.queries.first()?.name().to_ascii().to_ascii_lowercase();
        Self::ALL.into_iter().find(|trick| trick.name() == name.trim_end_matches('.'))
    }

    /// The answer with the trick done to it.
    fn answer(self, question: &Message) -> Option<Vec<u8>> {
        let mut answer = question.clone();
        answer.metadata.message_type = MessageType::Response;
        let owner = question.queries.first()?.name().clone();
        match self {
            Self::OtherId => answer.metadata.id ^= 0x5555,
            Self::OtherName => {
                answer.queries[0].set_name(Name::from_ascii("other.hostile.example.").ok()?);
            }
            Self::OtherType => {
                answer.queries[0].set_query_type(hickory_proto::rr::RecordType::AAAA);
            }
            Self::NoQuestion => answer.queries.clear(),
            Self::CutShort => answer.metadata.truncation = true,
            Self::Error => answer.metadata.response_code = hickory_proto::op::ResponseCode::ServFail,
            Self::Query => answer.metadata.message_type = MessageType::Query,
            _ => {}
        }
        let owner = if self == Self::OtherName { answer.queries[0].name().clone() } else { owner };
        answer.add_answer(Record::from_rdata(owner, 60, RData::A(PRIZE.into())));
        Some(self.spoil(answer.to_vec().ok()?))
    }

    /// What cannot be said with a library that writes correct messages.
    fn spoil(self, mut octets: Vec<u8>) -> Vec<u8> {
        // The record is the last thing in the message: pointer, type, class, lifetime, length, four octets.
        let record = octets.len() - 16;
        match self {
            Self::CutOff => octets.truncate(octets.len() - 6),
            Self::Stub => octets.truncate(11),
            Self::Loop => octets[record..record + 2].copy_from_slice(&pointer(record)),
            Self::Forwards => octets[record..record + 2].copy_from_slice(&pointer(record + 12)),
            Self::Overcounted => octets[6..8].copy_from_slice(&[0xff, 0xff]),
            Self::OddAddress => {
                octets[record + 11] = 5;
                octets.push(0);
            }
            Self::TooLong => octets.resize(5_000, 0),
            _ => {}
        }
        octets
    }
}

fn pointer(to: usize) -> [u8; 2] {
    (0xc000 | to as u16).to_be_bytes()
}

/// The server, until dropped.
#[derive(Debug)]
pub struct Hostile {
    _workers: [Worker; 2],
}

impl Hostile {
    /// Serves at [`ADDRESS`], which must be local in `namespace`. Over TCP every octet of an answer is a segment of its
    /// own.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn serve(namespace: &Namespace) -> Result<Self> {
        let address: SocketAddr = ADDRESS.parse()?;
        let failed = || format!("failed to lie at {address}");
        let bind = |port| namespace.enter(|| UdpSocket::bind((address.ip(), port))).with_context(failed);
        let (socket, other) = (bind(address.port())?, bind(0)?);
        socket.set_read_timeout(Some(TICK))?;
        let listener = namespace.enter(|| TcpListener::bind(address)).with_context(failed)?;
        set_socket_timeout(&listener, Timeout::Recv, Some(TICK))?;
        let mut buffer = [0; 1500];
        let datagrams = Worker::start(move |_stop| {
            let (length, client) = socket.recv_from(&mut buffer)?;
            if let Some((trick, answer)) = lie(&buffer[..length]) {
                let from = if trick == Trick::OtherPort { &other } else { &socket };
                from.send_to(&answer, client)?;
            }
            io::Result::Ok(())
        });
        let streams = Worker::start(move |_stop| {
            let mut stream = listener.accept()?.0;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TICK))?;
            // A client that goes away is no reason to stop.
            let _ = dribble(&mut stream);
            Ok(())
        });
        Ok(Self { _workers: [datagrams, streams] })
    }
}

fn lie(question: &[u8]) -> Option<(Trick, Vec<u8>)> {
    let question = Message::from_vec(question).ok()?;
    let trick = Trick::of(&question)?;
    Some((trick, trick.answer(&question)?))
}

/// Answers one question of a connection, octet by octet.
fn dribble(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut question)?;
    let (_, answer) = lie(&question).ok_or(io::ErrorKind::InvalidData)?;
    let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
    for octet in [&length.to_be_bytes()[..], &answer].concat() {
        stream.write_all(&[octet])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Family, client};

    #[test]
    fn every_trick_is_found_by_its_name_and_only_the_honest_answer_is_whole() {
        for trick in Trick::ALL {
            let question = client::question(&trick.name(), Family::V4).expect("a name");
            let (found, answer) = lie(&question.to_vec().expect("octets")).expect("an answer");
            assert_eq!(found, trick);
            let honest = Trick::Honest.answer(&question).expect("an answer");
            let is_honest = [Trick::Honest, Trick::OtherPort].contains(&trick);
            assert_eq!(answer == honest, is_honest, "{trick:?}");
        }
        let other = client::question("github.com", Family::V4).expect("a name").to_vec().expect("octets");
        assert_eq!(lie(&other), None);
    }
}
