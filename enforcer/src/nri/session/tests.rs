//! Conversations octet by octet, the runtime's side made of the same messages.

use super::*;
use crate::nri::wire::nri::{LinuxNamespace, LinuxPodSandbox};

/// What a plugin has sent, message by message.
fn said(session: &mut Session) -> Vec<Message> {
    let mut messages = Vec::new();
    frame::Reader::default().take(&session.sent(), &mut messages).expect("frames");
    messages
}

/// A call of the plugin's, as the runtime sends it.
fn call(stream: u32, method: &str, payload: Vec<u8>) -> Vec<u8> {
    let (service, method) = (PLUGIN_SERVICE.to_owned(), method.to_owned());
    let request = Request { service, method, payload, timeout_nano: 0 };
    framed(PLUGIN, stream, REQUEST, &request.encode_to_vec())
}

fn framed(connection: u32, stream: u32, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    frame::write(&mut octets, connection, stream, kind, data);
    octets
}

/// The status of a response on a stream, and what it holds.
fn response(message: &Message, stream: u32) -> (i32, String, Vec<u8>) {
    assert_eq!((message.connection, message.stream, message.kind), (PLUGIN, stream, RESPONSE));
    let Response { status, payload } = Response::decode(message.data.as_slice()).expect("a response");
    let status = status.unwrap_or_default();
    (status.code, status.message, payload)
}

