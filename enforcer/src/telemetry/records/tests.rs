//! One stream of several rings, over bounds, gaps and ends.

use enforcer_common::verdict::Verdict;
use enforcer_core::record::dns::Outcome;

use super::*;
use crate::testing::{query, record};

/// Records named by kind and number, as they come.
fn names(batch: &[Item]) -> Vec<String> {
    let name = |item: &Item| match item {
        Item::Flow(record) => format!("flow {}", record.revision),
        Item::Dns(query) => format!("dns {}", query.facts.learned),
    };
    batch.iter().map(name).collect()
}

fn write(writer: &Writer, names: &[&str]) {
    for name in names {
        match name.split_once(' ').expect("kind and number") {
            (kind @ ("flow" | "passed"), number) => writer.flow(record(|r| {
                r.revision = number.parse().expect("a number");
                r.verdict = if kind == "passed" { Verdict::Forwarded } else { Verdict::Denied };
            })),
            (kind, number) => {
                let query = query(|q| {
                    q.facts.learned = number.parse().expect("a number");
                    q.facts.outcome = if kind == "refused" { Outcome::Refused } else { Outcome::Learned };
                });
                writer.dns(query.facts, &query.message);
            }
        }
    }
}

fn read(reader: &mut Reader, limit: usize) -> (Vec<String>, Numbers) {
    let mut batch = Vec::new();
    let missed = reader.read(limit, &mut batch);
    (names(&batch), missed)
}

const NONE: Numbers = numbers(0, 0);

/// Flows are refused in these tests unless they say that they passed, queries answered.
const fn numbers(refused: u64, answered: u64) -> Numbers {
    Numbers { flows: Count { passed: 0, refused }, dns: Count { passed: answered, refused: 0 } }
}

#[test]
fn both_kinds_come_in_the_order_in_which_they_were_written() {
    let writer = bounded(8, 8, 1000);
    write(&writer, &["flow 1", "dns 1", "dns 2", "flow 2", "dns 3"]);
    let reader = |kinds| writer.records().reader(Consumer::Observer, kinds, NONE);
    let mut all = reader(Kinds::ALL);
    assert_eq!(read(&mut all, 3), (["flow 1", "dns 1", "dns 2"].map(String::from).to_vec(), NONE));
    assert_eq!(read(&mut all, 3), (["flow 2", "dns 3"].map(String::from).to_vec(), NONE));
    assert_eq!(read(&mut all, 3), (vec![], NONE));
    assert_eq!(all.place(), writer.records().end());
    assert_eq!(read(&mut reader(Kinds::FLOWS), 9).0, ["flow 1", "flow 2"]);
    assert_eq!(read(&mut reader(Kinds::DNS), 9).0, ["dns 1", "dns 2", "dns 3"]);
}

#[test]
fn what_was_overwritten_is_told_to_the_last_and_counted_for_its_consumer() {
    let writer = bounded(2, 1, 1000);
    let mut slow = writer.records().reader(Consumer::Export, Kinds::ALL, NONE);
    let mut flows = writer.records().reader(Consumer::Socket, Kinds::FLOWS, NONE);
    write(&writer, &["flow 1", "dns 1", "dns 2", "flow 2", "flow 3", "dns 3", "flow 4", "flow 5"]);
    let missed = numbers(3, 2);
    assert_eq!(read(&mut slow, 9), (["dns 3", "flow 4", "flow 5"].map(String::from).to_vec(), missed));
    assert_eq!(read(&mut flows, 1), (vec!["flow 4".to_owned()], numbers(3, 0)));
    assert_eq!(Consumer::ALL.map(|consumer| writer.records().missed(consumer)), [3, 0, 5]);
    assert_eq!(writer.records().start(), numbers(3, 2));
}

#[test]
fn no_flood_of_what_passes_pushes_a_refusal_out() {
    let writer = bounded(2, 2, 1000);
    let mut slow = writer.records().reader(Consumer::Export, Kinds::ALL, NONE);
    write(&writer, &["flow 1", "refused 1", "passed 2", "dns 2", "flow 3"]);
    for number in 4..100 {
        write(&writer, &[&format!("passed {number}"), &format!("dns {number}")]);
    }
    let kept = ["flow 1", "dns 1", "flow 3", "flow 98", "dns 98", "flow 99", "dns 99"];
    let missed = Numbers { flows: Count { passed: 95, refused: 0 }, dns: Count { passed: 95, refused: 0 } };
    assert_eq!(read(&mut slow, 9), (kept.map(String::from).to_vec(), missed));
    assert_eq!(slow.place(), writer.records().end());
    let latest = writer.records().latest(slow.place(), Kinds::FLOWS, 3, |_| true);
    assert_eq!(latest.flows, Count { passed: 95, refused: 1 }, "the one before the two that passed");
    write(&writer, &["flow 100", "flow 101", "refused 100"]);
    let passed_too = ["dns 1", "flow 98", "dns 98", "flow 99", "dns 99", "flow 100", "flow 101", "dns 100"];
    let mut others = writer.records().reader(Consumer::Export, Kinds::ALL, writer.records().start());
    assert_eq!(
        read(&mut others, 9),
        (passed_too.map(String::from).to_vec(), NONE),
        "refusals push refusals out"
    );
}

