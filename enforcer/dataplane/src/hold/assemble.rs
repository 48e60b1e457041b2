//! Puts held packets together: fragments of a datagram, segments of a message over TCP. Owns what is under way and its
//! bounds; never what a message says.

use super::Whole;
use crate::sys::Store;
use enforcer_common::address::Address;
use enforcer_common::flow::FlowKey;
use enforcer_common::packet::{TCP, UDP};
use enforcer_common::stream::{Long, Stream, StreamKey};
use etherparse::defrag::IpDefragPool;
use etherparse::{NetSlice, SlicedPacket, TcpSlice, TransportSlice, UdpSlice};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// How long the rest of a message is waited for, nanoseconds: what a resolver sends in one go comes in one go.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Messages over TCP that may be under way at once: 16 MiB at the most.
const MOST_STREAMS: usize = 256;
/// Fragments that may be taken within the patience: 16 MiB of the usual size.
const MOST_FRAGMENTS: usize = 11_000;

/// Everything that is under way.
#[derive(Default)]
pub(crate) struct Assembler {
    fragments: IpDefragPool<u64, u32>,
    /// Fragments since the pool was last empty of old ones, and the moment.
    fragments_since: (usize, u64),
    streams: HashMap<StreamKey, Message>,
    /// The latest messages that were completed, by connection and beginning: a repeated segment begins none of them again.
    completed: VecDeque<(StreamKey, u32)>,
    given_up: u64,
}

/// A message over TCP that is not complete yet.
struct Message {
    /// Sequence number of its first octet, and of the next one.
    start: u32,
    next: u32,
    length: usize,
    octets: Vec<u8>,
    began: u64,
}

/// An IP packet in a frame.
pub(crate) struct Held<'a> {
    packet: SlicedPacket<'a>,
    from: IpAddr,
    pub(crate) to: IpAddr,
}

impl<'a> Held<'a> {
    /// The packet of a frame; `None` for what is none.
    pub(crate) fn read(frame: &'a [u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (from, to) = addresses(packet.net.as_ref()?)?;
        Some(Self { packet, from, to })
    }
}

impl Assembler {
    /// Takes a packet for the workload at `interface`; returns the messages that it completes.
    pub(crate) fn take(
        &mut self,
        held: &Held<'_>,
        interface: u32,
        now: u64,
        streams: &Store<StreamKey, Stream>,
    ) -> Vec<Whole> {
        let Held { packet, from: resolver, to: local } = held;
        let (resolver, local) = (*resolver, *local);
        match &packet.transport {
            Some(TransportSlice::Udp(datagram)) => whole_datagram(resolver, datagram).into_iter().collect(),
            Some(TransportSlice::Tcp(segment)) => {
                let flow = FlowKey {
                    remote: Address::from(resolver),
                    local: Address::from(local),
                    remote_port: segment.source_port(),
                    local_port: segment.destination_port(),
                    interface,
                    protocol: TCP,
                    padding: [0; 3],
                };
                self.segment(StreamKey { flow, from_workload: 0 }, resolver, segment, now, streams)
            }
            _ if packet.is_ip_payload_fragmented() => {
                self.fragment(packet, resolver, interface, now).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Gives up what has waited too long.
    pub(crate) fn forget_old(&mut self, now: u64) {
        let is_young = |began: u64| now.saturating_sub(began) < PATIENCE_NS;
        let before = self.streams.len();
        self.streams.retain(|_, message| is_young(message.began));
        self.given_up += (before - self.streams.len()) as u64;
        self.fragments.retain(|began| is_young(*began));
        if !is_young(self.fragments_since.1) {
            self.fragments_since = (0, now);
        }
    }

    /// Messages and fragments given up so far.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    fn fragment(
        &mut self,
        packet: &SlicedPacket<'_>,
        resolver: IpAddr,
        interface: u32,
        now: u64,
    ) -> Option<Whole> {
        self.fragments_since.0 += 1;
        if self.fragments_since.0 > MOST_FRAGMENTS {
            self.given_up += 1;
            return None;
        }
        let Ok(whole) = self.fragments.process_sliced_packet(packet, now, interface) else {
            self.given_up += 1;
            return None;
        };
        let whole = whole?;
        let message = UdpSlice::from_slice(&whole.payload).ok().and_then(|d| whole_datagram(resolver, &d));
        self.fragments.return_buf(whole);
        message
    }

    /// A segment with octets of a message that is too long for the kernel; where that begins the kernel knows. It lets
    /// nothing ahead of something missing through, so segments come in order, repeated ones aside.
    fn segment(
        &mut self,
        key: StreamKey,
        resolver: IpAddr,
        segment: &TcpSlice<'_>,
        now: u64,
        streams: &Store<StreamKey, Stream>,
    ) -> Vec<Whole> {
        let (mut sequence, mut octets) = (segment.sequence_number(), segment.payload());
        let mut complete = Vec::new();
        while !octets.is_empty() {
            let Some(mut message) =
                self.streams.remove(&key).or_else(|| self.begin(&key, sequence, octets.len(), now, streams))
            else {
                break;
            };
            // What lies before the next octet wanted was seen, or is of another message.
            let skipped = message.next.wrapping_sub(sequence) as usize;
            if skipped >= octets.len() {
                // All of it: a repeated segment.
                self.streams.insert(key, message);
                break;
            }
            let here = (octets.len() - skipped).min(message.length - message.octets.len());
            message.octets.extend_from_slice(&octets[skipped..skipped + here]);
            message.next = message.next.wrapping_add(here as u32);
            sequence = message.next;
            octets = &octets[skipped + here..];
            if message.octets.len() == message.length {
                let local_port = key.flow.local_port;
                self.completed.truncate(MOST_STREAMS - 1);
                self.completed.push_front((key, message.start));
                complete.push(Whole { resolver, local_port, protocol: TCP, octets: message.octets });
            } else {
                self.keep(key, message);
            }
        }
        complete
    }

    /// The message that begins in the `length` octets from `sequence` on, as the kernel has it; `None` when none does.
    fn begin(
        &self,
        key: &StreamKey,
        sequence: u32,
        length: usize,
        now: u64,
        streams: &Store<StreamKey, Stream>,
    ) -> Option<Message> {
        let stream = streams.get(key).ok().flatten()?;
        let offset = |long: &Long| long.start.wrapping_sub(sequence) as usize;
        let is_new = |long: &Long| !self.completed.contains(&(*key, long.start));
        let here = stream.long.iter().filter(|long| long.length != 0 && offset(long) < length);
        let first = here.filter(|long| is_new(long)).min_by_key(|long| offset(long))?;
        let (start, whole) = (first.start, first.length as usize);
        Some(Message { start, next: start, length: whole, octets: Vec::with_capacity(whole), began: now })
    }

    fn keep(&mut self, key: StreamKey, message: Message) {
        if self.streams.len() >= MOST_STREAMS
            && let Some(oldest) = self.streams.iter().min_by_key(|(_, m)| m.began).map(|(key, _)| *key)
        {
            self.streams.remove(&oldest);
            self.given_up += 1;
        }
        self.streams.insert(key, message);
    }
}

fn whole_datagram(resolver: IpAddr, datagram: &UdpSlice<'_>) -> Option<Whole> {
    let octets = datagram.payload().to_vec();
    let local_port = datagram.destination_port();
    (!octets.is_empty()).then_some(Whole { resolver, local_port, protocol: UDP, octets })
}

/// Source and destination.
fn addresses(net: &NetSlice<'_>) -> Option<(IpAddr, IpAddr)> {
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        NetSlice::Arp(_) => None,
    }
}
