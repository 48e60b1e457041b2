//! A list in the binary form, read while it comes: what it says of itself, then one object after the other. Never holds more
//! of it than what has come of the next object.

use futures_util::StreamExt;
use prost::Message;
use prost::bytes::{Buf, Bytes, BytesMut};
use prost::encoding::decode_varint;

use super::{Answer, MAGIC, MAX_FRAME, Malformed};

/// Octets of the longest key and length before a field.
const HEAD: usize = 20;
/// The field of an envelope that holds the object.
const RAW: u64 = 2;
/// The fields of a list.
const METADATA: u64 = 1;
const ITEMS: u64 = 2;

/// What a list says of itself (`meta.v1.ListMeta`).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ListMeta {
    /// Which state of the cluster it is of.
    #[prost(string, tag = "2")]
    pub(crate) resource_version: String,
    /// What stands for the next page; empty for the last.
    #[prost(string, tag = "3")]
    pub(crate) next: String,
}

/// A part of a list.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Part {
    /// What it says of itself.
    Meta(ListMeta),
    /// An object, without an envelope.
    Item(Bytes),
}

/// The parts of a list.
pub(crate) struct Items {
    answer: Answer,
    reader: Reader,
}

impl Items {
    /// Those of an answer.
    pub(crate) fn new(answer: Answer) -> Self {
        Self { answer, reader: Reader::default() }
    }

    /// The next one; `None` behind the last.
    pub(crate) async fn next(&mut self) -> Option<kube::Result<Part>> {
        loop {
            match self.reader.next() {
                Ok(Some(part)) => return Some(Ok(part)),
                Ok(None) => {}
                Err(error) => return Some(Err(kube::Error::Service(error.into()))),
            }
            match self.answer.next().await {
                Some(Ok(more)) => self.reader.waiting.extend_from_slice(&more),
                Some(Err(error)) => return Some(Err(error)),
                None if self.reader.is_whole() => return None,
                None => return Some(Err(kube::Error::Service(Malformed::Cut.into()))),
            }
        }
    }
}

/// What has come and was not read yet.
#[derive(Default)]
struct Reader {
    waiting: BytesMut,
    place: Place,
}

/// Where a reader is.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Before everything.
    #[default]
    Start,
    /// In the envelope, before the list.
    Before,
    /// In the list, so many octets before its end.
    Inside(usize),
    /// In the envelope, behind the list.
    Behind,
}

