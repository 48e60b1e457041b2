//! An exporter from the ring to a server and back: what arrives, and that every record is accounted for.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;

use super::super::records::{Writer, records};
use super::*;
use crate::testing::record;

/// Takes one datagram.
type Receive = Box<dyn Fn(&mut [u8]) -> io::Result<usize>>;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn syslog(server: &str, spool: Option<&tempfile::TempDir>) -> Options {
    let server = server.parse().expect("a server");
    let spool = spool.map(|directory| spool::Options {
        directory: directory.path().join("spool"),
        octets: 1 << 20,
        age: Duration::from_secs(3600),
    });
    Options { target: Target::Syslog { server, content: Content::Json }, tls: Files::default(), spool }
}

/// Writes flow records whose revisions are those.
fn write(writer: &Writer, revisions: std::ops::Range<u32>) {
    revisions.for_each(|revision| writer.flow(record(|r| r.revision = revision)));
    writer.publish();
}

/// Revisions in syslog messages of JSON.
fn revision(message: &[u8]) -> u32 {
    let start = message.iter().position(|octet| *octet == b'{').expect("JSON");
    let record: enforcer_core::record::Record = serde_json::from_slice(&message[start..]).expect("a record");
    record.revision
}

/// Revisions in everything that a stream carries until it ends.
fn revisions(stream: impl Read) -> Vec<u32> {
    let mut all = Vec::new();
    BufReader::new(stream).read_to_end(&mut all).expect("octets");
    batch::messages(&all).map(revision).collect()
}

fn counted(exporter: &Exporter) -> (BTreeMap<String, u64>, u64) {
    let status = exporter.status();
    (status.records, status.waiting)
}

/// What was lost, where anything was.
fn lost(exporter: &Exporter) -> Vec<(String, u64)> {
    exporter.losses().filter(|(_, count)| *count > 0).collect()
}

fn places(places: &[(&str, u64)]) -> BTreeMap<String, u64> {
    places.iter().map(|(place, count)| ((*place).to_owned(), *count)).collect()
}

#[test]
fn datagrams_carry_one_record_each() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let unix = UnixDatagram::bind(&path).expect("a socket");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let servers = [format!("unix:{}", path.display()), format!("udp://{}", udp.local_addr().expect("bound"))];
    let receivers: [Receive; 2] =
        [Box::new(move |buffer| unix.recv(buffer)), Box::new(move |buffer| udp.recv(buffer))];
    for (server, receive) in servers.into_iter().zip(receivers) {
        let mut writer = records(100);
        let exporter = Exporter::start(&syslog(&server, None), writer.records(), "n").expect("it starts");
        write(&writer, 0..20);
        writer.close();
        let mut buffer = [0; 4096];
        let mut next = || receive(&mut buffer).map(|length| revision(&buffer[..length])).expect("a datagram");
        assert_eq!((0..20).map(|_| next()).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>(), "{server}");
        assert!(exporter.wait(PATIENCE));
        assert_eq!(counted(&exporter), (places(&[("read", 20), ("delivered", 20)]), 0), "{server}");
    }
}

#[test]
fn what_nobody_takes_waits_in_the_spool_for_the_next_agent() {
    let directory = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let options = syslog(&format!("tcp://{address}"), Some(&directory));

    let mut writer = records(100);
    let exporter = Exporter::start(&options, writer.records(), "n").expect("it starts");
    write(&writer, 0..30);
    writer.close();
    assert!(exporter.wait(PATIENCE));
    assert_eq!(counted(&exporter), (places(&[("read", 30)]), 30));
    assert!(exporter.status().away.is_some() && exporter.status().spooled_octets > Some(0));
    assert_eq!(lost(&exporter), []);

    let listener = TcpListener::bind(address).expect("the port again");
    let mut writer = records(100);
    let exporter = Exporter::start(&options, writer.records(), "n").expect("it starts");
    write(&writer, 30..40);
    let server = thread::spawn(move || revisions(listener.accept().expect("a connection").0));
    writer.close();
    assert!(exporter.wait(PATIENCE));
    assert_eq!(counted(&exporter), (places(&[("found", 30), ("read", 10), ("delivered", 40)]), 0));
    drop(exporter);
    assert_eq!(server.join().expect("no panic"), (0..40).collect::<Vec<_>>());
}

#[test]
fn without_a_spool_what_nobody_takes_is_counted_at_the_end() {
    let mut writer = records(8);
    write(&writer, 0..30);
    let exporter =
        Exporter::start(&syslog("tcp://127.0.0.1:1", None), writer.records(), "n").expect("it starts");
    writer.close();
    assert!(exporter.wait(PATIENCE));
    let (records, waiting) = counted(&exporter);
    assert_eq!((records, waiting), (places(&[("missed", 22), ("read", 8), ("unsent", 8)]), 0));
    assert_eq!(lost(&exporter), [("syslog-unsent".to_owned(), 8)]);
    assert_eq!(writer.records().missed(Consumer::Export), 22);
}

/// Takes one request over HTTP, answers it, and returns its payload.
fn answer_one(listener: &TcpListener, answer: &str) -> Vec<u8> {
    let (stream, _) = listener.accept().expect("a connection");
    let mut reader = BufReader::new(&stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a head");
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().expect("a number");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).expect("a payload");
    write!(&stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").expect("it is heard");
    payload
}

#[test]
fn what_a_collector_has_no_room_for_now_is_sent_again_as_it_was() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let target = Target::Otlp {
        collector: url.parse().expect("a collector"),
        protocol: Protocol::Http,
        headers: Vec::new(),
        is_compressed: false,
    };
    let mut writer = records(100);
    write(&writer, 0..30);
    let options = Options { target, tls: Files::default(), spool: None };
    let exporter = Exporter::start(&options, writer.records(), "n").expect("it starts");
    let answers = ["429 Too Many Requests\r\nRetry-After: 0", "503 Service Unavailable", "200 OK"];
    let payloads = answers.map(|answer| answer_one(&listener, answer));
    assert!(!payloads[0].is_empty() && payloads[1..].iter().all(|payload| *payload == payloads[0]));
    writer.close();
    assert!(exporter.wait(PATIENCE));
    assert_eq!(counted(&exporter), (places(&[("read", 30), ("delivered", 30)]), 0));
    assert_eq!((exporter.status().retries, exporter.status().away), (2, None));
}

#[test]
fn far_behind_refusals_are_worth_more() {
    let mut writer = records(8_192);
    // 8,192 that passed, and 2,731 others.
    for revision in 0..10_923 {
        writer.flow(record(|r| {
            r.revision = revision;
            if revision % 4 != 0 {
                r.verdict = enforcer_common::verdict::Verdict::Forwarded;
            }
        }));
    }
    let exporter =
        Exporter::start(&syslog("tcp://127.0.0.1:1", None), writer.records(), "n").expect("it starts");
    writer.close();
    assert!(exporter.wait(PATIENCE));
    let (records, _) = counted(&exporter);
    // Behind by more than three quarters of the ring while the first 2,048 are read; not behind any more after that.
    assert_eq!(records, places(&[("read", 10_923), ("shed", 2 * 768), ("unsent", 10_923 - 2 * 768)]));
}
