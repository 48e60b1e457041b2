//! The authoritative server of every name in the little internet, over UDP and TCP. Owns which name has which addresses,
//! how they rotate, zones of thousands of names that nobody has asked for yet, of names with many addresses, and of names
//! with others each time; knows nothing of resolvers.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::Namespace;
use crate::worker::{TICK, Worker};

/// Seconds that answers live: short, so that rotation is seen.
const TTL: u32 = 1;
/// How many addresses of a rotating name one answer holds.
const WINDOW: usize = 2;
/// Suffix of fresh names: `n<number>.fresh.example`, addresses of their own each.
pub const FRESH: &str = "fresh.example";
/// Suffix of fresh names behind two aliases: `n<number>.chain.example`.
pub const CHAIN: &str = "chain.example";

/// Suffixes of the aliases behind them.
const HOP: &str = "hop.example";
const EDGE: &str = "edge.example";
/// Suffix of names with many addresses of each family: `n<how many>.many.example`, at most [`MOST`].
pub const MANY: &str = "many.example";
/// Most addresses of a name of [`MANY`].
pub const MOST: u16 = 160;

/// Suffix of names as those of [`FRESH`], whose addresses live for an hour.
pub const LASTING: &str = "lasting.example";
/// Suffix of names that have [`EVER_NEW`] other addresses whenever they are asked for, for an hour each.
pub const EVER: &str = "ever.example";
/// Addresses of each answer for a name of [`EVER`].
pub const EVER_NEW: u16 = 10;
/// Seconds in that hour.
const HOUR: u32 = 3_600;

/// Suffix of names that are never answered.
pub const SILENT: &str = "silent.example";

/// Names with the last number of their addresses: `203.0.113.x` and `2001:db8::x:n`.
const NAMED: &[(&str, [u8; 3], u8, u16)] = &[
    ("github.com", [203, 0, 113], 10, 0x10),
    ("api.github.com", [203, 0, 113], 20, 0x20),
    ("pagerduty.com", [198, 51, 100], 10, 0x30),
    ("events.pagerduty.com", [198, 51, 100], 20, 0x40),
];
/// How many addresses of each family a rotating name has.
const ADDRESSES: u8 = 6;

/// Octets of an answer over UDP to whoever does not say how many it takes (RFC 1035, section 2.3.4).
const PLAIN: usize = 512;

/// The server, until dropped.
#[derive(Debug)]
pub struct Zone {
    _workers: [Worker; 2],
}

impl Zone {
    /// Serves the zone at `address`, which must be local in `namespace`.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn serve(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let failed = || format!("failed to serve names at {address}");
        let socket = namespace.enter(|| UdpSocket::bind(address)).with_context(failed)?;
        socket.set_read_timeout(Some(TICK))?;
        let listener = namespace.enter(|| TcpListener::bind(address)).with_context(failed)?;
        set_socket_timeout(&listener, Timeout::Recv, Some(TICK))?;
        let book = Arc::new(Mutex::new(Book::new()));
        let shared = Arc::clone(&book);
        let mut buffer = [0; 1500];
        let datagrams = Worker::start(move |_stop| {
            let (length, client) = socket.recv_from(&mut buffer)?;
            let answer = shared.lock().unwrap_or_else(PoisonError::into_inner).answer(&buffer[..length]);
            match answer.map(|answer| answer.for_datagram()) {
                Some(octets) => socket.send_to(&octets, client).map(drop),
                None => Ok(()),
            }
        });
        let streams = Worker::start(move |_stop| {
            // A client that stalls or goes away is no reason to stop.
            let _ = converse(&mut listener.accept()?.0, &book);
            Ok(())
        });
        Ok(Self { _workers: [datagrams, streams] })
    }
}

/// Answers the questions of one connection, each behind its length (RFC 1035, section 4.2.2).
fn converse(stream: &mut (impl Read + Write), book: &Mutex<Book>) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut question)?;
        let answer = book.lock().unwrap_or_else(PoisonError::into_inner).answer(&question);
        let octets = answer.and_then(|answer| answer.message.to_vec().ok()).unwrap_or_default();
        let length = u16::try_from(octets.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &octets].concat())?;
    }
}

/// An answer, and how long it may be in a datagram.
struct Reply {
    message: Message,
    room: usize,
}

impl Reply {
    /// The octets of a datagram: without its records and with the TC bit where they do not fit.
    fn for_datagram(mut self) -> Vec<u8> {
        let octets = self.message.to_vec().expect("it can be written");
        if octets.len() <= self.room {
            return octets;
        }
        self.message.metadata.truncation = true;
        self.message.answers.clear();
        self.message.to_vec().expect("it can be written")
    }
}

/// All addresses of a name of [`NAMED`], both families; empty for other names.
pub fn addresses(name: &str) -> Vec<IpAddr> {
    let Some((_, network, host, subnet)) = NAMED.iter().find(|entry| entry.0 == name) else {
        return Vec::new();
    };
    let [a, b, c] = *network;
    let v4 = (0..ADDRESSES).map(|n| IpAddr::V4(Ipv4Addr::new(a, b, c, host + n)));
    let v6 =
        (0..ADDRESSES).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, *subnet, u16::from(n) + 1).into());
    v4.chain(v6).collect()
}

/// The addresses of fresh name `number`: IPv4 from 198.18.0.0/15, whose second half is for aliases.
pub fn fresh_addresses(number: u16, aliased: bool) -> [IpAddr; 2] {
    let [high, low] = number.to_be_bytes();
    let half = u8::from(aliased);
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xf, u16::from(half), 0, 0, 0, number);
    [Ipv4Addr::new(198, 18 + half, high, low).into(), v6.into()]
}