impl Reader {
    /// The next part, once all of it is there.
    fn next(&mut self) -> Result<Option<Part>, Malformed> {
        if self.place == Place::Start && !self.begin()? {
            return Ok(None);
        }
        while let Some((field, head, length)) = self.field()? {
            if self.place == Place::Before && field == RAW {
                self.waiting.advance(head);
                self.place = inside(length);
                continue;
            }
            let Some(octets) = self.take(head, length)? else { return Ok(None) };
            let Place::Inside(left) = self.place else { continue };
            self.place = inside(left - (head + length));
            match field {
                METADATA => {
                    let meta = ListMeta::decode(octets).map_err(|_| Malformed::List)?;
                    return Ok(Some(Part::Meta(meta)));
                }
                ITEMS => return Ok(Some(Part::Item(octets))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// True once the answer has begun as an object does.
    fn begin(&mut self) -> Result<bool, Malformed> {
        if self.waiting.len() < MAGIC.len() {
            return Ok(false);
        }
        if !self.waiting.starts_with(MAGIC) {
            return Err(Malformed::Magic);
        }
        self.waiting.advance(MAGIC.len());
        self.place = Place::Before;
        Ok(true)
    }

    /// The content of a field, once all of it is there.
    fn take(&mut self, head: usize, length: usize) -> Result<Option<Bytes>, Malformed> {
        if length > MAX_FRAME {
            return Err(Malformed::Frame(length));
        }
        if matches!(self.place, Place::Inside(left) if head + length > left) {
            return Err(Malformed::List);
        }
        if self.waiting.len() < head + length {
            return Ok(None);
        }
        self.waiting.advance(head);
        Ok(Some(self.waiting.split_to(length).freeze()))
    }

    /// Number of the field that comes, octets before its content, and octets of that; `None` until they are there.
    fn field(&self) -> Result<Option<(u64, usize, usize)>, Malformed> {
        /// The form of fields whose length is told.
        const DELIMITED: u64 = 2;
        let mut rest = &self.waiting[..];
        let (Ok(key), Ok(length)) = (decode_varint(&mut rest), decode_varint(&mut rest)) else {
            return if self.waiting.len() < HEAD { Ok(None) } else { Err(Malformed::List) };
        };
        if key & 7 != DELIMITED {
            return Err(Malformed::List);
        }
        let length = usize::try_from(length).map_err(|_| Malformed::List)?;
        Ok(Some((key >> 3, self.waiting.len() - rest.len(), length)))
    }

    /// True when nothing of the list is missing.
    fn is_whole(&self) -> bool {
        self.place == Place::Behind && self.waiting.is_empty()
    }
}

/// So many octets before the end of the list.
fn inside(left: usize) -> Place {
    if left == 0 { Place::Behind } else { Place::Inside(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list as servers write one, with what stands around it.
    #[derive(Clone, PartialEq, Message)]
    struct List {
        #[prost(message, optional, tag = "1")]
        metadata: Option<ListMeta>,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        items: Vec<Bytes>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Whole {
        #[prost(string, tag = "1")]
        kind: String,
        #[prost(bytes = "bytes", tag = "2")]
        raw: Bytes,
        #[prost(string, tag = "4")]
        form: String,
    }

    fn meta() -> ListMeta {
        ListMeta { resource_version: "5".to_owned(), next: "t".to_owned() }
    }

    fn written(items: &[&'static str]) -> Vec<u8> {
        let items = items.iter().map(|item| Bytes::from_static(item.as_bytes())).collect();
        let raw = List { metadata: Some(meta()), items }.encode_to_vec().into();
        let whole = Whole { kind: "v1 List".to_owned(), raw, form: "x".to_owned() };
        [MAGIC, &whole.encode_to_vec()].concat()
    }

    /// What is read of octets that come in pieces of this size, and whether that is all.
    fn read(octets: &[u8], size: usize) -> (Vec<Part>, bool) {
        let (mut reader, mut parts) = (Reader::default(), Vec::new());
        for piece in octets.chunks(size) {
            reader.waiting.extend_from_slice(piece);
            while let Some(part) = reader.next().expect("a list") {
                parts.push(part);
            }
        }
        (parts, reader.is_whole())
    }

    #[test]
    fn parts_are_read_wherever_they_are_cut_and_a_list_that_ends_early_is_not_whole() {
        let octets = written(&["one", "", "three"]);
        let items = ["one", "", "three"].map(|item| Part::Item(Bytes::from_static(item.as_bytes())));
        let expected: Vec<Part> = [Part::Meta(meta())].into_iter().chain(items).collect();
        for size in 1..=octets.len() {
            assert_eq!(read(&octets, size), (expected.clone(), true), "cut every {size} octets");
        }
        for length in 0..octets.len() {
            // Behind the list stands what says nothing; without it nothing is missing.
            let says_nothing = length == octets.len() - b"\x22\x01x".len();
            assert_eq!(read(&octets[..length], octets.len().max(1)).1, says_nothing, "{length} octets");
        }
        assert_eq!(read(&written(&[]), 7), (vec![Part::Meta(meta())], true));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let refused = |octets: &[u8]| {
            let mut reader = Reader::default();
            reader.waiting.extend_from_slice(octets);
            std::iter::repeat_with(|| reader.next()).find_map(|read| match read {
                Ok(Some(_)) => None,
                Ok(None) => Some(None),
                Err(error) => Some(Some(error.to_string())),
            })
        };
        let says = |error: Malformed| Some(Some(error.to_string()));
        assert_eq!(refused(b"{\"kind\": \"List\"}"), says(Malformed::Magic));
        assert_eq!(refused(b"k8s\0\x08\x01"), says(Malformed::List), "a number in place of an object");
        assert_eq!(
            refused(b"k8s\0\x12\x04\x12\x09item"),
            says(Malformed::List),
            "an item longer than the list"
        );
        let long = [b"k8s\0\x12\xff\xff\xff\xff\x0f\x12".as_slice(), b"\x81\x80\x80\x08"].concat();
        assert_eq!(refused(&long), says(Malformed::Frame(MAX_FRAME + 1)));
    }
}
