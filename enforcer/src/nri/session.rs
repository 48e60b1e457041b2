//! One conversation with a runtime: the plugin registers, is configured, hears of the pods that are there, and is asked about
//! each that is new. Owns what is answered to what; octets come in, events and octets go out. Who is asked for a pod's policy,
//! and when time is up, is the agent's.
//!
//! States: registering (the runtime has not answered yet), registered (it has; it configures and synchronises, and asks).

use std::path::PathBuf;
use std::time::Duration;

use prost::Message as _;

use super::frame::{self, FrameError, Message, PLUGIN, REQUEST, RESPONSE, RUNTIME};
use super::wire::nri::{
    ConfigureRequest, ConfigureResponse, PodSandbox, RegisterPluginRequest, RunPodSandboxRequest,
    StateChangeEvent, SynchronizeRequest, SynchronizeResponse,
};
use super::wire::ttrpc::{Request, Response, Status};
use super::{INDEX, NAME};

/// Services of the protocol.
const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
/// The event of a pod that was set up; bit 0 of those that are wanted.
const RUN_POD_SANDBOX: i32 = 1;
/// How long an answer may take where the runtime does not say.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The plugin's only call.
const REGISTRATION: u32 = 1;
/// Calls that may be under way at once.
pub const MAX_CALLS: usize = 64;
/// Pods that a runtime may have when the plugin comes: more than any node has.
pub const MAX_PODS: usize = 4_096;
/// Characters of an error's text: the runtime reads a frame into 4,096 octets.
const MAX_TEXT: usize = 900;

/// Codes of gRPC.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const UNIMPLEMENTED: i32 = 12;
}

/// A pod that the runtime tells of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its network namespace; `None` where it has none of its own, or is no pod of a cluster.
    pub network: Option<Network>,
}

/// Where a pod's network namespace is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    /// Its file; empty where only processes hold it.
    pub path: PathBuf,
    /// A process in it; 0 where none is known.
    pub process: u32,
}

/// A runtime, as it introduces itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Runtime {
    /// What it is called.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// A question under way, for [`Session::answer`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    stream: u32,
    /// When the runtime stops waiting, from now on.
    pub timeout: Duration,
}

/// What has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The runtime has taken the plugin.
    Registered,
    /// It has said who it is.
    Configured(Runtime),
    /// These pods are there. From the answer on it asks about those that are new.
    Present(Call, Vec<Pod>),
    /// This one is new: its network is there, and none of its containers is started before the answer.
    New(Call, Pod),
    /// Something was passed over, or answered with an error.
    Odd(String),
    /// The runtime ends.
    Shutdown,
}

