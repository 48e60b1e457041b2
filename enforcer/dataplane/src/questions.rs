//! DNS questions under way, seen from userspace: those it answers itself, and those that nobody answered. Owns when one is
//! given up; never what a name means.

use crate::dataplane::Dataplane;
use crate::error::Error;
use crate::sys::{Mapped, Store};
use enforcer_common::abi::map;
use enforcer_common::question::{
    BUSY, FREE, Place, Places, QUESTION_NAME, Question, QuestionKey, WAYS, first_far, first_near,
};
use std::io;
use std::net::IpAddr;

/// The questions and their places; kernel programs take and give them meanwhile.
pub(crate) struct Questions {
    pub(crate) places: Mapped<Place>,
    pub(crate) store: Store<u32, Question>,
    /// The map of the places.
    #[expect(dead_code, reason = "held open: programs that are loaded later need it")]
    asked: Store<u32, Places>,
}

impl Questions {
    /// The questions of a pair of maps.
    pub(crate) fn new(asked: Store<u32, Places>, store: Store<u32, Question>) -> io::Result<Self> {
        Ok(Self { places: asked.mapped()?, store, asked })
    }

    /// The question of this key, where it stands and when it was asked, nanoseconds of the monotonic clock.
    pub(crate) fn find(&self, key: &QuestionKey) -> io::Result<Option<Pending>> {
        let mark = key.mark();
        let places = |first: u32| first..first + WAYS;
        for index in places(first_near(mark)).chain(places(first_far(mark))) {
            let Some(Place { time: asked, .. }) = self.places.get(index).filter(|place| place.holds(mark))
            else {
                continue;
            };
            if let Some(question) = self.store.get(&index)?.filter(|question| question.key == *key) {
                return Ok(Some(Pending { index, asked, question }));
            }
        }
        Ok(None)
    }

    /// Takes a question out; false when somebody else did, and has the answer.
    pub(crate) fn take(&self, pending: &Pending) -> bool {
        self.places.free(pending.index, pending.asked)
    }

    /// Every question asked before a time.
    pub(crate) fn asked_before(&self, time: u64) -> io::Result<Vec<Pending>> {
        let mut found = Vec::new();
        for index in 0..self.places.count() {
            let asked = self.time(index);
            if asked == FREE || asked == BUSY || asked >= time {
                continue;
            }
            if let Some(question) = self.store.get(&index)? {
                found.push(Pending { index, asked, question });
            }
        }
        Ok(found)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        (0..self.places.count()).filter(|index| self.time(*index) != FREE).count() as u64
    }

    fn time(&self, index: u32) -> u64 {
        self.places.get(index).unwrap_or_default().time
    }
}

/// A question under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pending {
    pub(crate) index: u32,
    pub(crate) asked: u64,
    pub(crate) question: Question,
}

/// A question of a workload to a trusted resolver that was not answered in time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unanswered {
    /// [`enforcer_common::policy::Endpoint::id`] of the workload.
    pub endpoint: u32,
    /// The resolver asked.
    pub resolver: IpAddr,
    /// The workload's port.
    pub local_port: u16,
    /// Transaction identifier.
    pub transaction: u16,
    /// IP protocol: UDP or TCP.
    pub protocol: u8,
    /// When it was asked, nanoseconds of the monotonic clock.
    pub asked_ns: u64,
    /// Type asked for.
    pub kind: u16,
    /// The name on the wire (RFC 1035, section 3.1) without the zero at its end.
    pub name: Vec<u8>,
}

impl Dataplane {
    /// Gives up the questions asked before `asked_before_ns` of the monotonic clock: they are out of the map, and an
    /// answer that still comes is unsolicited.
    pub fn unanswered(&mut self, asked_before_ns: u64) -> Result<Vec<Unanswered>, Error> {
        let questions = &self.maps.questions;
        let given_up = questions.asked_before(asked_before_ns).map_err(Error::map("read", map::QUESTIONS))?;
        // One that was answered meanwhile is not there any more.
        Ok(given_up.iter().filter(|pending| questions.take(pending)).map(unanswered).collect())
    }
}

fn unanswered(pending: &Pending) -> Unanswered {
    let Pending { asked, question: Question { key, kind, length, protocol, name, .. }, .. } = pending;
    Unanswered {
        endpoint: key.endpoint,
        resolver: IpAddr::from(key.resolver),
        local_port: key.local_port,
        transaction: u16::from_be(key.transaction),
        protocol: *protocol,
        asked_ns: *asked,
        kind: *kind,
        name: name[..usize::from(*length).min(QUESTION_NAME)].to_vec(),
    }
}
