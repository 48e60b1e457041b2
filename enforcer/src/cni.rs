//! `enforcer cni`: the last plugin of a chain. It tells the agent where a new pod was set up and returns once policy is in
//! force at its interface, before any process of the pod has started. Owns the waiting and what happens when nobody
//! answers; never touches the kernel or an interface.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rscni_plugin::cni::{Cni, Plugin};
use rscni_plugin::error::Error;
use rscni_plugin::types::{Args, CNIResult, NetConf};
use serde::{Deserialize, Serialize};

use crate::api::client;
use crate::api::{AttachRequest, DEFAULT_SOCKET, Request, Response};

pub mod install;

/// Name of the plugin: of its file, and `type` in network configurations.
pub const NAME: &str = "enforcer-cni";
/// Between two questions to the agent.
const INTERVAL: Duration = Duration::from_millis(10);
/// How long a pod waits for its policy unless the configuration says otherwise, seconds.
const PATIENCE: u64 = 20;

/// What becomes of a pod whose policy cannot be brought into force in time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailurePolicy {
    /// It does not start; the kubelet tries again.
    #[default]
    Closed,
    /// It starts, and is enforced as soon as the agent finds it.
    Open,
}

/// The plugin's part of a network configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Settings {
    socket: PathBuf,
    failure_policy: FailurePolicy,
    patience: Duration,
}

/// A pod, as the runtime names it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Pod {
    namespace: String,
    name: String,
    uid: String,
}

/// True when this program was started as the plugin.
pub fn is_plugin(program: Option<&Path>) -> bool {
    program.and_then(Path::file_name).is_some_and(|name| name == NAME)
}

/// Runs the plugin: request and answer are the environment's and the standard streams'.
///
/// # Errors
/// When the request is none, or policy is not in force in time; the runtime was told already.
pub fn run() -> Result<(), String> {
    let about = format!("enforcer {}: policy before a pod's first packet", env!("CARGO_PKG_VERSION"));
    Plugin::default().msg(&about).run(&Chained).map_err(|error| error.to_string())
}

struct Chained;

impl Cni for Chained {
    fn add(&self, args: Args) -> Result<CNIResult, Error> {
        let result = args.config().prev_result.clone().ok_or_else(|| {
            let reason =
                format!("{NAME} changes nothing by itself: put it behind the plugin that connects the pod");
            Error::InvalidNetworkConfig(reason)
        })?;
        let settings = settings(args.config())?;
        match enforced(&args, &settings) {
            Err(reason) if settings.failure_policy == FailurePolicy::Closed => {
                Err(Error::TryAgainLater(reason))
            }
            Err(reason) => {
                eprintln!("{NAME}: {reason}; the pod starts without policy, as failurePolicy says");
                Ok(result)
            }
            Ok(()) => Ok(result),
        }
    }

