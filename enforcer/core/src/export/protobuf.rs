//! Protocol Buffers on the wire (the encoding guide of protobuf.dev): tags, varints, lengths. Appends only what it is
//! told; knows no message.

/// Wire type of varints.
const VARINT: u32 = 0;
/// Wire type of eight octets.
const FIXED64: u32 = 1;
/// Wire type of octets behind their length.
const LENGTH: u32 = 2;

/// Appends a varint.
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Octets of a varint.
pub(super) const fn varint_length(value: u64) -> usize {
    // Seven bits an octet, and one octet at least.
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a field that is a number.
pub(super) fn number(field: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | VARINT), out);
    varint(value, out);
}

/// Appends a field of eight octets.
pub(super) fn fixed64(field: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | FIXED64), out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends the head of a field of so many octets, which the caller appends behind it.
pub(super) fn head(field: u32, length: usize, out: &mut Vec<u8>) {
    varint(u64::from(field << 3 | LENGTH), out);
    varint(length as u64, out);
}

/// Appends a field of octets: a text or a message.
pub(super) fn octets(field: u32, value: &[u8], out: &mut Vec<u8>) {
    head(field, value.len(), out);
    out.extend_from_slice(value);
}

/// Octets of a field of so many octets whose number is below 16.
pub(super) const fn octets_length(length: usize) -> usize {
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
}
