//! Telling the sender that it was refused: TCP RST, or ICMP administratively prohibited. The packet itself is turned
//! into its answer and sent back the way it came.

use crate::dns;
use crate::skb::{self, Context, hide};
use crate::walk::DROP;
use crate::work::{Work, work};
use aya_ebpf::bindings::{BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes,
};
use enforcer_common::address::Address;
use enforcer_common::decide::Direction;
use enforcer_common::flow::{Flow, tcp};
use enforcer_common::packet::{ICMP, ICMPV6, Kind, Packet, TCP, UDP};
use enforcer_common::verdict::Verdict;

const HOPS: u8 = 64;
/// Octets of the refused packet that an ICMP error quotes behind its IP header.
const QUOTED: u32 = 8;

/// True for a refusal made here, on its way to the one who was refused, in the name of the one it was for.
#[inline(always)]
pub fn is_own(refusal: &Flow, packet: &Packet, from_workload: bool) -> bool {
    let towards_sender = (refusal.direction == Direction::Ingress as u8) == from_workload;
    let tells = matches!(packet.kind, Kind::IcmpError)
        || (packet.protocol == TCP && packet.tcp_flags & tcp::RST != 0);
    let in_its_name = packet.sender == packet.source;
    refusal.verdict == Verdict::Rejected as u8 && towards_sender && tells && in_its_name
}

/// Answers the refused packet. Drops it silently when it cannot be answered: a RST, a packet with IP
/// options or extension headers, a packet that cannot be resized.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reject(skb: Context, from_workload: u32) -> i32 {
    let Some(work) = work() else { return DROP };
    let packet = &work.packet;
    let v4 = packet.source.is_v4();
    let header = if v4 { 20 } else { 40 };
    let network = packet.network as u32;
    if packet.transport as u32 != network + header
        || !matches!(packet.kind, Kind::Whole | Kind::FirstFragment)
    {
        return DROP;
    }
    let answered = match packet.protocol {
        TCP if packet.tcp_flags & tcp::RST != 0 => false,
        TCP => reset(skb, work, v4, network),
        _ => prohibit(skb, work, v4, network),
    };
    if !answered || !turn_link(skb) {
        return DROP;
    }
    let flags = if from_workload != 0 { 0 } else { BPF_F_INGRESS as u64 };
    // SAFETY: plain values.
    unsafe { bpf_redirect(skb::interface(skb), flags) as i32 }
}

/// Answers the DNS query in memory with REFUSED (RFC 1035, section 4.1.1) in the name of the resolver it was meant for.
/// Drops it silently when it cannot be answered, as [`reject`] does.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn refuse_query(skb: Context) -> i32 {
    let Some(work) = work() else { return DROP };
    let v4 = work.packet.source.is_v4();
    let network = work.packet.network as u32;
    let header = if v4 { 20 } else { 40 };
    let length = dns::dns_refusal();
    let after = hide(length as u64 - 1) & (dns::REFUSAL as u64 - 1);
    let length = after as u32 + 1;
    if work.packet.transport as u32 != network + header {
        return DROP;
    }
    let mut new = [0_u8; 8];
    put16(&mut new, 0, work.packet.destination_port);
    put16(&mut new, 2, work.packet.source_port);
    put16(&mut new, 4, (8 + length) as u16);
    // SAFETY: the message's first octets, behind them zeros.
    let octets = unsafe { &*(&raw const work.message.octets).cast::<[u8; dns::REFUSAL]>() };
    let pseudo = pseudo_sum(&work.packet.source, &work.packet.destination, UDP, 8 + length, v4);
    let sum = pseudo + sum_of(&new, 8) + sum_of(octets, dns::REFUSAL as u32);
    put16(&mut new, 6, fold(sum));
    let turned = resize(skb, network + header + 8 + length)
        && turn_network(skb, &work.packet, UDP, 8 + length, v4, network)
        && store(skb, network + header, &new);
    if !turned || !turn_link(skb) {
        return DROP;
    }
    let after = hide(after) & (dns::REFUSAL as u64 - 1);
    // SAFETY: no more octets than there are.
    let failed = unsafe {
        let (at, flags) = (network + header + 8, BPF_F_RECOMPUTE_CSUM as u64);
        bpf_skb_store_bytes(skb.cast(), at, octets.as_ptr().cast(), after as u32 + 1, flags)
    };
    if failed != 0 {
        return DROP;
    }
    // SAFETY: plain values.
    unsafe { bpf_redirect(skb::interface(skb), 0) as i32 }
}

