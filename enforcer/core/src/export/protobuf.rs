//! Protocol Buffers on the wire (the encoding guide of protobuf.dev): tags, varints, lengths. Appends only what it is
//! told; knows no message.

/// Wire type of varints.
const VARINT: u32 = 0;
/// Wire type of eight octets.
const FIXED64: u32 = 1;
/// Wire type of octets behind their length.
const LENGTH: u32 = 2;

/// Appends a varint.
pub fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Octets of a varint.
pub const fn varint_length(value: u64) -> usize {
    // Seven bits an octet, and one octet at least.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a field that is a number.
pub fn number(field: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | VARINT), out);
    varint(value, out);
}

/// Appends a field of eight octets.
pub fn fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | FIXED64), out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends the head of a field of so many octets, which the caller appends behind it.
pub fn head(field: u32, length: usize, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | LENGTH), out);
    varint(length as u64, out);
}

/// Appends a field of octets: a text or a message.
pub fn octets(field: u32, value: &[u8], out: &mut Vec<u8>) {
    head(field, value.len(), out);
    out.extend_from_slice(value);
}

/// Appends a field that is a message, which `write` appends; its length is found out then.
pub fn message(field: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    varint(u64::from(field << 3 | LENGTH), out);
    let begin = out.len() + 1;
    out.push(0);
    write(out);
    let (end, length) = (out.len(), (out.len() - begin) as u64);
    // Most are short enough for one octet; others make room for theirs.
    let more = varint_length(length) - 1;
    if more > 0 {
        out.resize(end + more, 0);
        out.copy_within(begin..end, begin + more);
    }
    let mut rest = length;
    for octet in &mut out[begin - 1..begin + more] {
        *octet = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[begin - 1 + more] &= 0x7f;
}

/// Octets of a field of so many octets whose number is below 16.
pub const fn octets_length(length: usize) -> usize {
    1 + varint_length(length as u64) + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_what_is_written() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            varint(value, &mut out);
            assert_eq!(out.len(), varint_length(value), "{value}");
        }
        let mut out = Vec::new();
        octets(15, &[7; 200], &mut out);
        assert_eq!(out.len(), octets_length(200));
    }

    #[test]
    fn a_message_has_its_length_before_it() {
        for length in [0, 1, 127, 128, 16_383, 16_384] {
            let (inner, mut expected, mut out) = (vec![7; length], vec![1, 2], vec![1, 2]);
            octets(21_001, &inner, &mut expected);
            message(21_001, &mut out, |out| out.extend_from_slice(&inner));
            assert!(out == expected, "{length}");
        }
    }
}
