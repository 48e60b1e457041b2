//! Frames of NRI's connection: a trunk carries connections, each carries messages of ttrpc. Owns both headers and the bounds of
//! what is kept; never looks into a message.
//!
//! A frame of the trunk is the connection's number, the length and as many octets (big endian, 4 octets each). A message is its
//! length, the number of its stream (4 octets each), its type and its flags (1 octet each), and as many octets. Messages may be
//! cut anywhere by frames.

/// The connection on which the runtime asks the plugin.
pub const PLUGIN: u32 = 1;
/// The connection on which the plugin asks the runtime.
pub const RUNTIME: u32 = 2;

/// Octets of a message without its header (ttrpc's bound).
pub const MAX_MESSAGE: usize = 4 << 20;
/// Octets of a message's header.
const MESSAGE_HEADER: usize = 10;
/// Octets of a frame's header.
const FRAME_HEADER: usize = 8;

/// A request of a call.
pub const REQUEST: u8 = 1;
/// The response to it.
pub const RESPONSE: u8 = 2;

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// [`PLUGIN`] or [`RUNTIME`].
    pub connection: u32,
    /// Number of the call.
    pub stream: u32,
    /// [`REQUEST`], [`RESPONSE`], or what this program does not know.
    pub kind: u8,
    /// 0 for calls of one request and one response.
    pub flags: u8,
    /// What it holds.
    pub data: Vec<u8>,
}

/// Why what came cannot be frames: nothing behind it can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// There is no such connection.
    #[error("a frame is for connection {0}; a runtime uses 1 and 2 only")]
    Connection(u32),
    /// More than any frame holds.
    #[error("a frame has {0} octets; the most is {most}", most = MAX_MESSAGE + MESSAGE_HEADER)]
    FrameTooLong(u32),
    /// More than any message holds.
    #[error("a message has {0} octets; the most is {MAX_MESSAGE}")]
    MessageTooLong(u32),
}

/// Takes octets of the trunk and gives messages. It keeps at most one unfinished message of each connection.
#[derive(Default, Debug)]
pub struct Reader {
    /// The frame's header, as far as it has come.
    header: Vec<u8>,
    /// The connection of the frame and what is missing of it.
    open: Option<(u32, usize)>,
    /// Unfinished messages of [`PLUGIN`] and [`RUNTIME`].
    unfinished: [Vec<u8>; 2],
}

impl Reader {
    /// Takes what has come and appends what is finished by it.
    ///
    /// # Errors
    /// When it is no frame; the connection is to be given up then.
    pub fn take(&mut self, mut octets: &[u8], messages: &mut Vec<Message>) -> Result<(), FrameError> {
        while !octets.is_empty() {
            let Some((connection, missing)) = self.open else {
                octets = fill(&mut self.header, FRAME_HEADER, octets);
                if let Some((connection, length)) = pair(&self.header) {
                    self.open = Some(begin(connection, length)?);
                    self.header.clear();
                }
                continue;
            };
            let (own, rest) = octets.split_at(missing.min(octets.len()));
            let left = missing - own.len();
            self.open = Some((connection, left)).filter(|_| left > 0);
            self.join(connection, own, messages)?;
            octets = rest;
        }
        self.open = self.open.filter(|(_, missing)| *missing > 0);
        Ok(())
    }

    /// Appends octets of one connection.
    fn join(
        &mut self,
        connection: u32,
        mut octets: &[u8],
        messages: &mut Vec<Message>,
    ) -> Result<(), FrameError> {
        let unfinished = &mut self.unfinished[usize::from(connection == RUNTIME)];
        while !octets.is_empty() {
            octets = fill(unfinished, MESSAGE_HEADER, octets);
            let Some((length, stream)) = pair(unfinished).filter(|_| unfinished.len() >= MESSAGE_HEADER)
            else {
                return Ok(());
            };
            let whole = usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE);
            let whole = MESSAGE_HEADER + whole.ok_or(FrameError::MessageTooLong(length))?;
            octets = fill(unfinished, whole, octets);
            if unfinished.len() == whole {
                let mut data = std::mem::take(unfinished);
                let (kind, flags) = (data[8], data[9]);
                data.drain(..MESSAGE_HEADER);
                messages.push(Message { connection, stream, kind, flags, data });
            }
        }
        Ok(())
    }
}

/// A frame's connection, and how much of it is missing.
fn begin(connection: u32, length: u32) -> Result<(u32, usize), FrameError> {
    if connection != PLUGIN && connection != RUNTIME {
        return Err(FrameError::Connection(connection));
    }
    let known = usize::try_from(length).ok().filter(|length| *length <= MAX_MESSAGE + MESSAGE_HEADER);
    known.map(|length| (connection, length)).ok_or(FrameError::FrameTooLong(length))
}