#[test]
fn the_oldest_queries_make_room_for_octets_and_for_numbers() {
    let writer = bounded(1, 3, 100);
    let lengths = || {
        let mut batch = Vec::new();
        writer.records().copy(&mut NONE.clone(), Kinds::DNS, 9, &mut batch);
        let length = |item: &Item| match item {
            Item::Dns(query) => query.message.len(),
            Item::Flow(_) => panic!("no flow was written"),
        };
        (batch.iter().map(length).collect::<Vec<_>>(), writer.records().lock().dns.passed.octets())
    };
    let push = |length| writer.dns(query(|_| ()).facts, &vec![0; length]);
    [10, 20, 30, 40].into_iter().for_each(push);
    assert_eq!(lengths(), (vec![20, 30, 40], 90));
    push(60);
    assert_eq!(lengths(), (vec![40, 60], 100));
    push(4096);
    assert_eq!(lengths(), (vec![], 0), "larger than all there is room for");
    assert_eq!(writer.records().end(), numbers(0, 6));
}

#[test]
fn the_latest_that_are_wanted_are_found_from_behind() {
    let writer = bounded(100, 200, 1000);
    for number in 0..100 {
        write(&writer, &[&format!("flow {number}"), &format!("dns {number}"), &format!("dns {number}")]);
    }
    let (records, end) = (writer.records(), writer.records().end());
    let latest = |kinds, last, wanted: fn(&Item) -> bool| records.latest(end, kinds, last, wanted);
    assert_eq!(latest(Kinds::ALL, 0, |_| true), end);
    assert_eq!(latest(Kinds::ALL, 4, |_| true), numbers(99, 197));
    assert_eq!(latest(Kinds::FLOWS, 7, |_| true), numbers(93, 200));
    let is_tenth = |item: &Item| matches!(item, Item::Flow(record) if record.revision % 10 == 0);
    assert_eq!(latest(Kinds::ALL, 3, is_tenth), numbers(70, 140));
    assert_eq!(latest(Kinds::ALL, 99, is_tenth), NONE);
}

#[test]
fn a_reader_is_woken_once_a_publication_and_ends_with_the_writer() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut writer = bounded(8, 8, 1000);
        let mut reader = writer.records().reader(Consumer::Export, Kinds::ALL, NONE);
        let (heard, mut told) = tokio::sync::mpsc::unbounded_channel();
        let reading = tokio::spawn(async move {
            let mut batch = Vec::new();
            while let Some(missed) = reader.next(8, &mut batch).await {
                heard.send((names(&batch), missed)).expect("the test listens");
                batch.clear();
            }
        });
        tokio::task::yield_now().await;
        write(&writer, &["flow 1", "dns 1"]);
        tokio::task::yield_now().await;
        assert!(told.try_recv().is_err(), "nothing was published");
        writer.publish();
        assert_eq!(told.recv().await, Some((["flow 1", "dns 1"].map(String::from).to_vec(), NONE)));
        write(&writer, &["flow 2"]);
        writer.close();
        assert_eq!(told.recv().await, Some((vec!["flow 2".to_owned()], NONE)), "what was not published yet");
        assert_eq!(told.recv().await, None);
        reading.await.expect("no panic");
    });
}

#[test]
fn readers_on_other_threads_get_or_miss_every_record() {
    let mut writer = bounded(64, 64, 1000);
    let count = |mut reader: Reader| {
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(async {
                let (mut batch, mut seen) = (Vec::new(), 0);
                while let Some(missed) = reader.next(16, &mut batch).await {
                    seen += missed.sum() + batch.len() as u64;
                    batch.clear();
                }
                seen
            })
        })
    };
    let readers = [Kinds::ALL, Kinds::FLOWS, Kinds::DNS]
        .map(|kinds| count(writer.records().reader(Consumer::Observer, kinds, NONE)));
    for _ in 0..2_000 {
        write(&writer, &["flow 1", "dns 1", "flow 2"]);
        writer.publish();
    }
    writer.close();
    let seen = readers.map(|reader| reader.join().expect("no panic"));
    assert_eq!(seen, [6_000, 4_000, 2_000]);
}
