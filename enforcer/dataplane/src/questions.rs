//! DNS questions that nobody answered. Owns when one is given up; never what a name means.

use crate::dataplane::Dataplane;
use crate::error::Error;
use enforcer_common::abi::{QUESTION_NAME, Question, QuestionKey, map};
use std::net::IpAddr;

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
        let mut given_up = Vec::new();
        let visit = |key: &QuestionKey, question: &Question| {
            if question.asked < asked_before_ns {
                given_up.push((*key, unanswered(key, question)));
            }
        };
        self.maps.questions.for_each(visit).map_err(Error::map("read", map::QUESTIONS))?;
        let mut unanswered = Vec::with_capacity(given_up.len());
        for (key, question) in given_up {
            // One that was answered meanwhile is not there any more.
            if self.maps.questions.delete(&key).map_err(Error::map("write", map::QUESTIONS))? {
                unanswered.push(question);
            }
        }
        Ok(unanswered)
    }
}

fn unanswered(key: &QuestionKey, question: &Question) -> Unanswered {
    let length = usize::from(question.length).min(QUESTION_NAME);
    Unanswered {
        endpoint: key.endpoint,
        resolver: IpAddr::from(key.resolver),
        local_port: key.local_port,
        transaction: u16::from_be(key.transaction),
        protocol: question.protocol,
        asked_ns: question.asked,
        kind: question.kind,
        name: question.name[..length].to_vec(),
    }
}
