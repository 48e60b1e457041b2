//! The binary form of the API: how it is asked for, the envelope around every object, the frames of a watch, and what stands for
//! an error; lists are [`items`]'s. Knows no kind of object.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use http_body_util::BodyExt;
use hyper::Request;
use kube::Client;
use kube::client::Body;
use kube::core::Status;
use kube::core::response::StatusSummary;
use prost::Message;
use prost::bytes::{Buf, Bytes, BytesMut};
use tokio::time::timeout;

pub(crate) mod form;
mod items;

/// What the API calls the form.
const FORM: &str = "application/vnd.kubernetes.protobuf";
/// What every object begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Octets of the length before each frame of a watch.
const LENGTH: usize = 4;
/// Longest frame that is read, octets: some times what etcd takes for an object.
const MAX_FRAME: usize = 16 << 20;

/// Something that is not of the form.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    /// No object.
    #[error("the API server's answer does not begin as an object in its binary form does")]
    Magic,
    /// Something else than a list.
    #[error("the API server's answer is no list in its binary form")]
    List,
    /// A list that ends before it is whole.
    #[error("the API server's answer ends before the list does")]
    Cut,
    /// A frame that is too long.
    #[error("the API server announces an object of {0} octets; at most {MAX_FRAME} are read")]
    Frame(usize),
    /// An event of no known type.
    #[error("the API server sends an event of the unknown type {0:?}")]
    Event(String),
}

/// What is around every object (`runtime.Unknown`).
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
}

/// `meta.v1.WatchEvent`.
#[derive(Clone, PartialEq, Message)]
struct WatchEvent {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(message, optional, tag = "2")]
    object: Option<RawExtension>,
}

#[derive(Clone, PartialEq, Message)]
struct RawExtension {
    #[prost(bytes = "bytes", tag = "1")]
    raw: Bytes,
}

/// `meta.v1.Status`.
#[derive(Clone, PartialEq, Message)]
struct Failure {
    #[prost(string, tag = "3")]
    message: String,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(int32, tag = "6")]
    code: i32,
}

/// An event of a watch, its object as it came.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// It is new.
    Added(Bytes),
    /// It is another.
    Modified(Bytes),
    /// It is gone.
    Deleted(Bytes),
    /// Everything up to the version of this one was told.
    Bookmark(Bytes),
    /// It cannot go on.
    Failed(Box<Status>),
}

/// An answer that has begun: what the client makes of a request.
pub(crate) type Answer = Pin<Box<dyn Stream<Item = kube::Result<Bytes>> + Send>>;

/// The frames of a watch.
pub(crate) struct Frames {
    answer: Answer,
    waiting: BytesMut,
}

impl Frames {
    /// Those of an answer.
    pub(crate) fn new(answer: Answer) -> Self {
        Self { answer, waiting: BytesMut::new() }
    }

