//! The spool over agents' lives, at its bounds, and damaged.

use tempfile::TempDir;

use super::*;

/// An hour's spool of so many octets.
fn options(directory: &TempDir, octets: u64) -> Options {
    Options { directory: directory.path().join("spool"), octets, age: Duration::from_secs(3600) }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// A batch of so many records of what passed that take so many octets.
fn batch(records: u32, octets: usize) -> Batch {
    Batch { payload: vec![records as u8; octets].into(), records, has_passed: true }
}

/// The same of refusals.
fn refused(records: u32, octets: usize) -> Batch {
    Batch { has_passed: false, ..batch(records, octets) }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

/// Everything in it, oldest first.
fn drain(spool: &mut Spool, now: Timestamp) -> Vec<Batch> {
    let mut all = Vec::new();
    while let Some(batch) = spool.first(now).expect("it is read") {
        all.push(batch);
        spool.forget().expect("it is forgotten");
    }
    all
}

fn files(options: &Options) -> usize {
    segment::numbers(&options.directory).expect("a directory").len()
}

#[test]
fn what_one_agent_did_not_deliver_the_next_one_does() {
    let directory = directory();
    let options = options(&directory, 1 << 20);
    let mut spool = Spool::open(&options).expect("a spool");
    for records in 1..=4 {
        spool.append(&batch(records, 40_000), at(0)).expect("it is written");
    }
    assert_eq!(spool.first(at(1)).expect("it is read"), Some(batch(1, 40_000)));
    spool.forget().expect("it is forgotten");
    let (records, octets) = (spool.records(), spool.octets());
    assert!(Spool::open(&options).is_err(), "one process at a time");
    drop(spool);
    let mut spool = Spool::open(&options).expect("a spool");
    assert_eq!((spool.records(), octets), (records, 3 * 40_032), "counted as before");
    assert_eq!(records, 9);
    spool.append(&batch(5, 10), at(0)).expect("it is written");
    let all = [batch(2, 40_000), batch(3, 40_000), batch(4, 40_000), batch(5, 10)];
    assert_eq!(drain(&mut spool, at(1)), all);
    assert_eq!((spool.is_empty(), spool.octets(), files(&options)), (true, 0, 0));
    assert_eq!(spool.take_gone(), Gone::default());
}

#[test]
fn the_oldest_make_room_and_are_counted() {
    let directory = directory();
    let options = options(&directory, 200_000);
    let mut spool = Spool::open(&options).expect("a spool");
    // A segment of 64 KiB has room for two.
    for records in 1..=9 {
        spool.append(&batch(records, 30_000), at(0)).expect("it is written");
        assert!(spool.octets() <= options.octets);
    }
    spool.append(&batch(100, 200_000), at(0)).expect("it is refused");
    assert_eq!(
        spool.take_gone(),
        Gone { dropped: 1 + 2 + 3 + 4 + 100, ..Gone::default() },
        "larger than all"
    );
    let left: u64 = drain(&mut spool, at(0)).iter().map(|batch| u64::from(batch.records)).sum();
    assert_eq!(left, 5 + 6 + 7 + 8 + 9);
}

#[test]
fn what_passed_makes_room_before_any_refusal() {
    let directory = directory();
    let options = options(&directory, 200_000);
    let mut spool = Spool::open(&options).expect("a spool");
    let append = |spool: &mut Spool, batch: Batch| {
        spool.append(&batch, at(0)).expect("it is written");
        assert!(spool.octets() <= options.octets);
        let there: u64 = spool.segments.iter().map(|segment| segment.octets).sum();
        assert_eq!(spool.octets(), there);
    };
    // Two to a segment: the first gives up its passed one, the second goes whole, then the third's.
    for one in [refused(1, 30_000), batch(2, 30_000), batch(4, 30_000), batch(8, 30_000), batch(16, 30_000)] {
        append(&mut spool, one);
    }
    assert_eq!(spool.first(at(0)).expect("it is read"), Some(refused(1, 30_000)), "it is under way");
    append(&mut spool, refused(32, 30_000));
    append(&mut spool, refused(64, 30_000));
    assert_eq!(spool.take_gone(), Gone { dropped: 2, ..Gone::default() });
    assert!(spool.is_lent(), "it is still under way");
    spool.keep();
    append(&mut spool, refused(128, 30_000));
    assert_eq!(spool.take_gone(), Gone { dropped: 4 + 8, ..Gone::default() });
    append(&mut spool, batch(3, 30_000));
    append(&mut spool, refused(5, 60_000));
    assert_eq!(spool.take_gone(), Gone { dropped: 16 + 3, ..Gone::default() });
    append(&mut spool, batch(7, 60_000));
    assert_eq!(spool.take_gone(), Gone { dropped: 7, ..Gone::default() }, "there are only refusals");
    // Another agent finds the same.
    drop(spool);
    fs::write(segment::unfinished(&options.directory, 9), "half").expect("it is written");
    let mut spool = Spool::open(&options).expect("a spool");
    assert!(!segment::unfinished(&options.directory, 9).exists());
    spool.append(&refused(9, 60_000), at(0)).expect("it is written");
    assert_eq!(spool.take_gone(), Gone { dropped: 1 + 32, ..Gone::default() }, "refusals for refusals");
    let left: Vec<u32> = drain(&mut spool, at(0)).iter().map(|batch| batch.records).collect();
    assert_eq!(left, [64, 128, 5, 9]);
}

#[test]
fn a_batch_under_way_that_passed_is_the_borrower_s_when_it_makes_room() {
    let directory = directory();
    let options = options(&directory, 100_000);
    let mut spool = Spool::open(&options).expect("a spool");
    spool.append(&batch(1, 30_000), at(0)).expect("it is written");
    spool.append(&refused(2, 30_000), at(0)).expect("it is written");
    assert_eq!(spool.first(at(0)).expect("it is read"), Some(batch(1, 30_000)));
    spool.append(&refused(4, 60_000), at(0)).expect("it is written");
    assert_eq!((spool.is_lent(), spool.take_gone(), spool.records()), (false, Gone::default(), 6));
    assert_eq!(drain(&mut spool, at(0)), [refused(2, 30_000), refused(4, 60_000)]);
}

#[test]
fn what_is_too_old_is_dropped_and_counted() {
    let directory = directory();
    let options = options(&directory, 1 << 20);
    let mut spool = Spool::open(&options).expect("a spool");
    for (records, second) in [(1, 0), (2, 10), (4, 20)] {
        spool.append(&batch(records, 10), at(second)).expect("it is written");
    }
    assert_eq!(drain(&mut spool, at(3611)), [batch(4, 10)]);
    assert_eq!(spool.take_gone(), Gone { expired: 3, ..Gone::default() });
}

#[test]
fn a_torn_tail_is_left_out_and_counted() {
    for (cut, damaged) in [(5, 2), (35, 1), (42, 0)] {
        let directory = directory();
        let options = options(&directory, 1 << 20);
        let mut spool = Spool::open(&options).expect("a spool");
        spool.append(&batch(1, 10), at(0)).expect("it is written");
        spool.append(&batch(2, 10), at(0)).expect("it is written");
        drop(spool);
        let file =
            OpenOptions::new().write(true).open(segment::path(&options.directory, 1)).expect("a segment");
        file.set_len(84 - cut).expect("it is cut");
        let mut spool = Spool::open(&options).expect("a spool");
        assert_eq!(spool.take_gone(), Gone { damaged, ..Gone::default() }, "cut by {cut}");
        spool.append(&batch(3, 10), at(0)).expect("it is written");
        assert_eq!(drain(&mut spool, at(0)), [batch(1, 10), batch(3, 10)]);
    }
}

#[test]
fn a_damaged_payload_and_a_lost_file_are_counted() {
    let directory = directory();
    let options = options(&directory, 1 << 20);
    let mut spool = Spool::open(&options).expect("a spool");
    for records in 1..=3 {
        spool.append(&batch(records, 30_000), at(0)).expect("it is written");
    }
    let file = OpenOptions::new().write(true).open(segment::path(&options.directory, 1)).expect("a segment");
    file.write_all_at(b"x", 500).expect("it is damaged");
    fs::remove_file(segment::path(&options.directory, 2)).expect("it is removed");
    assert_eq!(drain(&mut spool, at(0)), [batch(2, 30_000)]);
    assert_eq!(spool.take_gone(), Gone { damaged: 1 + 3, ..Gone::default() });
}

#[test]
fn the_delivered_part_of_a_segment_is_not_delivered_again() {
    let directory = directory();
    let options = options(&directory, 1 << 20);
    let mut spool = Spool::open(&options).expect("a spool");
    for records in 1..=3 {
        spool.append(&batch(records, 10), at(0)).expect("it is written");
    }
    for _ in 0..2 {
        spool.first(at(0)).expect("it is read");
        spool.forget().expect("it is forgotten");
    }
    drop(spool);
    let mut spool = Spool::open(&options).expect("a spool");
    assert_eq!(drain(&mut spool, at(0)), [batch(3, 10)]);
    assert_eq!(spool.take_gone(), Gone::default());
}
