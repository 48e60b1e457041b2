//! The reader on hellos of real clients, however they are cut, and beside an independent parser on generated and
//! broken ones.

use super::{Fault, Hello, MAX_HELLO, step};
use crate::packet::Octets;
use proptest::collection::vec;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::sample::Index;
use tls_parser::{SNIType, TlsExtension, TlsMessage, TlsMessageHandshake};
use tls_parser::{parse_tls_client_hello_extensions, parse_tls_message_handshake};

/// Hellos as OpenSSL 3.0 and Go 1.26 sent them; those of Go offer a post-quantum key share.
const REAL: [(&[u8], Outcome<&str>); 5] = [
    (include_bytes!("hellos/openssl-tls12.bin"), Ok(Some("www.example.org"))),
    (include_bytes!("hellos/openssl-tls13.bin"), Ok(Some("www.example.org"))),
    (include_bytes!("hellos/go-post-quantum.bin"), Ok(Some("api.example.com"))),
    (include_bytes!("hellos/go-long.bin"), Ok(Some("a-long.name.with.capitals.example.com"))),
    (include_bytes!("hellos/go-no-name.bin"), Err(Fault::NoName)),
];

/// The name, `None` while the hello is not whole.
type Outcome<T> = Result<Option<T>, Fault>;

struct Bytes<'a>(&'a [u8]);

impl Octets for Bytes<'_> {
    fn length(&self) -> u32 {
        self.0.len() as u32
    }
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        self.0.get(at as usize..at as usize + N)?.try_into().ok()
    }
}

/// Reads on: true once the hello is whole; nothing behind its end is looked at.
fn read_on(hello: &mut Hello, piece: &[u8]) -> Result<bool, Fault> {
    let mut at = 0;
    while at < piece.len() as u32 && !hello.is_read() {
        at += step(hello, &Bytes(piece), at, piece.len() as u32 - at)?;
    }
    Ok(hello.is_read())
}

/// The name of a hello that comes in these pieces; `None` while it is not whole.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome<String> {
    let mut hello = Hello::at(0);
    for piece in pieces {
        if read_on(&mut hello, piece)? {
            let name = hello.event.name().expect("it is no longer than a name may be");
            return Ok(Some(name.iter().copied().map(char::from).collect()));
        }
    }
    Ok(None)
}

fn expected(outcome: Outcome<&str>) -> Outcome<String> {
    outcome.map(|name| name.map(str::to_owned))
}

/// A handshake message in records of at most these lengths, the last one for all that is left.
fn in_records(message: &[u8], lengths: &[usize]) -> Vec<u8> {
    let mut rest = message;
    let mut out = Vec::new();
    let mut lengths = lengths.iter().copied().chain(std::iter::repeat(1 << 14));
    while !rest.is_empty() {
        let (record, behind) = rest.split_at(lengths.next().expect("without end").clamp(1, rest.len()));
        out.extend([22, 3, 1, (record.len() >> 8) as u8, record.len() as u8]);
        out.extend(record);
        rest = behind;
    }
    out
}

/// A length of `octets` octets in front of something.
fn sized(octets: usize, content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes()[4 - octets..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, content)].concat()
}

fn names(entries: &[(u8, &str)]) -> Vec<u8> {
    let entry = |(kind, name): &(u8, &str)| [&[*kind][..], &sized(2, name.as_bytes())].concat();
    extension(0, &sized(2, &entries.iter().flat_map(entry).collect::<Vec<_>>()))
}

/// The message of a hello with these extensions.
fn message(session: &[u8], ciphers: &[u8], extensions: &[u8]) -> Vec<u8> {
    let body =
        [&[3, 3][..], &[7; 32], &sized(1, session), &sized(2, ciphers), &[1, 0], &sized(2, extensions)]
            .concat();
    [&[1][..], &sized(3, &body)].concat()
}