    /// The next one; `None` at the end, and after so long a silence.
    pub(crate) async fn next(&mut self, silence: Duration) -> Option<kube::Result<Bytes>> {
        loop {
            match split(&mut self.waiting) {
                Ok(None) => {}
                Ok(Some(frame)) => return Some(Ok(frame)),
                Err(error) => return Some(Err(kube::Error::Service(error.into()))),
            }
            match timeout(silence, self.answer.next()).await {
                Ok(Some(Ok(more))) => self.waiting.extend_from_slice(&more),
                Ok(Some(Err(error))) => return Some(Err(error)),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Takes the first frame out, once all of it is there.
fn split(waiting: &mut BytesMut) -> Result<Option<Bytes>, Malformed> {
    let Some(length) = waiting.first_chunk::<LENGTH>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > MAX_FRAME {
        return Err(Malformed::Frame(length));
    }
    if waiting.len() < LENGTH + length {
        return Ok(None);
    }
    waiting.advance(LENGTH);
    Ok(Some(waiting.split_to(length).freeze()))
}

/// Sends a request and returns its answer once it has begun well.
pub(crate) async fn open(client: &Client, mut request: Request<Vec<u8>>) -> kube::Result<Answer> {
    let form = FORM.parse().expect("a constant that is a header's value");
    request.headers_mut().insert("accept", form);
    let answer = client.send(request.map(Body::from)).await?;
    let code = answer.status().as_u16();
    let body = answer.into_body();
    if code < 400 {
        return Ok(Box::pin(body.into_data_stream()));
    }
    let said = body.collect().await?.to_bytes();
    Err(kube::Error::Api(refusal(said, code).boxed()))
}

/// The object in an envelope.
pub(crate) fn object<M: Message + Default>(octets: Bytes) -> kube::Result<M> {
    unwrap(octets).map_err(kube::Error::Service)
}

/// What a frame of a watch says.
pub(crate) fn event(frame: Bytes) -> kube::Result<Event> {
    let WatchEvent { kind, object: of } =
        WatchEvent::decode(frame).map_err(|error| kube::Error::Service(error.into()))?;
    let raw = of.unwrap_or_default().raw;
    match kind.as_str() {
        "ADDED" => Ok(Event::Added(raw)),
        "MODIFIED" => Ok(Event::Modified(raw)),
        "DELETED" => Ok(Event::Deleted(raw)),
        "BOOKMARK" => Ok(Event::Bookmark(raw)),
        "ERROR" => Ok(Event::Failed(status(object(raw)?).boxed())),
        _ => Err(kube::Error::Service(Malformed::Event(kind).into())),
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn unwrap<M: Message + Default>(mut octets: Bytes) -> Result<M, Cause> {
    if !octets.starts_with(MAGIC) {
        return Err(Malformed::Magic.into());
    }
    octets.advance(MAGIC.len());
    Ok(M::decode(Envelope::decode(octets)?.raw)?)
}

/// What a refused request says: a status in the binary form, or in JSON from what stands before the server.
fn refusal(said: Bytes, code: u16) -> Status {
    if let Ok(failure) = unwrap(said.clone()) {
        return status(failure);
    }
    let other = || Status::failure(String::from_utf8_lossy(&said).trim(), "").with_code(code);
    serde_json::from_slice(&said).unwrap_or_else(|_| other())
}

fn status(Failure { message, reason, code }: Failure) -> Status {
    let code = u16::try_from(code).unwrap_or_default();
    Status { status: Some(StatusSummary::Failure), ..Status::failure(&message, &reason).with_code(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(message: &impl Message) -> Bytes {
        let envelope = Envelope { raw: message.encode_to_vec().into() };
        [MAGIC, &envelope.encode_to_vec()].concat().into()
    }

    fn gone() -> Failure {
        Failure { message: "too old".to_owned(), reason: "Expired".to_owned(), code: 410 }
    }

    #[test]
    fn frames_are_split_wherever_they_are_cut() {
        let mut all = Vec::new();
        for text in ["one", "", "three"] {
            all.extend((text.len() as u32).to_be_bytes());
            all.extend(text.as_bytes());
        }
        for size in 1..=all.len() {
            let (mut waiting, mut frames) = (BytesMut::new(), Vec::new());
            for piece in all.chunks(size) {
                waiting.extend_from_slice(piece);
                while let Some(frame) = split(&mut waiting).expect("they are short") {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, ["one", "", "three"], "cut every {size} octets");
        }
        let mut long = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(matches!(split(&mut long), Err(Malformed::Frame(_))));
    }

    #[test]
    fn an_event_says_what_became_of_its_object() {
        let said = |kind: &str, raw: &Bytes| {
            let object = Some(RawExtension { raw: raw.clone() });
            event(WatchEvent { kind: kind.to_owned(), object }.encode_to_vec().into())
        };
        let raw = wrapped(&gone());
        assert_eq!(said("ADDED", &raw).expect("it is known"), Event::Added(raw.clone()));
        assert_eq!(said("BOOKMARK", &raw).expect("it is known"), Event::Bookmark(raw.clone()));
        assert_eq!(said("ERROR", &raw).expect("it is known"), Event::Failed(status(gone()).boxed()));
        assert!(said("SOMETHING", &raw).is_err());
        assert!(said("ERROR", &Bytes::from_static(b"{}")).is_err());
    }

    #[test]
    fn a_refusal_is_understood_in_either_form_and_from_whoever_says_it() {
        let facts = |status: Status| (status.code, status.message, status.reason);
        let expected = (410, "too old".to_owned(), "Expired".to_owned());
        assert_eq!(facts(refusal(wrapped(&gone()), 410)), expected);
        let json = br#"{"kind": "Status", "status": "Failure", "code": 410, "message": "too old", "reason": "Expired"}"#;
        assert_eq!(facts(refusal(Bytes::from_static(json), 410)), expected);
        let proxy = refusal(Bytes::from_static(b"bad gateway\n"), 502);
        assert_eq!(facts(proxy), (502, "bad gateway".to_owned(), String::new()));
    }
}