    /// The agent sees pods go by itself.
    fn del(&self, _: Args) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, args: Args) -> Result<(), Error> {
        enforced(&args, &settings(args.config())?).map_err(Error::TryAgainLater)
    }

    fn status(&self, args: Args) -> Result<(), Error> {
        let settings = settings(args.config())?;
        let answer = client::ask(&settings.socket, Request::Status);
        match answer {
            Err(error) if settings.failure_policy == FailurePolicy::Closed => {
                Err(Error::PluginNotAvailable(error.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn gc(&self, _: Args) -> Result<(), Error> {
        Ok(())
    }
}

/// Waits until the pod of these arguments is enforced. What is no pod is nobody's.
fn enforced(args: &Args, settings: &Settings) -> Result<(), String> {
    let Some(pod) = pod(args.args().unwrap_or_default()) else { return Ok(()) };
    let (Some(sandbox), Some(interface)) = (args.netns(), args.ifname()) else {
        return Err(format!("{}/{} has no network namespace", pod.namespace, pod.name));
    };
    let request = AttachRequest {
        namespace: pod.namespace,
        name: pod.name,
        uid: pod.uid,
        sandbox: sandbox.clone(),
        interface: interface.to_string(),
    };
    wait(&request, settings)
}

/// Asks until the agent says that policy is in force, or time is up.
fn wait(request: &AttachRequest, settings: &Settings) -> Result<(), String> {
    let deadline = Instant::now() + settings.patience;
    loop {
        let reason = match ask(request, &settings.socket) {
            Ok(None) => return Ok(()),
            Ok(Some(reason)) => reason,
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            let AttachRequest { namespace, name, .. } = request;
            let waited = settings.patience.as_secs();
            return Err(format!("policy of {namespace}/{name} is not in force after {waited} s: {reason}"));
        }
        thread::sleep(INTERVAL);
    }
}

/// Why the pod is not enforced yet; nothing once it is.
fn ask(request: &AttachRequest, socket: &Path) -> Result<Option<String>, client::Error> {
    let mut answer = client::ask(socket, Request::Attach(request.clone()))?;
    let mut waiting = Some("the agent did not say".to_owned());
    while let Some(line) = answer.line()? {
        if let Response::Attach(attached) = line {
            waiting = attached.waiting;
        }
    }
    Ok(waiting)
}

fn settings(config: &NetConf) -> Result<Settings, Error> {
    fn field<T: for<'a> Deserialize<'a>>(
        custom: &HashMap<String, serde_json::Value>,
        name: &str,
    ) -> Result<Option<T>, Error> {
        let Some(value) = custom.get(name) else { return Ok(None) };
        let read = serde_json::from_value(value.clone());
        read.map(Some).map_err(|error| Error::InvalidNetworkConfig(format!("{NAME}: {name}: {error}")))
    }
    let custom = &config.custom;
    Ok(Settings {
        socket: field(custom, "socket")?.unwrap_or_else(|| DEFAULT_SOCKET.into()),
        failure_policy: field(custom, "failurePolicy")?.unwrap_or_default(),
        patience: Duration::from_secs(field(custom, "timeoutSeconds")?.unwrap_or(PATIENCE)),
    })
}

/// The pod of `K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=c`.
fn pod(args: &str) -> Option<Pod> {
    let values: HashMap<&str, &str> = args.split(';').filter_map(|pair| pair.split_once('=')).collect();
    let value = |key: &str| values.get(key).map(|value| (*value).to_owned());
    Some(Pod {
        namespace: value("K8S_POD_NAMESPACE")?,
        name: value("K8S_POD_NAME")?,
        uid: value("K8S_POD_UID")?,
    })
}

#[cfg(test)]
mod tests {
    use rscni_plugin::test_util::ArgsBuilder;

    use super::*;

    const ARGS: &str =
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=n;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u";

    fn args(plugin: &str, with_result: bool) -> Args {
        let result = r#","prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.5/32"}]}"#;
        let result = if with_result { result } else { "" };
        let config = format!(
            r#"{{"cniVersion":"1.0.0","name":"pods","type":"enforcer-cni","socket":"/nowhere/socket","timeoutSeconds":0{plugin}{result}}}"#
        );
        let args = ArgsBuilder::new().container_id("c").expect("an id").netns("/run/netns/p");
        let args = args.ifname("eth0").expect("a name").args(ARGS);
        args.config(&config).expect("a configuration").build().expect("arguments")
    }

    #[test]
    fn without_an_agent_a_pod_does_not_start_unless_the_configuration_says_so() {
        let error = Chained.add(args("", true)).expect_err("closed");
        let Error::TryAgainLater(reason) = error else { panic!("{error:?}") };
        assert!(
            reason.contains("policy of n/p is not in force after 0 s: failed to reach the agent"),
            "{reason}"
        );
        let open = Chained.add(args(r#","failurePolicy":"open""#, true)).expect("open");
        assert_eq!(open.ips.len(), 1, "what the plugins before made is handed on");
    }

    #[test]
    fn a_configuration_that_cannot_be_meant_is_refused() {
        let alone = Chained.add(args("", false)).expect_err("nothing before it");
        assert!(matches!(alone, Error::InvalidNetworkConfig(_)), "{alone:?}");
        let error = Chained.add(args(r#","failurePolicy":"ajar""#, true)).expect_err("no such policy");
        let Error::InvalidNetworkConfig(reason) = error else { panic!("{error:?}") };
        assert!(reason.starts_with("enforcer-cni: failurePolicy: unknown variant"), "{reason}");
    }

    #[test]
    fn a_pod_is_named_by_the_runtime() {
        let text = |text: &str| text.to_owned();
        assert_eq!(pod(ARGS), Some(Pod { namespace: text("n"), name: text("p"), uid: text("u") }));
        assert_eq!(pod("IgnoreUnknown=1"), None);
        assert!(is_plugin(Some(Path::new("/opt/cni/bin/enforcer-cni"))));
        assert!(!is_plugin(Some(Path::new("/usr/bin/enforcer"))));
    }
}