/// Fills `to` up to `length` octets and returns what is left of `from`.
fn fill<'a>(to: &mut Vec<u8>, length: usize, from: &'a [u8]) -> &'a [u8] {
    let (own, rest) = from.split_at(length.saturating_sub(to.len()).min(from.len()));
    to.extend_from_slice(own);
    rest
}

/// The two numbers that either header begins with, once they are there.
fn pair(header: &[u8]) -> Option<(u32, u32)> {
    let (first, rest) = header.split_first_chunk::<4>()?;
    let (second, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*first), u32::from_be_bytes(*second)))
}

/// Appends a message in a frame of its own: the runtime reads frame by frame, each into what it has room for.
pub fn write(out: &mut Vec<u8>, connection: u32, stream: u32, kind: u8, data: &[u8]) {
    let length = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&connection.to_be_bytes());
    out.extend_from_slice(&length(MESSAGE_HEADER + data.len()));
    out.extend_from_slice(&length(data.len()));
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(&[kind, 0]);
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two messages of one connection and one of the other.
    fn some() -> (Vec<Message>, Vec<u8>) {
        let message = |connection, stream, kind, length: usize| Message {
            connection,
            stream,
            kind,
            flags: 0,
            data: vec![7; length],
        };
        let all = vec![
            message(PLUGIN, 1, REQUEST, 0),
            message(RUNTIME, 1, RESPONSE, 300),
            message(PLUGIN, 3, 9, 5),
        ];
        let mut octets = Vec::new();
        all.iter().for_each(|m| write(&mut octets, m.connection, m.stream, m.kind, &m.data));
        (all, octets)
    }

    #[test]
    fn a_frame_is_what_the_protocol_says() {
        let mut octets = Vec::new();
        write(&mut octets, RUNTIME, 0x0102, REQUEST, b"ab");
        assert_eq!(octets, [0, 0, 0, 2, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 1, 2, 1, 0, b'a', b'b']);
    }

    #[test]
    fn messages_are_the_same_wherever_the_trunk_is_cut() {
        let (expected, octets) = some();
        for size in [1, 2, 3, 7, 8, 9, 18, 64, octets.len()] {
            let (mut reader, mut messages) = (Reader::default(), Vec::new());
            for part in octets.chunks(size) {
                reader.take(part, &mut messages).expect("frames");
            }
            assert_eq!(messages, expected, "cut into {size}");
            assert!(reader.open.is_none() && reader.unfinished.iter().all(Vec::is_empty));
        }
    }

    #[test]
    fn messages_are_the_same_wherever_frames_cut_them() {
        let (expected, whole) = some();
        // The messages of the plugin's connection, one after the other, in frames of three octets; an empty one between.
        let own: Vec<&Message> = expected.iter().filter(|message| message.connection == PLUGIN).collect();
        let stream: Vec<u8> = [&whole[8..18], &whole[whole.len() - 15..]].concat();
        let mut trunk = Vec::new();
        for part in stream.chunks(3) {
            let header = |length: usize| [PLUGIN.to_be_bytes(), (length as u32).to_be_bytes()].concat();
            trunk.extend([header(0), header(part.len()), part.to_vec()].concat());
        }
        let (mut reader, mut messages) = (Reader::default(), Vec::new());
        trunk.iter().for_each(|octet| reader.take(&[*octet], &mut messages).expect("frames"));
        assert_eq!(messages.iter().collect::<Vec<_>>(), own);
    }

    #[test]
    fn what_is_no_frame_is_told_and_nothing_is_kept_for_it() {
        let error = |octets: &[u8]| Reader::default().take(octets, &mut Vec::new()).expect_err("no frame");
        let frame = |connection: u32, length: u32| [connection.to_be_bytes(), length.to_be_bytes()].concat();
        assert_eq!(error(&frame(0, 1)), FrameError::Connection(0));
        assert_eq!(
            error(&frame(3, 1)).to_string(),
            "a frame is for connection 3; a runtime uses 1 and 2 only"
        );
        let long = error(&frame(1, u32::MAX));
        assert_eq!(long.to_string(), "a frame has 4294967295 octets; the most is 4194314");
        let message = [frame(1, 10), (MAX_MESSAGE as u32 + 1).to_be_bytes().to_vec(), vec![0; 6]].concat();
        assert_eq!(error(&message).to_string(), "a message has 4194305 octets; the most is 4194304");
    }

    #[test]
    fn memory_grows_by_what_has_come_only() {
        let mut reader = Reader::default();
        let claimed =
            [1_u32.to_be_bytes(), (MAX_MESSAGE as u32).to_be_bytes(), (MAX_MESSAGE as u32).to_be_bytes()];
        reader.take(&claimed.concat(), &mut Vec::new()).expect("a frame begins");
        assert!(reader.unfinished[0].capacity() < 1_024, "{}", reader.unfinished[0].capacity());
    }
}
