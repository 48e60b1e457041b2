//! Asks a resolver as a careful client does: over UDP with or without EDNS, again over TCP when the answer is cut short,
//! over TCP from the start, in pieces. Owns the exchange; what the answer should be is not known here.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::client::datagram_socket;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// How a question is put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// One connection; the message leaves in pieces of this many octets, each in a segment of its own.
    Tcp {
        /// Octets of one piece, at least one.
        pieces: usize,
    },
}

/// A question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask<'a> {
    /// Whom.
    pub resolver: IpAddr,
    /// For which name.
    pub name: &'a str,
    /// For which type.
    pub kind: RecordType,
    /// How.
    pub transport: Transport,
    /// How many octets of an answer over UDP it says it takes; nothing is said when absent.
    pub payload: Option<u16>,
}

impl Ask<'_> {
    /// Asks from the network namespace of the calling thread, once.
    ///
    /// # Errors
    /// When no answer comes in time, or it is not one.
    pub fn here(&self) -> Result<Message> {
        let question = self.question()?;
        let octets = question.to_vec()?;
        let answer = match self.transport {
            Transport::Udp => self.datagram(&octets),
            Transport::Tcp { pieces } => self.stream(&octets, pieces),
        };
        let answer = answer.with_context(|| format!("no answer for {self:?}"))?;
        let answer = Message::from_vec(&answer).with_context(|| format!("no message for {self:?}"))?;
        ensure!(answer.metadata.id == question.metadata.id, "an answer to another question");
        Ok(answer)
    }

    /// As [`Self::here`], and again over TCP when the answer is cut short.
    ///
    /// # Errors
    /// As [`Self::here`].
    pub fn until_whole(&self) -> Result<Message> {
        let answer = self.here()?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        let again = Ask { transport: Transport::Tcp { pieces: usize::MAX }, ..*self };
        again.here()
    }

    fn question(&self) -> Result<Message> {
        let mut question = Message::query();
        question.metadata.recursion_desired = true;
        let name = Name::from_ascii(format!("{}.", self.name.trim_end_matches('.')))?;
        question.add_query(Query::query(name, self.kind));
        if let Some(payload) = self.payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            question.set_edns(edns);
        }
        Ok(question)
    }

    fn datagram(&self, question: &[u8]) -> io::Result<Vec<u8>> {
        let socket = datagram_socket((self.resolver, 53).into())?;
        socket.set_read_timeout(Some(ANSWER))?;
        socket.send(question)?;
        let mut buffer = vec![0; 1 << 16];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    }

    fn stream(&self, question: &[u8], pieces: usize) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&(self.resolver, 53).into(), ANSWER)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        for piece in [&length.to_be_bytes()[..], question].concat().chunks(pieces.max(1)) {
            stream.write_all(piece)?;
        }
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// Addresses among the records of an answer, whatever their owner.
pub fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}
