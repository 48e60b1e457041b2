//! The programs on several processors at once: what they share is lost by none of them.

use super::dns::{NAMED, PORT, lab, resolver};
use super::messages::{answer, octets, question, record};
use super::plans::address;
use super::shapes::{plain, udp};
use super::state::near;
use super::{Lab, OK};
use crate::Program;
use crate::load;
use crate::sys::{self, RunRequest};
use enforcer_common::abi::Counter;
use enforcer_common::event::DnsOutcome;
use hickory_proto::rr::RecordType;
use std::os::fd::{AsFd, OwnedFd};

/// Threads that ask, each from a port of its own: enough that two processors ask at once some times of a hundred thousand.
const THREADS: u16 = 2;
/// Questions of each, as often as [`ROUNDS`].
const QUESTIONS: u16 = 512;
const ROUNDS: u64 = 200;

fn program(lab: &mut Lab, program: Program) -> OwnedFd {
    let loaded = load::classifier(&mut lab.dataplane.object, program.name()).expect("it is in the object");
    loaded.fd().expect("it is loaded").as_fd().try_clone_to_owned().expect("a descriptor")
}

/// Questions from a port, each with its answer.
fn exchanges(port: u16) -> Vec<[Vec<u8>; 2]> {
    let one = |id| {
        let asked = question(id, NAMED, RecordType::A);
        let told = answer(&asked, vec![record(NAMED, 60, address("203.0.113.1"))]);
        let query = plain(near(true), resolver(true), &udp(port, 53, &octets(&asked)));
        [query, plain(resolver(true), near(true), &udp(53, port, &octets(&told)))]
    };
    (0..QUESTIONS).map(one).collect()
}

#[test]
fn whatever_is_asked_at_once_is_remembered() {
    let mut lab = lab();
    let interface = lab.interface;
    let programs = [Program::FromWorkload, Program::ToWorkload].map(|which| program(&mut lab, which));
    lab.counters_moved();
    std::thread::scope(|scope| {
        for port in PORT..PORT + THREADS {
            let (programs, exchanges) = (&programs, exchanges(port));
            scope.spawn(move || {
                for exchange in (0..ROUNDS).flat_map(|_| &exchanges) {
                    for (program, packet) in programs.iter().zip(exchange) {
                        let request = RunRequest { packet, interface, segment: 0, repeat: 1 };
                        let (code, ..) = sys::run(program.as_fd(), &request).expect("it runs");
                        assert_eq!(code as i32, OK);
                    }
                }
            });
        }
    });
    let moved = lab.counters_moved();
    let count = |index| moved.get(&index).copied().unwrap_or(0);
    let told = |outcome| count(Counter::DnsAnswers as u32 + outcome as u32);
    let lost = [Counter::QuestionInsertFailed, Counter::LearnFailed].map(|counter| count(counter as u32));
    assert_eq!((lost, told(DnsOutcome::Unsolicited)), ([0, 0], 0), "{moved:?}");
    assert_eq!(told(DnsOutcome::Learned), u64::from(THREADS) * u64::from(QUESTIONS) * ROUNDS);
}