/// Writes octets over the packet's; false when they do not fit.
#[inline(always)]
fn store<const N: usize>(skb: Context, at: u32, octets: &[u8; N]) -> bool {
    // SAFETY: the helper reads `N` octets.
    let failed = unsafe {
        bpf_skb_store_bytes(skb.cast(), at, octets.as_ptr().cast(), N as u32, BPF_F_RECOMPUTE_CSUM as u64)
    };
    failed == 0
}

/// Reads octets of the packet into the work space.
#[inline(always)]
fn load(skb: Context, at: u32, to: &mut [u8], length: u32) -> bool {
    // SAFETY: callers pass a constant length that fits `to`.
    unsafe { bpf_skb_load_bytes(skb.cast(), at, to.as_mut_ptr().cast(), length) == 0 }
}

/// Resizes the packet; false when the kernel will not.
#[inline(always)]
fn resize(skb: Context, length: u32) -> bool {
    // SAFETY: plain values.
    unsafe { bpf_skb_change_tail(skb.cast(), length, 0) == 0 }
}

/// Swaps the Ethernet addresses; false for a packet to a group, which is not answered (RFC 1122, section 3.2.2).
#[inline(always)]
fn turn_link(skb: Context) -> bool {
    let mut link = [0_u8; 12];
    if !load(skb, 0, &mut link, 12) || link[0] & 1 != 0 {
        return false;
    }
    let turned = [
        link[6], link[7], link[8], link[9], link[10], link[11], link[0], link[1], link[2], link[3], link[4],
        link[5],
    ];
    store(skb, 0, &turned)
}

/// Turns a TCP packet into the RST that answers it (RFC 9293, section 3.10.7.1).
#[inline(always)]
fn reset(skb: Context, work: &mut Work, v4: bool, network: u32) -> bool {
    let packet = &work.packet;
    let mut old = [0_u8; 14];
    if !load(skb, packet.transport as u32, &mut old, 14) {
        return false;
    }
    let sequence = u32::from_be_bytes([old[4], old[5], old[6], old[7]]);
    let taken = packet.end.wrapping_sub(packet.transport as u32).wrapping_sub((old[12] >> 4) as u32 * 4)
        + (packet.tcp_flags & tcp::SYN != 0) as u32
        + (packet.tcp_flags & tcp::FIN != 0) as u32;
    let mut new = [0_u8; 20];
    put16(&mut new, 0, packet.destination_port);
    put16(&mut new, 2, packet.source_port);
    if packet.tcp_flags & tcp::ACK != 0 {
        new[4..8].copy_from_slice(&old[8..12]);
        new[13] = tcp::RST;
    } else {
        new[8..12].copy_from_slice(&sequence.wrapping_add(taken).to_be_bytes());
        new[13] = tcp::RST | tcp::ACK;
    }
    new[12] = 5 << 4;
    let sum = pseudo_sum(&packet.source, &packet.destination, TCP, 20, v4) + sum_of(&new, 20);
    put16(&mut new, 16, fold(sum));
    let header = if v4 { 20 } else { 40 };
    resize(skb, network + header + 20)
        && turn_network(skb, packet, TCP, 20, v4, network)
        && store(skb, network + header, &new)
}

