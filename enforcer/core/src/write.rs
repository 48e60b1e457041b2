//! Numbers and addresses as text, appended without the formatting machinery: what is written for every record of a
//! node. The texts are those that [`Display`](std::fmt::Display) writes.

use std::io::Write as _;
use std::net::IpAddr;

use crate::protocol::Protocol;

/// Appends a number in decimal.
pub fn push_number(number: u64, line: &mut Vec<u8>) {
    line.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends an address.
pub fn push_address(address: IpAddr, line: &mut Vec<u8>) {
    match address {
        IpAddr::V4(v4) => {
            for (index, octet) in v4.octets().into_iter().enumerate() {
                if index > 0 {
                    line.push(b'.');
                }
                push_number(octet.into(), line);
            }
        }
        // Writing to a vector does not fail.
        IpAddr::V6(v6) => drop(write!(line, "{v6}")),
    }
}

/// Appends a protocol.
pub fn push_protocol(protocol: Protocol, line: &mut Vec<u8>) {
    match protocol {
        Protocol::TCP => line.extend_from_slice(b"TCP"),
        Protocol::UDP => line.extend_from_slice(b"UDP"),
        // Writing to a vector does not fail.
        other => drop(write!(line, "{other}")),
    }
}