/// Why a conversation cannot go on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SessionError {
    /// What came cannot be read.
    #[error("what the runtime says is not NRI's protocol")]
    Frame(#[from] FrameError),
    /// The runtime does not want the plugin.
    #[error("the runtime refuses the plugin {INDEX}-{NAME}: {0}")]
    Refused(String),
    /// The registration's answer is none.
    #[error("the runtime's answer to the registration cannot be read")]
    Registration(#[source] prost::DecodeError),
}

/// A conversation.
#[derive(Debug)]
pub struct Session {
    reader: frame::Reader,
    /// How long an answer may take, as the runtime was configured.
    timeout: Duration,
    /// Pods of which the runtime has told, while it goes on telling.
    present: Vec<Pod>,
    /// Calls that are not answered yet.
    calls: usize,
    /// What is to be sent.
    out: Vec<u8>,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// One that begins with its registration.
    pub fn new() -> Self {
        let (reader, present) = Default::default();
        let mut session = Self { reader, timeout: TIMEOUT, present, calls: 0, out: Vec::new() };
        let own = RegisterPluginRequest { plugin_name: NAME.to_owned(), plugin_idx: INDEX.to_owned() };
        let request = Request {
            service: RUNTIME_SERVICE.to_owned(),
            method: "RegisterPlugin".to_owned(),
            payload: own.encode_to_vec(),
            timeout_nano: 0,
        };
        frame::write(&mut session.out, RUNTIME, REGISTRATION, REQUEST, &request.encode_to_vec());
        session
    }

    /// What is to be sent; it is forgotten here.
    pub fn sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// When the conversation cannot go on; the connection is to be given up.
    pub fn take(&mut self, octets: &[u8]) -> Result<Vec<Event>, SessionError> {
        let mut messages = Vec::new();
        let read = self.reader.take(octets, &mut messages);
        let mut events = Vec::new();
        for message in messages {
            match (message.connection, message.kind) {
                (PLUGIN, REQUEST) => events.extend(self.asked(&message)),
                (RUNTIME, RESPONSE) if message.stream == REGISTRATION => {
                    events.push(registered(&message.data)?);
                }
                (connection, kind) => events.push(Event::Odd(format!(
                    "passed over a message of type {kind} for stream {} of connection {connection}",
                    message.stream
                ))),
            }
        }
        read?;
        Ok(events)
    }

    /// Answers a question: the pod may start, or why it may not.
    pub fn answer(&mut self, call: Call, answer: Result<(), &str>) {
        self.calls = self.calls.saturating_sub(1);
        match answer {
            Ok(()) => self.respond(call.stream, Ok(Vec::new())),
            Err(reason) => self.respond(call.stream, Err((code::FAILED_PRECONDITION, reason))),
        }
    }

    fn asked(&mut self, message: &Message) -> Option<Event> {
        let result = match Request::decode(message.data.as_slice()) {
            Ok(request) if message.flags == 0 && message.stream % 2 == 1 => {
                self.call(message.stream, &request)
            }
            Ok(request) => Err((code::UNIMPLEMENTED, format!("{} is called as a stream", request.method))),
            Err(error) => Err((code::INVALID_ARGUMENT, format!("a request cannot be read: {error}"))),
        };
        match result {
            Ok(event) => event,
            Err((code, reason)) => {
                self.respond(message.stream, Err((code, &reason)));
                Some(Event::Odd(reason))
            }
        }
    }

    /// Does what is asked, or keeps it for [`Self::answer`].
    fn call(&mut self, stream: u32, request: &Request) -> Result<Option<Event>, (i32, String)> {
        let Request { service, method, payload, timeout_nano } = request;
        let broken = |error| (code::INVALID_ARGUMENT, format!("a {method} cannot be read: {error}"));
        if service != PLUGIN_SERVICE {
            return Err((code::UNIMPLEMENTED, format!("there is no service {service} here")));
        }
        match method.as_str() {
            "Configure" => {
                let told = ConfigureRequest::decode(payload.as_slice()).map_err(broken)?;
                let wanted = ConfigureResponse { events: 1 << (RUN_POD_SANDBOX - 1) };
                self.respond(stream, Ok(wanted.encode_to_vec()));
                Ok(Some(Event::Configured(self.configured(told))))
            }
            "Synchronize" => {
                let told = SynchronizeRequest::decode(payload.as_slice()).map_err(broken)?;
                self.present.extend(told.pods.into_iter().map(pod));
                self.present.truncate(MAX_PODS);
                if told.more {
                    self.respond(stream, Ok(SynchronizeResponse { more: true }.encode_to_vec()));
                    return Ok(None);
                }
                let call = self.begin(stream, *timeout_nano)?;
                Ok(Some(Event::Present(call, std::mem::take(&mut self.present))))
            }
            "RunPodSandbox" => {
                let told = RunPodSandboxRequest::decode(payload.as_slice()).map_err(broken)?;
                self.new_pod(stream, *timeout_nano, told.pod).map(Some)
            }
            "StateChange" => {
                let told = StateChangeEvent::decode(payload.as_slice()).map_err(broken)?;
                if told.event == RUN_POD_SANDBOX {
                    return self.new_pod(stream, *timeout_nano, told.pod).map(Some);
                }
                self.respond(stream, Ok(Vec::new()));
                Ok(None)
            }
            "Shutdown" => {
                self.respond(stream, Ok(Vec::new()));
                Ok(Some(Event::Shutdown))
            }
            other => Err((code::UNIMPLEMENTED, format!("there is no method {other} here"))),
        }
    }

    fn configured(&mut self, told: ConfigureRequest) -> Runtime {
        let configured = u64::try_from(told.request_timeout).ok().filter(|milliseconds| *milliseconds > 0);
        self.timeout = configured.map_or(TIMEOUT, Duration::from_millis);
        Runtime { name: told.runtime_name, version: told.runtime_version, timeout: self.timeout }
    }

    fn new_pod(
        &mut self,
        stream: u32,
        timeout: i64,
        told: Option<PodSandbox>,
    ) -> Result<Event, (i32, String)> {
        let missing = || (code::INVALID_ARGUMENT, "a pod that was set up is not named".to_owned());
        let pod = pod(told.ok_or_else(missing)?);
        Ok(Event::New(self.begin(stream, timeout)?, pod))
    }

    /// A call that is answered later. `timeout` is what is left of its time, nanoseconds; 0 where that is not said.
    fn begin(&mut self, stream: u32, timeout: i64) -> Result<Call, (i32, String)> {
        if self.calls == MAX_CALLS {
            return Err((
                code::RESOURCE_EXHAUSTED,
                format!("{MAX_CALLS} calls wait for their answer already"),
            ));
        }
        self.calls += 1;
        let left = u64::try_from(timeout).ok().filter(|left| *left > 0).map(Duration::from_nanos);
        Ok(Call { stream, timeout: left.map_or(self.timeout, |left| left.min(self.timeout)) })
    }

    fn respond(&mut self, stream: u32, response: Result<Vec<u8>, (i32, &str)>) {
        let response = match response {
            Ok(payload) => Response { status: None, payload },
            Err((code, text)) => {
                let message = text.chars().take(MAX_TEXT).collect();
                Response { status: Some(Status { code, message }), payload: Vec::new() }
            }
        };
        frame::write(&mut self.out, PLUGIN, stream, RESPONSE, &response.encode_to_vec());
    }
}

/// What the runtime says to the registration.
fn registered(data: &[u8]) -> Result<Event, SessionError> {
    let response = Response::decode(data).map_err(SessionError::Registration)?;
    match response.status.filter(|status| status.code != 0) {
        Some(status) => Err(SessionError::Refused(status.message)),
        None => Ok(Event::Registered),
    }
}

fn pod(told: PodSandbox) -> Pod {
    let PodSandbox { name, uid, namespace, linux, pid } = told;
    let own = linux.into_iter().flat_map(|linux| linux.namespaces).find(|own| own.r#type == "network");
    let is_of_cluster = !(namespace.is_empty() || name.is_empty() || uid.is_empty());
    let network = own.filter(|_| is_of_cluster).map(|own| Network { path: own.path.into(), process: pid });
    Pod { namespace, name, uid, network }
}

#[cfg(test)]
mod tests;
