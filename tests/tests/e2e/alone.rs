//! An API server with nobody around it, and one agent that follows it with its own account, as a process on a node of `Large`:
//! what would disturb every pod of a whole cluster is done here. API server, kernel and traffic are real. Owns the place and
//! what its stories share; they run one after the other, each with an agent of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use enforcer_core::protocol::Protocol;
use enforcer_tests::clock::Clock;
use enforcer_tests::kube::chart;
use enforcer_tests::probe::{Attempt, Greeters, probe};
use enforcer_tests::scale::{Large, Size, objects};
use enforcer_tests::{Agent, Outcome};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};

use super::is_asked_for;

mod definitions;
mod watches;

/// A story: its name, and what happens.
type Story = (&'static str, fn(&Alone) -> Result<()>);

const STORIES: &[&[Story]] = &[definitions::STORIES, watches::STORIES];
/// Two nodes of which one is real, with two pods: a server and a client.
pub(crate) const SIZE: Size = Size { nodes: 2, pods: 10, policies: 0, local: 2 };
/// What the server serves.
const PORTS: [u16; 4] = [80, 81, 82, 83];
/// How long something may take. Generous: it is waited out only by a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what is due has to happen.
const MOMENT: Duration = Duration::from_secs(6);
/// How long a denied connection is waited for.
const SILENCE: Duration = Duration::from_millis(400);
/// Name of the agent's account.
const ACCOUNT: &str = chart::RELEASE;

/// The place.
pub(crate) struct Alone {
    pub(crate) large: Large,
    clock: Clock,
    /// Seconds that the agent's clock is ahead.
    ahead: AtomicI64,
    token: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    _greeters: Greeters,
}

/// Runs those that are asked for; true when nothing failed.
pub(crate) fn run(arguments: &Arguments) -> bool {
    let name = |(name, _): &Story| format!("alone::{name}");
    let asked_for: Vec<Story> =
        STORIES.concat().into_iter().filter(|story| is_asked_for(arguments, &name(story))).collect();
    if asked_for.is_empty() || arguments.list {
        let nothing = asked_for.iter().map(|story| Trial::test(name(story), || Ok(())));
        return !libtest_mimic::run(arguments, nothing.collect()).has_failed();
    }
    let alone = match Alone::start() {
        Ok(alone) => Arc::new(alone),
        Err(error) => {
            eprintln!("the API server did not come up: {error:#}");
            return false;
        }
    };
    let trials = asked_for.iter().map(|story| {
        let (alone, happens) = (Arc::clone(&alone), story.1);
        Trial::test(name(story), move || happens(&alone).map_err(|error| format!("{error:#}").into()))
    });
    let arguments = Arguments { filter: None, ..arguments.clone() };
    !libtest_mimic::run(&arguments, trials.collect()).has_failed()
}

impl Alone {
    fn start() -> Result<Self> {
        let large = Large::start(SIZE)?;
        let token = large.directory().join("token");
        let clock = Clock::new(&large.directory().join("clock"), 0)?;
        let kubeconfig = large.account(&token)?;
        let server = objects::address(0).into();
        let greeters = PORTS.map(|port| (large.pod(0), Protocol::TCP, SocketAddr::new(server, port)));
        let _greeters = Greeters::serve(&greeters)?;
        let alone = Self { large, clock, ahead: AtomicI64::new(0), token, kubeconfig, _greeters };
        alone.give_token("first")?;
        Ok(alone)
    }

    /// The node's agent, with the rights of the product's account.
    pub(crate) fn agent(&self) -> Result<Agent<'_>> {
        self.large.agent_as(&self.kubeconfig, &[], &self.clock.environment())
    }

    /// Lets seconds of the agent's clock pass at once.
    pub(crate) fn leap(&self, seconds: i64) -> Result<()> {
        self.clock.set(self.ahead.fetch_add(seconds, Ordering::Relaxed) + seconds)
    }

    /// Puts a new token in place of the one before, as a kubelet does. It is worth something as long as the secret of this name
    /// is there.
    pub(crate) fn give_token(&self, secret: &str) -> Result<()> {
        let namespaced = ["--namespace", chart::NAMESPACE];
        self.large.kubectl(&[&namespaced[..], &["create", "secret", "generic", secret]].concat())?;
        let bound = ["--bound-object-kind=Secret", "--bound-object-name", secret];
        let token = self.large.kubectl(&[&namespaced[..], &["create", "token", ACCOUNT], &bound].concat())?;
        let next = self.token.with_extension("next");
        std::fs::write(&next, token.trim())?;
        Ok(std::fs::rename(&next, &self.token)?)
    }

    /// Makes the token worthless that was given with a secret.
    pub(crate) fn revoke(&self, secret: &str) -> Result<()> {
        self.large.kubectl(&["--namespace", chart::NAMESPACE, "delete", "secret", secret]).map(drop)
    }

    /// Waits until connections from the client to the server's ports succeed where it is `true`, and are denied elsewhere.
    pub(crate) fn awaits(&self, open: [bool; 4]) -> Result<()> {
        let begun = Instant::now();
        loop {
            let seen = self.ask()?;
            if seen == open {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{seen:?} after {PATIENCE:?}, not {open:?}");
        }
    }

    /// Which of the server's ports the client reaches now.
    pub(crate) fn ask(&self) -> Result<[bool; 4]> {
        let attempts = PORTS.map(|port| Attempt {
            namespace: self.large.pod(1),
            protocol: Protocol::TCP,
            port: 0,
            server: SocketAddr::new(objects::address(0).into(), port),
            patience: SILENCE,
        });
        let seen: Vec<bool> =
            probe(&attempts)?.iter().map(|seen| seen.outcome == Outcome::Connected).collect();
        Ok(seen.try_into().expect("as many as there are ports"))
    }

    /// Asks again and again while `work` goes on; `holds` must be true of every answer.
    pub(crate) fn never(
        &self,
        holds: impl Fn([bool; 4]) -> bool,
        work: impl FnOnce() -> Result<()> + Send,
    ) -> Result<()> {
        std::thread::scope(|scope| {
            let work = scope.spawn(work);
            while !work.is_finished() {
                let seen = self.ask()?;
                ensure!(holds(seen), "{seen:?} while it must not be");
            }
            work.join().expect("a thread of the story panicked")
        })
    }

    /// Waits until a problem has all of these words, or none has the first of them.
    pub(crate) fn problem(&self, agent: &Agent<'_>, words: &[&str], is_there: bool) -> Result<()> {
        self.problem_within(PATIENCE, agent, words, is_there)
    }

    /// As [`Self::problem`], for what happens after seconds of the agent's clock: it leaps until then.
    pub(crate) fn problem_later(
        &self,
        seconds: i64,
        agent: &Agent<'_>,
        words: &[&str],
        is_there: bool,
    ) -> Result<()> {
        let begun = Instant::now();
        loop {
            match self.problem_within(MOMENT, agent, words, is_there) {
                Err(_) if begun.elapsed() < PATIENCE => self.leap(seconds)?,
                waited => return waited,
            }
        }
    }

    /// As [`Self::problem`], no longer than `patience`.
    fn problem_within(
        &self,
        patience: Duration,
        agent: &Agent<'_>,
        words: &[&str],
        is_there: bool,
    ) -> Result<()> {
        let what = format!("a problem with {words:?}: {is_there}");
        let waited = agent.await_status(&what, patience, |status| {
            let problems = status["policy"]["problems"].to_string();
            Ok((words.iter().all(|word| problems.contains(word)) == is_there).then_some(()))
        });
        waited.with_context(|| agent.log().read(|lines| lines.join("\n")))
    }
}

/// A NetworkPolicy that admits these ports of every pod.
pub(crate) fn admits(name: &str, ports: &[u16]) -> Value {
    let ports: Vec<Value> = ports.iter().map(|port| json!({"protocol": "TCP", "port": port})).collect();
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": objects::namespace_name(0)},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]},
    })
}

/// A tier ahead of NetworkPolicies, and a SegmentPolicy in it that denies one port of every pod.
pub(crate) fn denies(port: u16) -> Value {
    let (api, namespace) = ("enforcer.dev/v1alpha1", objects::namespace_name(0));
    let rule = json!({"action": "Deny", "ports": [{"protocol": "TCP", "port": port}]});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": api, "kind": "Tier", "metadata": {"name": "early"},
            "spec": {"order": 500, "defaultAction": "Pass"}},
        {"apiVersion": api, "kind": "SegmentPolicy", "metadata": {"name": "never", "namespace": namespace},
            "spec": {"tier": "early", "subject": {}, "ingress": [rule]}},
    ]})
}