/// The addresses of the name of [`MANY`] with `count` of each family.
pub fn many_addresses(count: u16) -> impl Iterator<Item = IpAddr> {
    (0..count.min(MOST)).flat_map(|index| fresh_addresses(50_000 + index, true))
}

/// What answers are made from.
struct Book {
    /// How often each name was asked: where its rotation stands.
    asked: BTreeMap<(String, RecordType), usize>,
}

impl Book {
    fn new() -> Self {
        Self { asked: BTreeMap::new() }
    }

    /// The answer to a question; `None` when it is none, or its name is one of [`SILENT`].
    fn answer(&mut self, question: &[u8]) -> Option<Reply> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let room = question.edns.as_ref().map_or(PLAIN, |edns| usize::from(edns.max_payload()).max(PLAIN));
        let mut answer = question.clone();
        answer.additionals.clear();
        answer.edns = None;
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.authoritative = true;
        let name = query.name().to_ascii().to_ascii_lowercase();
        if name.trim_end_matches('.').ends_with(SILENT) {
            return None;
        }
        match self.records(query.name(), name.trim_end_matches('.'), query.query_type()) {
            Some(records) => answer.answers = records,
            None => answer.metadata.response_code = ResponseCode::NXDomain,
        }
        Some(Reply { message: answer, room })
    }

    /// Records of a name, `None` when there is no such name.
    fn records(&mut self, owner: &Name, name: &str, kind: RecordType) -> Option<Vec<Record>> {
        let of_kind = |address: &IpAddr| match kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            _ => false,
        };
        let mut all = addresses(name);
        if !all.is_empty() {
            all.retain(of_kind);
            let turn = self.asked.entry((name.to_owned(), kind)).or_default();
            *turn += 1;
            let window = all.iter().cycle().skip(*turn).take(WINDOW.min(all.len()));
            return Some(window.map(|address| record(owner, *address)).collect());
        }
        let number =
            |suffix: &str| name.strip_prefix('n')?.strip_suffix(suffix)?.strip_suffix('.')?.parse().ok();
        if let Some(number) = number(FRESH) {
            let fresh = fresh_addresses(number, false);
            return Some(
                fresh.iter().filter(|address| of_kind(address)).map(|a| record(owner, *a)).collect(),
            );
        }
        if let Some(number) = number(LASTING) {
            let fresh = fresh_addresses(number, false);
            let own = fresh.into_iter().filter(of_kind);
            return Some(own.map(|address| lasting(record(owner, address))).collect());
        }
        if name.ends_with(EVER) {
            let turn = self.asked.entry((name.to_owned(), kind)).or_default();
            let first = *turn as u16 * EVER_NEW;
            *turn += 1;
            let new = (first..first + EVER_NEW).flat_map(|number| fresh_addresses(number, true));
            return Some(new.filter(of_kind).map(|address| lasting(record(owner, address))).collect());
        }
        if let Some(count) = number(MANY) {
            return Some(
                many_addresses(count).filter(of_kind).map(|address| record(owner, address)).collect(),
            );
        }
        // Asked for a name along the chain, what is left of it.
        let (steps, number) = [CHAIN, HOP, EDGE].iter().zip(0..).find_map(|(s, n)| Some((n, number(s)?)))?;
        let [hop, edge] = [HOP, EDGE].map(|suffix| Name::from_ascii(format!("n{number}.{suffix}.")).ok());
        let (hop, edge) = (hop?, edge?);
        let mut chain = vec![alias(owner, &hop), alias(&hop, &edge)];
        chain.drain(..steps);
        let fresh = fresh_addresses(number, true);
        chain.extend(fresh.iter().filter(|address| of_kind(address)).map(|address| record(&edge, *address)));
        Some(chain)
    }
}

fn record(owner: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    };
    Record::from_rdata(owner.clone(), TTL, data)
}

fn lasting(mut record: Record) -> Record {
    record.ttl = HOUR;
    record
}

fn alias(owner: &Name, target: &Name) -> Record {
    Record::from_rdata(owner.clone(), TTL, RData::CNAME(CNAME(target.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;

    fn ask(book: &mut Book, name: &str, kind: RecordType) -> Message {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let reply = book.answer(&question.to_vec().unwrap()).unwrap();
        Message::from_vec(&reply.for_datagram()).unwrap()
    }

    #[test]
    fn named_addresses_rotate_and_aliases_lead_to_addresses() {
        let mut book = Book::new();
        let first = ask(&mut book, "github.com.", RecordType::A).answers;
        let second = ask(&mut book, "github.com.", RecordType::A).answers;
        assert_eq!((first.len(), second.len()), (WINDOW, WINDOW));
        assert_ne!(first, second);
        let kinds: Vec<_> = ask(&mut book, "n7.chain.example.", RecordType::AAAA)
            .answers
            .iter()
            .map(Record::record_type)
            .collect();
        assert_eq!(kinds, [RecordType::CNAME, RecordType::CNAME, RecordType::AAAA]);
        let many = [28, 60].map(|n| ask(&mut book, &format!("n{n}.many.example."), RecordType::A));
        assert_eq!(many.map(|m| (m.answers.len(), m.metadata.truncation)), [(28, false), (0, true)]);
        let unknown = ask(&mut book, "nowhere.example.", RecordType::A);
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    }
}