/// Turns a packet into the ICMP error that answers it: type 3 code 13 (RFC 1812), or type 1 code 1 (RFC 4443).
#[inline(always)]
fn prohibit(skb: Context, work: &mut Work, v4: bool, network: u32) -> bool {
    let header = if v4 { 20 } else { 40 };
    let quote = header + QUOTED;
    let icmp = 8 + quote;
    if work.packet.end < network + quote {
        return false;
    }
    work.refusal = [0; 128];
    let loaded = if v4 {
        load(skb, network, &mut work.refusal[8..], 28)
    } else {
        load(skb, network, &mut work.refusal[8..], 48)
    };
    if !loaded {
        return false;
    }
    let packet = &work.packet;
    let protocol = if v4 { ICMP } else { ICMPV6 };
    work.refusal[0] = if v4 { 3 } else { 1 };
    work.refusal[1] = if v4 { 13 } else { 1 };
    let mut sum = if v4 { sum_of(&work.refusal, 36) } else { sum_of(&work.refusal, 56) };
    if !v4 {
        sum += pseudo_sum(&packet.source, &packet.destination, ICMPV6, icmp, false);
    }
    let checksum = fold(sum).to_be_bytes();
    work.refusal[2] = checksum[0];
    work.refusal[3] = checksum[1];
    if !resize(skb, network + header + icmp) || !turn_network(skb, &work.packet, protocol, icmp, v4, network)
    {
        return false;
    }
    let length = if v4 { 36 } else { 56 };
    // SAFETY: the helper reads at most 56 of 128 octets.
    let failed = unsafe {
        bpf_skb_store_bytes(
            skb.cast(),
            network + header,
            work.refusal.as_ptr().cast(),
            length,
            BPF_F_RECOMPUTE_CSUM as u64,
        )
    };
    failed == 0
}

/// Writes the IP header of the answer.
#[inline(always)]
fn turn_network(skb: Context, packet: &Packet, protocol: u8, payload: u32, v4: bool, network: u32) -> bool {
    if v4 {
        let mut header = [0_u8; 20];
        header[0] = 0x45;
        put16(&mut header, 2, (20 + payload) as u16);
        header[6] = 0x40;
        header[8] = HOPS;
        header[9] = protocol;
        put_word(&mut header, 12, packet.destination.0[3]);
        put_word(&mut header, 16, packet.source.0[3]);
        let checksum = fold(sum_of(&header, 20));
        put16(&mut header, 10, checksum);
        store(skb, network, &header)
    } else {
        let mut header = [0_u8; 40];
        header[0] = 0x60;
        put16(&mut header, 4, payload as u16);
        header[6] = protocol;
        header[7] = HOPS;
        let mut i = 0;
        while i < 4 {
            put_word(&mut header, 8 + 4 * i, packet.destination.0[i]);
            put_word(&mut header, 24 + 4 * i, packet.source.0[i]);
            i += 1;
        }
        store(skb, network, &header)
    }
}

#[inline(always)]
fn put16<const N: usize>(to: &mut [u8; N], at: usize, value: u16) {
    let value = value.to_be_bytes();
    to[at] = value[0];
    to[at + 1] = value[1];
}

#[inline(always)]
fn put_word<const N: usize>(to: &mut [u8; N], at: usize, word: u32) {
    let word = word.to_ne_bytes();
    to[at] = word[0];
    to[at + 1] = word[1];
    to[at + 2] = word[2];
    to[at + 3] = word[3];
}

/// Sum of `length` octets (a constant multiple of four) as sixteen-bit words in memory order.
#[inline(always)]
fn sum_of<const N: usize>(octets: &[u8; N], length: u32) -> u64 {
    // SAFETY: the helper reads `length` octets of `octets`, callers keep it within `N`.
    let sum =
        unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, octets.as_ptr().cast_mut().cast(), length, 0) };
    hide(sum as u64) & 0xffff_ffff
}

/// Sum of the pseudo-header (RFC 9293, RFC 8200), memory order.
#[inline(always)]
fn pseudo_sum(source: &Address, destination: &Address, protocol: u8, length: u32, v4: bool) -> u64 {
    let mut sum = 0;
    let mut i = if v4 { 3 } else { 0 };
    while i < 4 {
        sum += source.0[i] as u64 + destination.0[i] as u64;
        i += 1;
    }
    sum + length.to_be() as u64 + (protocol as u32).to_be() as u64
}

/// The checksum of a sum in memory order, as a number whose network order is to be stored.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let mut sum = sum;
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    u16::from_be(!(sum as u16))
}
