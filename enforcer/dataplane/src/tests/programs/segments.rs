//! Several DNS messages in one UDP super-packet, as receive offloads make them: each is read by itself.

use super::dns::{NAMED, assert_learned, lab, names, resolver, workload_asks};
use super::messages::{Given, answer, octets, question, record};
use super::plans::address;
use super::shapes::{plain, udp};
use super::state::near;
use super::{Lab, OK};
use crate::load;
use crate::sys::{self, RunRequest};
use enforcer_common::abi::{Counter, program};
use enforcer_common::event::DnsOutcome;
use hickory_proto::rr::RecordType;
use std::os::fd::AsFd;

/// Gives the workload a super-packet of segments of this many octets.
fn give(lab: &mut Lab, packet: &[u8], segment: u32) {
    let request = RunRequest { packet, interface: lab.interface, segment, repeat: 1 };
    let classifier = load::classifier(&mut lab.dataplane.object, program::TO_WORKLOAD).expect("it is there");
    let (code, ..) = sys::run(classifier.fd().expect("it is loaded").as_fd(), &request).expect("it runs");
    assert_eq!(code as i32, OK);
}

/// Answers of one length to questions 1 to `count`, one behind the other, and their length.
fn answers(count: u16) -> (Vec<u8>, u32) {
    let one = |id| {
        let reply = vec![record(NAMED, 60, given(id).0)];
        octets(&answer(&question(id, NAMED, RecordType::A), reply))
    };
    let all: Vec<Vec<u8>> = (1..=count).map(one).collect();
    let length = all[0].len() as u32;
    assert!(all.iter().all(|one| one.len() as u32 == length));
    (all.concat(), length)
}

/// What the answer with this identifier gives.
fn given(id: u16) -> Given {
    (address(&format!("203.0.113.{id}")), 60)
}

#[test]
fn every_segment_is_an_answer_of_its_own() {
    let class = names().automaton.class_of(NAMED);
    let mut lab = lab();
    for count in [1, 2, 5, 16] {
        lab.forget();
        (1..=count).for_each(|id| workload_asks(&mut lab, &octets(&question(id, NAMED, RecordType::A))));
        let (mut payload, length) = answers(count);
        // What is left over is a message too, too short for one.
        payload.extend([0; 3]);
        let short = u64::from(count < 16);
        lab.counters_moved();
        give(&mut lab, &plain(resolver(true), near(true), &udp(53, super::dns::PORT, &payload)), length);
        let moved = lab.counters_moved();
        let counted =
            |outcome| moved.get(&(Counter::DnsAnswers as u32 + outcome as u32)).copied().unwrap_or(0);
        assert_eq!(counted(DnsOutcome::Learned), u64::from(count));
        assert_eq!(counted(DnsOutcome::Malformed), short);
        let all: Vec<Given> = (1..=count).map(given).collect();
        assert_learned(&lab, &all, class);
        lab.told();
        assert_eq!(lab.answers.drain(..).count(), usize::from(count));
    }
}
