//! Fuzzing of the programs' DNS reader: messages kept in `tests/fuzz/corpus/dns`, then mutations of them, are read by the
//! programs and by an independent library, and both must come to the same; [`agree`] says where they differ on purpose.
//!
//! An input is new when what came of it, told by its [`agree::Reading`], never came of another. New inputs are mutated
//! further, so that a run walks into the reader by itself; no engine could see into the kernel for it. With
//! `ENFORCER_FUZZ_KEEP` those that are not even like another are added to the corpus. `ENFORCER_FUZZ_RUNS` inputs are tried, `ENFORCER_TEST_SEED` repeats
//! those of another run; `cargo xtask fuzz` has flags for all three.

mod agree;
mod mutate;

use super::dns::{NAMED, PORT, lab, names, resolver, tell, workload_asks};
use super::messages::{self, octets, question};
use super::shapes::{plain, udp};
use super::state::near;
use super::{Lab, OK, REDIRECT, SHOT, queries, seed};
use agree::Reading;
use enforcer_common::event::DnsOutcome;
use enforcer_common::policy::Mode;
use hickory_proto::rr::RecordType;
use proptest::test_runner::{RngAlgorithm, TestRng};
use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Inputs of a run when nothing else is said.
const RUNS: u32 = 4_000;
/// Longest message: a packet of a test run has little more room.
const LONGEST: usize = 3_000;

/// A message that is being read; shown when that fails.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.0.iter().map(|octet| format!("{octet:02x}")).collect();
            println!("the message was {hex}");
        }
    }
}

/// Reads the corpus and as many mutations as are wanted. `kind` tells the readings of one reader from the other's.
fn drive(kind: &str, mut read: impl FnMut(&[u8]) -> Vec<Reading>) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus/dns");
    let mut corpus = stored(&directory);
    let mut seen = BTreeSet::new();
    for message in &corpus {
        let _shown = Shown(message);
        seen.extend(read(message));
    }
    let keep = std::env::var_os("ENFORCER_FUZZ_KEEP").is_some();
    let runs = std::env::var("ENFORCER_FUZZ_RUNS").map_or(RUNS, |text| text.parse().expect("a number"));
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&seed().to_le_bytes());
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &octets);
    let (known, begun) = (seen.len(), corpus.len());
    for _ in 0..runs {
        let message = mutate::mutated(&corpus, &mut random);
        let _shown = Shown(&message);
        let readings = read(&message);
        let is_worth_keeping =
            readings.iter().any(|reading| !seen.iter().any(|known| known.is_like(reading)));
        if keep && is_worth_keeping {
            fs::write(directory.join(file_name(&message)), &message).expect("the corpus can be written");
        }
        if readings.into_iter().map(|reading| seen.insert(reading)).fold(false, |any, new| any | new) {
            corpus.push(message.clone());
        }
    }
    println!("{kind}: {begun} kept messages, {runs} mutations, {} new readings", seen.len() - known);
}

/// The corpus, in the order of names.
fn stored(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).expect("there is a corpus");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    let corpus: Vec<_> = files.iter().map(|file| fs::read(file).expect("it can be read")).collect();
    assert!(!corpus.is_empty(), "{} is empty", directory.display());
    corpus
}

/// A name that says nothing but which octets they are.
fn file_name(message: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    message.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Puts a message through the programs as the answer to `asked`, and compares.
fn answer_to(lab: &mut Lab, asked: &[u8], message: &[u8]) -> Reading {
    lab.forget_learned();
    super::forget_questions(lab);
    workload_asks(lab, asked);
    let became = tell(lab, message).expect("it is an answer of a resolver");
    let name = messages::name_of(asked).expect("it was written by the library or read before");
    let class = names().automaton.class_of(&name);
    let (mut outcome, mut given) = messages::read(asked, message);
    if outcome == DnsOutcome::Learned && class == 0 {
        (outcome, given) = (DnsOutcome::Nothing, Vec::new());
    }
    assert_eq!(became, outcome);
    super::dns::assert_learned(lab, &given, class);
    agree::on_answer(asked, message, (outcome, class != 0, given))
}

#[test]
fn fuzzed_answers_are_worth_what_the_library_says() {
    let mut lab = lab();
    let unrelated = octets(&question(7, NAMED, RecordType::A));
    drive("answers", |message| {
        let mut readings = vec![answer_to(&mut lab, &unrelated, message)];
        if let Some(own) = messages::question_of(message) {
            readings.push(answer_to(&mut lab, &own, message));
        }
        readings
    });
}

#[test]
fn fuzzed_queries_are_let_go_refused_or_dropped_as_the_library_says() {
    let mut lab = queries::lab(Mode::Enforce);
    let classes = names().automaton;
    drive("queries", |message| {
        // A query is what has no response bit; most of the corpus has.
        let mut message = message.to_vec();
        if let Some(flags) = message.get_mut(2) {
            *flags &= 0x7f;
        }
        let code = lab.code(true, &plain(near(true), resolver(true), &udp(PORT, 53, &message)));
        let is_listed = |name: &str| classes.class_of(name) == classes.class_of(NAMED);
        let expected = match messages::name_of(&message).filter(|_| message[2] & 0x78 == 0) {
            Some(name) if is_listed(&name) => OK,
            Some(_) => REDIRECT,
            None => SHOT,
        };
        assert_eq!(code, expected);
        vec![agree::on_query(&message, code != SHOT)]
    });
}