fn told(namespaces: &[(&str, &str)]) -> PodSandbox {
    let namespaces = namespaces.iter().map(|(kind, path)| {
        let (r#type, path) = ((*kind).to_owned(), (*path).to_owned());
        LinuxNamespace { r#type, path }
    });
    let linux = Some(LinuxPodSandbox { namespaces: namespaces.collect() });
    let [name, uid, namespace] = ["p", "u", "n"].map(str::to_owned);
    PodSandbox { name, uid, namespace, linux, pid: 7 }
}

fn known(network: Option<&str>) -> Pod {
    let [name, uid, namespace] = ["p", "u", "n"].map(str::to_owned);
    let network = network.map(|path| Network { path: path.into(), process: 7 });
    Pod { namespace, name, uid, network }
}

fn new(pod: PodSandbox) -> Vec<u8> {
    RunPodSandboxRequest { pod: Some(pod) }.encode_to_vec()
}

/// A session whose registration is sent already.
fn registering() -> Session {
    let mut session = Session::new();
    session.sent();
    session
}

#[test]
fn the_registration_is_what_the_runtime_reads() {
    let octets = Session::new().sent();
    let service = b"nri.pkg.api.v1alpha1.Runtime";
    let own = b"\x0a\x08enforcer\x12\x0210";
    let request = [b"\x0a\x1c", &service[..], b"\x12\x0eRegisterPlugin\x1a\x0e", own].concat();
    let length = u8::try_from(request.len()).expect("short");
    let header = [0, 0, 0, 2, 0, 0, 0, length + 10, 0, 0, 0, length, 0, 0, 0, 1, 1, 0];
    assert_eq!(octets, [&header[..], &request].concat());
}

#[test]
fn a_runtime_configures_synchronises_and_asks() {
    let mut session = registering();
    let octets = framed(RUNTIME, 1, RESPONSE, &[]);
    assert_eq!(session.take(&octets), Ok(vec![Event::Registered]));

    let configure = ConfigureRequest {
        runtime_name: "containerd".to_owned(),
        runtime_version: "v2".to_owned(),
        request_timeout: 500,
    };
    let timeout = Duration::from_millis(500);
    let runtime = Runtime { name: "containerd".to_owned(), version: "v2".to_owned(), timeout };
    let events = session.take(&call(1, "Configure", configure.encode_to_vec()));
    assert_eq!(events, Ok(vec![Event::Configured(runtime)]));
    let answered = response(&said(&mut session)[0], 1);
    assert_eq!(answered, (0, String::new(), b"\x10\x01".to_vec()), "pods that are set up, and nothing else");

    let first = SynchronizeRequest { pods: vec![told(&[("network", "/run/netns/a")])], more: true };
    assert_eq!(session.take(&call(3, "Synchronize", first.encode_to_vec())), Ok(Vec::new()));
    assert_eq!(response(&said(&mut session)[0], 3).2, b"\x10\x01", "it listens to those that follow");
    let last = SynchronizeRequest { pods: vec![told(&[])], more: false };
    let events = session.take(&call(5, "Synchronize", last.encode_to_vec())).expect("pods");
    let [Event::Present(present, pods)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(*pods, [known(Some("/run/netns/a")), known(None)]);
    assert!(said(&mut session).is_empty(), "it is answered when the agent says so");
    session.answer(*present, Ok(()));
    assert_eq!(response(&said(&mut session)[0], 5), (0, String::new(), Vec::new()));

    let asked = call(7, "RunPodSandbox", new(told(&[("ipc", ""), ("network", "/run/netns/b")])));
    let events = session.take(&asked).expect("a pod");
    let [Event::New(new, pod)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((pod, new.timeout), (&known(Some("/run/netns/b")), timeout));
    session.answer(*new, Err("its policy is not in force"));
    let refused = (code::FAILED_PRECONDITION, "its policy is not in force".to_owned(), Vec::new());
    assert_eq!(response(&said(&mut session)[0], 7), refused);

    assert_eq!(session.take(&call(9, "Shutdown", Vec::new())), Ok(vec![Event::Shutdown]));
    assert_eq!(response(&said(&mut session)[0], 9).0, 0);
}

/// Before NRI 0.12 every event of a pod came by one method.
#[test]
fn older_runtimes_tell_of_changes() {
    let mut session = registering();
    let event = |event| StateChangeEvent { event, pod: Some(told(&[("network", "/run/netns/b")])) };
    let events = session.take(&call(1, "StateChange", event(1).encode_to_vec())).expect("a pod");
    assert!(matches!(&events[..], [Event::New(_, pod)] if *pod == known(Some("/run/netns/b"))), "{events:?}");
    assert_eq!(session.take(&call(3, "StateChange", event(2).encode_to_vec())), Ok(Vec::new()));
    let said = said(&mut session);
    assert_eq!((said.len(), response(&said[0], 3).0), (1, 0));
}

#[test]
fn the_caller_s_own_time_counts_where_it_is_shorter() {
    let mut session = registering();
    let mut timeout = |timeout_nano| {
        let (service, method) = (PLUGIN_SERVICE.to_owned(), "RunPodSandbox".to_owned());
        let request = Request { service, method, payload: new(told(&[])), timeout_nano };
        let events = session.take(&framed(PLUGIN, 1, REQUEST, &request.encode_to_vec())).expect("a pod");
        let [Event::New(call, pod)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(pod.network, None, "one of the host's network is nobody's");
        call.timeout
    };
    assert_eq!([0, -5, 9_000_000_000].map(&mut timeout), [TIMEOUT; 3]);
    assert_eq!(timeout(1_500_000_000), Duration::from_millis(1_500));
}

/// How a question is refused that cannot be answered.
fn refused(session: &mut Session, octets: &[u8]) -> (i32, String) {
    let events = session.take(octets).expect("it goes on");
    let [Event::Odd(reason)] = events.as_slice() else { panic!("{events:?}") };
    let (code, text, _) = response(&said(session)[0], 1);
    assert_eq!(text, *reason);
    (code, text)
}

#[test]
fn what_cannot_be_answered_is_refused_and_the_conversation_goes_on() {
    let mut all = registering();
    let session = &mut all;
    let (code, text) = refused(session, &call(1, "Meddle", Vec::new()));
    assert_eq!((code, text.as_str()), (code::UNIMPLEMENTED, "there is no method Meddle here"));
    let (code, text) = refused(session, &call(1, "RunPodSandbox", vec![0xff]));
    assert_eq!(code, code::INVALID_ARGUMENT);
    assert!(text.starts_with("a RunPodSandbox cannot be read: "), "{text}");
    let (code, text) = refused(session, &call(1, "RunPodSandbox", Vec::new()));
    assert_eq!((code, text.as_str()), (code::INVALID_ARGUMENT, "a pod that was set up is not named"));
    let (code, text) = refused(session, &framed(PLUGIN, 1, REQUEST, &[0x08]));
    assert_eq!(code, code::INVALID_ARGUMENT);
    assert!(text.starts_with("a request cannot be read: "), "{text}");
    let other = Request { service: "other".to_owned(), ..Request::default() };
    let (code, text) = refused(session, &framed(PLUGIN, 1, REQUEST, &other.encode_to_vec()));
    assert_eq!((code, text.as_str()), (code::UNIMPLEMENTED, "there is no service other here"));
    let mut stream = call(1, "RunPodSandbox", Vec::new());
    stream[17] = 1;
    assert_eq!(
        refused(session, &stream),
        (code::UNIMPLEMENTED, "RunPodSandbox is called as a stream".to_owned())
    );

    let events = session.take(&framed(PLUGIN, 4, 3, b"data")).expect("it goes on");
    let odd = "passed over a message of type 3 for stream 4 of connection 1";
    assert_eq!(events, [Event::Odd(odd.to_owned())]);
    let events = session.take(&call(1, "RunPodSandbox", new(told(&[])))).expect("a pod");
    assert!(matches!(events.as_slice(), [Event::New(..)]));
}

#[test]
fn what_waits_is_bounded() {
    let mut session = registering();
    let mut calls = Vec::new();
    for _ in 0..MAX_CALLS {
        let events = session.take(&call(1, "RunPodSandbox", new(told(&[])))).expect("a pod");
        let [Event::New(call, _)] = events.as_slice() else { panic!("{events:?}") };
        calls.push(*call);
    }
    let events = session.take(&call(1, "RunPodSandbox", new(told(&[])))).expect("it goes on");
    assert_eq!(events, [Event::Odd("64 calls wait for their answer already".to_owned())]);
    session.answer(calls[0], Ok(()));
    let events = session.take(&call(1, "RunPodSandbox", new(told(&[])))).expect("a pod");
    assert!(matches!(events.as_slice(), [Event::New(..)]));

    let pods = vec![told(&[]); MAX_PODS / 2 + 1];
    for more in [true, false] {
        let some = SynchronizeRequest { pods: pods.clone(), more }.encode_to_vec();
        session.answer(calls[1], Ok(()));
        let events = session.take(&call(3, "Synchronize", some)).expect("pods");
        let present = events.iter().map(|event| match event {
            Event::Present(_, pods) => pods.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(present.sum::<usize>(), if more { 0 } else { MAX_PODS });
    }

    session.answer(calls[2], Err(&"ö".repeat(9_000)));
    let longest = said(&mut session).pop().expect("an answer").data.len();
    assert!((1_800..4_000).contains(&longest), "{longest}");
}

#[test]
fn a_registration_may_be_refused_and_what_is_no_protocol_ends_it() {
    let status = Status { code: 2, message: "invalid plugin name".to_owned() };
    let refused = Response { status: Some(status), payload: Vec::new() }.encode_to_vec();
    let error = registering().take(&framed(RUNTIME, 1, RESPONSE, &refused)).expect_err("refused");
    assert_eq!(error.to_string(), "the runtime refuses the plugin 10-enforcer: invalid plugin name");
    let error = registering().take(&framed(RUNTIME, 1, RESPONSE, &[0x0f])).expect_err("broken");
    assert!(matches!(error, SessionError::Registration(_)), "{error}");
    let error = registering().take(b"HTTP/1.1 400 Bad Request\r\n").expect_err("another protocol");
    assert_eq!(error, SessionError::Frame(FrameError::Connection(u32::from_be_bytes(*b"HTTP"))));
}
