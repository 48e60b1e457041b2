//! Numbers and addresses as text, appended without the formatting machinery: what is written for every record of a
//! node. The texts are those that [`Display`](std::fmt::Display) writes.

use std::io::Write as _;
use std::net::IpAddr;

/// Appends a number in decimal.
pub fn push_number(mut number: u64, line: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
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
