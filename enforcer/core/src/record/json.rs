//! Parts of JSON lines, appended without the serialiser: times and texts. What they give is, octet by octet, what
//! serialising gives.

use std::io::Write as _;

use jiff::Timestamp;

/// Seconds whose text is kept.
const KEPT: usize = 4;

/// Writes times. What it keeps from one to the next saves time only.
#[derive(Clone, Default, Debug)]
pub(super) struct Times {
    /// Seconds and their texts without the `Z`, each at its number modulo how many there are.
    kept: [(i64, String); KEPT],
}

impl Times {
    /// Appends a time as [`Timestamp`] is displayed.
    pub(super) fn push(&mut self, time: Timestamp, line: &mut Vec<u8>) {
        let (second, mut fraction) = (time.as_second(), time.subsec_nanosecond());
        if second < 0 || fraction < 0 {
            return write(line, format_args!("{time}"));
        }
        let (kept, text) = &mut self.kept[second as usize % KEPT];
        if *kept != second || text.is_empty() {
            let whole = Timestamp::from_second(second);
            *text = whole.map_or_else(|_| time.to_string(), |whole| whole.to_string());
            text.pop();
            *kept = second;
        }
        line.extend_from_slice(text.as_bytes());
        if fraction > 0 {
            let mut digits = *b".000000000";
            for digit in digits[1..].iter_mut().rev() {
                *digit += (fraction % 10) as u8;
                fraction /= 10;
            }
            let length = 1 + digits.iter().rposition(|digit| *digit != b'0').unwrap_or(0);
            line.extend_from_slice(&digits[..length]);
        }
        line.push(b'Z');
    }
}

/// Appends a text; most need no escapes.
pub(super) fn push_text(text: &str, line: &mut Vec<u8>) {
    if text.bytes().any(|octet| matches!(octet, b'"' | b'\\' | 0..=0x1f)) {
        return push_json(&text, line);
    }
    line.push(b'"');
    line.extend_from_slice(text.as_bytes());
    line.push(b'"');
}

/// A value as JSON.
pub(super) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers can be written")
}

/// Appends a value as JSON.
pub(super) fn push_json(value: &impl serde::Serialize, line: &mut Vec<u8>) {
    serde_json::to_writer(line, value).expect("texts and numbers can be written");
}

fn write(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector does not fail.
    let _ = line.write_fmt(text);
}
