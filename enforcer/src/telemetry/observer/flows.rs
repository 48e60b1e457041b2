//! One client's stream of flows: where it begins, what of it is wanted, where it ends. Owns that order and the telling of
//! what the client missed. It is pulled: a client that does not read costs nothing but what it misses.

use std::collections::VecDeque;
use std::ops::Range;

use enforcer_core::export::protobuf::{message, octets};
use jiff::Timestamp;
use prost::Message as _;
use prost::bytes::Bytes;
use tonic::Status;

use super::answer::Answer;
use super::convert::{self, Origin};
use super::filter::Filters;
use super::mask::Mask;
use super::wire::flow::{LostEvent, LostEventSource};
use super::wire::observer::GetFlowsRequest;
use crate::telemetry::records::{Consumer, Item, Kinds, Numbers, Reader, Records};

/// Records looked at before others have their turn; as many flows may wait for a client that does not read.
const BATCH: usize = 256;

/// Fields of an answer, by the numbers of `proto/observer/observer.proto`.
const FLOW: u32 = 1;
const LOST_EVENTS: u32 = 3;
const NODE_NAME: u32 = 1000;
const TIME: u32 = 1001;

/// The stream of one request.
pub struct Flows {
    request: Request,
    origin: Origin,
    records: Records,
    reader: Reader,
    /// Where a stream that does not follow ends.
    end: Option<Numbers>,
    /// How many flows are still wanted of a stream that does not follow.
    left: Option<u64>,
    lost_by_kernel: u64,
    written: Written,
    ready: VecDeque<Answer>,
    batch: Vec<Item>,
    is_over: bool,
}

/// Answers that were written, in a row, and where each of them lies.
#[derive(Default)]
struct Written {
    octets: Vec<u8>,
    places: Vec<Range<usize>>,
}

/// A request that was understood.
pub struct Request {
    number: u64,
    first: bool,
    follow: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    filters: Filters,
    mask: Mask,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// `InvalidArgument`, with the field.
    pub fn new(request: &GetFlowsRequest) -> Result<Self, Status> {
        if request.first && request.follow {
            return Err(Status::invalid_argument("first: the first flows cannot be followed"));
        }
        let refused = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let paths = request.field_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
        Ok(Self {
            number: request.number,
            first: request.first,
            follow: request.follow,
            since: time("since", request.since.as_ref())?,
            until: time("until", request.until.as_ref())?,
            filters: Filters::read(&request.whitelist, &request.blacklist)
                .map_err(|error| refused(&error))?,
            mask: Mask::new(paths).map_err(|error| refused(&error))?,
        })
    }

    /// True when every flow is wanted, and all of it.
    fn takes_all(&self) -> bool {
        self.filters.is_empty() && self.mask.is_whole()
    }

    fn is_in_time(&self, item: &Item) -> bool {
        let time = item.time();
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    /// Where the stream begins. The beginning of time goes before numbers, as clients expect.
    fn place(&self, records: &Records, origin: &Origin) -> Numbers {
        let end = records.end();
        if self.since.is_some() || self.first || (self.number == 0 && !self.follow) {
            return records.start();
        }
        let last = usize::try_from(self.number).unwrap_or(usize::MAX);
        records.latest(end, Kinds::ALL, last, |item| {
            self.is_in_time(item) && (self.filters.is_empty() || self.filters.matches(&origin.flow(item, 0)))
        })
    }
}

impl Flows {
    /// The stream of a request, from here on.
    pub fn new(request: Request, origin: Origin, records: Records) -> Self {
        let place = request.place(&records, &origin);
        let end = (!request.follow).then(|| records.end());
        let left = (!request.follow && request.number > 0).then_some(request.number);
        Self {
            reader: records.reader(Consumer::Observer, Kinds::ALL, place),
            lost_by_kernel: records.lost_by_kernel(),
            request,
            origin,
            records,
            end,
            left,
            written: Written::default(),
            ready: VecDeque::new(),
            batch: Vec::new(),
            is_over: false,
        }
    }

    /// The next answer; `None` at the end. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Answer> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Some(response);
            }
            if self.is_over || self.is_behind_end() || self.left == Some(0) {
                return None;
            }
            self.read().await;
            // One client's search through records it does not want is no reason for others to wait.
            tokio::task::yield_now().await;
        }
    }

    fn is_behind_end(&self) -> bool {
        self.end.is_some_and(|end| self.reader.place().until(end) == 0)
    }

    /// Makes the answers of the next batch.
    async fn read(&mut self) {
        let before = self.reader.place();
        let missed = match self.request.follow {
            true => self.reader.next(BATCH, &mut self.batch).await,
            false => Some(self.reader.read(BATCH, &mut self.batch)),
        };
        let Some(missed) = missed else { return self.is_over = true };
        let place = before.plus(missed);
        self.tell_lost(LostEventSource::HubbleRingBuffer, missed.sum());
        if self.request.follow {
            let lost = self.records.lost_by_kernel();
            self.tell_lost(LostEventSource::PerfEventRingBuffer, lost.saturating_sub(self.lost_by_kernel));
            self.lost_by_kernel = lost;
        }
        self.tell(place);
        self.ready.extend(self.written.take());
    }

    fn tell(&mut self, mut place: Numbers) {
        let Self { request, origin, written, left, is_over, .. } = self;
        for item in self.batch.drain(..) {
            let number = place.pass(&item);
            // Whoever follows until a time waits for nothing that comes after it.
            *is_over |= request.follow && request.until.is_some_and(|until| item.time() > until);
            if *left == Some(0) || !request.is_in_time(&item) {
                continue;
            }
            if request.takes_all() {
                let flow = |out: &mut Vec<u8>| origin.write(&item, number, out);
                written.add(&origin.node, item.time(), |out| message(FLOW, out, flow));
            } else {
                let mut flow = origin.flow(&item, number);
                if !request.filters.matches(&flow) {
                    continue;
                }
                request.mask.apply(&mut flow);
                let flow = flow.encode_to_vec();
                written.add(&origin.node, item.time(), |out| octets(FLOW, &flow, out));
            }
            *left = left.map(|left| left - 1);
        }
    }

    fn tell_lost(&mut self, source: LostEventSource, count: u64) {
        if count > 0 {
            let event = LostEvent { source: source.into(), num_events_lost: count }.encode_to_vec();
            let (node, now) = (&self.origin.node, Timestamp::now());
            self.written.add(node, now, |out| octets(LOST_EVENTS, &event, out));
        }
    }
}

impl Written {
    fn add(&mut self, node: &str, time: Timestamp, content: impl FnOnce(&mut Vec<u8>)) {
        let begin = self.octets.len();
        content(&mut self.octets);
        octets(NODE_NAME, node.as_bytes(), &mut self.octets);
        convert::time(TIME, time, &mut self.octets);
        self.places.push(begin..self.octets.len());
    }

    /// The answers; the next ones are likely to be as long.
    fn take(&mut self) -> impl Iterator<Item = Answer> {
        let room = Vec::with_capacity(self.octets.len());
        let octets = Bytes::from(std::mem::replace(&mut self.octets, room));
        self.places.drain(..).map(move |place| Answer(octets.slice(place)))
    }
}

/// A time of a request.
fn time(field: &str, time: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>, Status> {
    let Some(time) = time else { return Ok(None) };
    let read = Timestamp::new(time.seconds, time.nanos);
    read.map(Some).map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}
