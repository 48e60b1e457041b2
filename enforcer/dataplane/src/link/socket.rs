//! One request and its answer over an rtnetlink socket. Owns framing; never what a message means.

use super::LinkError;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// Everything the kernel has on a request.
pub(super) fn dump(
    attempt: &'static str,
    request: RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
    exchange(request, NLM_F_REQUEST | NLM_F_DUMP).map_err(|source| LinkError::Netlink { attempt, source })
}

/// The answers to a request, up to its acknowledgement.
pub(super) fn ask(
    attempt: &'static str,
    request: RouteNetlinkMessage,
) -> Result<Vec<RouteNetlinkMessage>, LinkError> {
    exchange(request, NLM_F_REQUEST | NLM_F_ACK).map_err(|source| LinkError::Netlink { attempt, source })
}

fn exchange(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // Without it the kernel ignores which namespace a dump asks for.
    socket.set_netlink_get_strict_chk(true)?;
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    socket.send(&octets, 0)?;
    let mut answers = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        if !read(&datagram, &mut answers)? {
            return Ok(answers);
        }
    }
}

/// Takes the messages out of a datagram; false when it ends the answer.
fn read(datagram: &[u8], answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
    for message in messages(datagram) {
        match message?.payload {
            NetlinkPayload::InnerMessage(inner) => answers.push(inner),
            NetlinkPayload::Done(_) => return Ok(false),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Error(_) => return Ok(false),
            _ => {}
        }
    }
    Ok(true)
}

/// The messages of a datagram, one by one.
pub(super) fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<RouteNetlinkMessage>>> + '_ {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest);
        let length = message.as_ref().map_or(rest.len(), |message| message.header.length as usize);
        // Messages are aligned to four octets.
        rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or(&[]);
        Some(message.map_err(io::Error::other))
    })
}