fn of_extensions(extensions: &[u8]) -> Outcome<String> {
    read([&in_records(&message(&[], &[0x13, 1], extensions), &[])[..]])
}

#[test]
fn hellos_of_real_clients_are_read_wherever_they_are_cut() {
    for (hello, outcome) in REAL {
        assert_eq!(read([hello]), expected(outcome));
        for (at, _) in hello.iter().enumerate() {
            let (first, second) = hello.split_at(at);
            assert_eq!(read([first, second]), expected(outcome), "cut at {at}");
            // That a hello names no server is known before its end.
            assert!(matches!(read([first]), Ok(None) | Err(Fault::NoName)), "the first {at} octets");
        }
        assert_eq!(read(hello.chunks(1)), expected(outcome));
        let both = [hello, b"what follows is not looked at"].concat();
        assert_eq!(read([&both[..]]), expected(outcome));
    }
    assert!(REAL.iter().any(|(hello, _)| hello.len() > 1_800));
}

#[test]
fn what_is_wrong_is_told_apart() {
    let name = names(&[(0, "a.example")]);
    assert_eq!(of_extensions(&name), Ok(Some("a.example".into())));
    for extensions in [
        [&name[..], &name].concat(),
        names(&[(0, "a.example"), (0, "b.example")]),
        names(&[(1, "a.example")]),
        names(&[(0, "")]),
        names(&[]),
        extension(0, &[]),
        extension(0, &[&names(&[(0, "a.example")])[4..], &[0]].concat()),
        names(&[(0, "a..example")]),
        names(&[(0, ".example")]),
        names(&[(0, "a.example.")]),
        names(&[(0, "a.example\0.b.example")]),
        names(&[(0, "m\u{fc}nchen.example")]),
        names(&[(0, "a/example")]),
        names(&[(0, &"a".repeat(254))]),
        extension(5, &[0; 3])[..5].to_vec(),
    ] {
        assert_eq!(of_extensions(&extensions), Err(Fault::NotTls), "{extensions:?}");
    }
    assert_eq!(of_extensions(&extension(16, b"h2")), Err(Fault::NoName));
    let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
    assert_eq!(of_extensions(&names(&[(0, &longest)])), Ok(Some(longest)));
    assert_eq!(read([&b"GET / HTTP/1.1\r\n"[..]]), Err(Fault::NotTls));
    assert_eq!(read([&b"SSH-2.0-OpenSSH"[..]]), Err(Fault::NotTls));
    assert_eq!(read([&[22, 3, 1, 0, 0][..]]), Err(Fault::NotTls), "a record without octets");
    assert_eq!(read([&[22, 2, 0, 0, 4, 1][..]]), Err(Fault::NotTls), "no such version");
    let bare = [&[1, 0, 0, 41, 3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    assert_eq!(read([&in_records(&bare, &[])[..]]), Err(Fault::NoName), "without extensions");
}

#[test]
fn a_hello_is_read_up_to_its_longest() {
    let long = |octets: usize| {
        let name = names(&[(0, "a.example")]);
        let padding = octets - message(&[], &[0x13, 1], &name).len() - 4;
        [extension(21, &vec![0; padding]), name].concat()
    };
    // Its own header of four octets does not count.
    assert_eq!(of_extensions(&long(MAX_HELLO as usize + 4)), Ok(Some("a.example".into())));
    assert_eq!(of_extensions(&long(MAX_HELLO as usize + 5)), Err(Fault::TooLong));
}

/// What `tls-parser` makes of a message: the name, or why there is none. What is no host name is this reader's own.
fn by_oracle(message: &[u8]) -> Outcome<String> {
    let Ok((behind, TlsMessage::Handshake(TlsMessageHandshake::ClientHello(hello)))) =
        parse_tls_message_handshake(message)
    else {
        return Err(Fault::NotTls);
    };
    if !behind.is_empty() {
        return Err(Fault::NotTls);
    }
    let Some(extensions) = hello.ext else { return Err(Fault::NoName) };
    let Ok((behind, extensions)) = parse_tls_client_hello_extensions(extensions) else {
        return Err(Fault::NotTls);
    };
    if !behind.is_empty() {
        return Err(Fault::NotTls);
    }
    let lists = extensions.into_iter().filter_map(|extension| match extension {
        TlsExtension::SNI(names) => Some(names),
        _ => None,
    });
    match &lists.collect::<Vec<_>>()[..] {
        [] => Err(Fault::NoName),
        [names] => match names[..] {
            [(SNIType::HostName, name)] => Ok(Some(String::from_utf8_lossy(name).into_owned())),
            _ => Err(Fault::NotTls),
        },
        _ => Err(Fault::NotTls),
    }
}

fn host_name() -> impl Strategy<Value = String> {
    vec("[a-z0-9_-]{1,20}", 1..6).prop_map(|labels| labels.join("."))
}

/// An extension; now and then the server's name. Types that the other parser reads any further are left out.
fn any_extension() -> impl Strategy<Value = Vec<u8>> {
    let other =
        (600_u16..60_000, vec(any::<u8>(), 0..400)).prop_map(|(kind, content)| extension(kind, &content));
    let name = host_name().prop_map(|name| names(&[(0, &name)]));
    prop_oneof![4 => other, 1 => name]
}

/// A message with a name somewhere, or none, or two.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let session = prop_oneof![Just(Vec::new()), vec(any::<u8>(), 32..33)];
    let ciphers = vec(any::<[u8; 2]>(), 1..40).prop_map(|ciphers| ciphers.concat());
    (session, ciphers, vec(any_extension(), 0..12))
        .prop_map(|(session, ciphers, extensions)| message(&session, &ciphers, &extensions.concat()))
}

fn cut(octets: &[u8], at: &[Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = at.iter().map(|index| index.index(octets.len() + 1)).collect();
    places.extend([0, octets.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| octets[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_hellos_are_read_as_an_independent_parser_reads_them(
        message in any_message(),
        records in vec(1_usize..600, 0..8),
        places in vec(any::<Index>(), 0..6),
    ) {
        let octets = in_records(&message, &records);
        let pieces = cut(&octets, &places);
        prop_assert_eq!(read(pieces.iter().map(Vec::as_slice)), by_oracle(&message));
    }

    #[test]
    fn a_broken_hello_is_read_the_same_however_it_is_cut(
        which in 0..REAL.len(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        places in vec(any::<Index>(), 0..6),
    ) {
        let mut octets = REAL[which].0.to_vec();
        for (index, octet) in &changes {
            let at = index.index(octets.len());
            octets[at] = *octet;
        }
        let whole = read([&octets[..]]);
        prop_assert_eq!(read(cut(&octets, &places).iter().map(Vec::as_slice)), whole.clone());
        // Where it is read, so does the other parser, unless it refuses what this one passes over.
        if let (Ok(Some(name)), Ok(Some(other))) = (&whole, by_oracle_if_one_record(&octets)) {
            prop_assert_eq!(name, &other);
        }
        prop_assert!(whole != Err(Fault::TooLong) || octets[6..9] > [0, 0x40, 0][..]);
    }

    #[test]
    fn octets_of_any_kind_end_somehow(octets in vec(any::<u8>(), 0..3_000)) {
        let framed = in_records(&octets, &[700]);
        prop_assert!(!matches!(read([&framed[..]]), Ok(Some(name)) if name.is_empty()));
    }
}

/// As [`by_oracle`], for a hello that lies in one record.
fn by_oracle_if_one_record(octets: &[u8]) -> Outcome<String> {
    let length = usize::from(octets[3]) << 8 | usize::from(octets[4]);
    if length + 5 != octets.len() {
        return Ok(None);
    }
    by_oracle(&octets[5..]).map(|name| name.map(|name| name.to_ascii_lowercase()))
}
