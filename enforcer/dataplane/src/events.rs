//! What the kernel programs tell: reads the ring buffer and checks every record's size. Never waits and never wakes
//! anybody: the programs write without wake-ups, and whoever holds the reader polls it.

use crate::error::Error;
use aya::maps::{MapData, RingBuf};
use enforcer_common::event::{DnsEvent, FlowEvent, Kind, NameEvent, ProcessEvent};
use enforcer_common::flow::FlowKey;
use std::borrow::Cow;
use std::os::fd::{AsFd, BorrowedFd};

/// One event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// A flow was admitted, refused, ended or cut, or a packet was dropped.
    Flow(Kind, FlowEvent),
    /// A DNS answer was read on its way to a workload.
    Dns {
        /// What became of it.
        header: DnsEvent,
        /// The message, from its DNS header on.
        message: Cow<'a, [u8]>,
    },
    /// A process is about to use a socket; what becomes of that is told after it.
    Process(ProcessEvent),
    /// The server name of a flow's TLS ClientHello was read; what becomes of the flow is told after it.
    ServerName {
        /// The flow.
        key: FlowKey,
        /// The name, lower case.
        name: String,
    },
}

/// Most records taken in one poll: a few milliseconds' work, so that a flood keeps the caller from nothing else.
const POLL_LIMIT: usize = 2048;

/// Reads events; there is one per data plane.
#[derive(Debug)]
pub struct EventReader {
    ring: Ring,
    malformed: u64,
}

struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RingBuf")
    }
}

impl EventReader {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring: Ring(ring), malformed: 0 }
    }

    /// Hands over what lies in the ring, in order, at most 2,048 records; returns how many records there were.
    /// Never blocks.
    pub fn poll(&mut self, mut visit: impl FnMut(Event<'_>)) -> usize {
        let mut count = 0;
        while count < POLL_LIMIT {
            let Some(record) = self.ring.0.next() else { break };
            count += 1;
            match decode(&record) {
                Some(event) => visit(event),
                None => self.malformed += 1,
            }
        }
        count
    }

    /// Records so far whose kind or size is none of the ABI's; more than zero means that programs and agent differ.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

impl AsFd for EventReader {
    /// Readable when the ring is so full that the programs ask for attention; there is no need to wait for it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.0.as_fd()
    }
}

/// The one reader may be taken once.
pub(crate) fn take(ring: &mut Option<RingBuf<MapData>>) -> Result<EventReader, Error> {
    ring.take().map(EventReader::new).ok_or(Error::EventsTaken)
}

/// The event in a record; `None` when its kind or size is wrong.
fn decode(record: &[u8]) -> Option<Event<'_>> {
    let kind = u32::from_ne_bytes(record.get(..4)?.try_into().ok()?);
    let of_flows = [Kind::Admitted, Kind::Refused, Kind::Ended, Kind::Cut, Kind::Dropped];
    let known = of_flows.into_iter().chain([Kind::DnsAnswer, Kind::ServerName, Kind::Process]);
    match known.into_iter().find(|known| *known as u32 == kind)? {
        Kind::DnsAnswer => dns(record),
        Kind::ServerName => server_name(record),
        Kind::Process => process(record),
        kind => flow(record).map(|event| Event::Flow(kind, event)),
    }
}

fn flow(record: &[u8]) -> Option<FlowEvent> {
    if record.len() != size_of::<FlowEvent>() {
        return None;
    }
    // SAFETY: the record is as long as the type, which holds integers only; alignment is not asked for.
    Some(unsafe { record.as_ptr().cast::<FlowEvent>().read_unaligned() })
}

fn dns(record: &[u8]) -> Option<Event<'_>> {
    let (head, message) = record.split_at_checked(size_of::<DnsEvent>())?;
    // SAFETY: `head` is as long as the type, which holds integers only; alignment is not asked for.
    let header = unsafe { head.as_ptr().cast::<DnsEvent>().read_unaligned() };
    let message = message.get(..header.length as usize)?.into();
    Some(Event::Dns { header, message })
}

fn process(record: &[u8]) -> Option<Event<'_>> {
    if record.len() != size_of::<ProcessEvent>() {
        return None;
    }
    // SAFETY: the record is as long as the type, which holds integers only; alignment is not asked for.
    Some(Event::Process(unsafe { record.as_ptr().cast::<ProcessEvent>().read_unaligned() }))
}

fn server_name(record: &[u8]) -> Option<Event<'_>> {
    if record.len() != size_of::<NameEvent>() {
        return None;
    }
    // SAFETY: the record is as long as the type, which holds integers only; alignment is not asked for.
    let event = unsafe { record.as_ptr().cast::<NameEvent>().read_unaligned() };
    let name = event.name()?.iter().copied().map(char::from).collect();
    Some(Event::ServerName { key: event.key, name })
}

#[cfg(test)]
mod tests {
    use super::{Event, decode};
    use enforcer_common::event::Kind;
    use enforcer_common::flow::FlowKey;

    fn record(kind: u32, size: usize) -> Vec<u8> {
        let mut record = kind.to_ne_bytes().to_vec();
        record.resize(size, 0);
        record
    }

    #[test]
    fn flow_events_have_one_size() {
        assert!(
            matches!(decode(&record(1, 160)), Some(Event::Flow(Kind::Admitted, event)) if event.kind == 1)
        );
        assert_eq!(decode(&record(1, 159)), None);
        assert_eq!(decode(&record(1, 153)), None);
    }

    #[test]
    fn unknown_kinds_and_stubs_are_refused() {
        assert_eq!(decode(&record(9, 160)), None);
        assert_eq!(decode(&record(8, 39)), None);
        assert_eq!(decode(&[1, 0, 0]), None);
    }

    #[test]
    fn a_server_name_is_as_long_as_it_says() {
        let mut event = record(7, 320);
        event[4..8].copy_from_slice(&3_u32.to_ne_bytes());
        event[64..68].copy_from_slice(b"abcd");
        let read = Event::ServerName { key: FlowKey::NONE, name: "abc".to_owned() };
        assert_eq!(decode(&event), Some(read));
        event[4..8].copy_from_slice(&254_u32.to_ne_bytes());
        assert_eq!(decode(&event), None);
        assert_eq!(decode(&event[..319]), None);
    }

    #[test]
    fn a_message_is_as_long_as_its_header_says() {
        let mut whole = record(6, 64 + 12);
        whole[4..8].copy_from_slice(&12_u32.to_ne_bytes());
        assert!(matches!(decode(&whole), Some(Event::Dns { message, .. }) if message.len() == 12));
        assert_eq!(decode(&whole[..70]), None);
        assert_eq!(decode(&whole[..63]), None);
    }
}
