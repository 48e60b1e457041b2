//! What is wrong, told as Events where `kubectl describe` and `kubectl get events` show it: of the node by its own agent, of an
//! object by the agent that writes conditions. Owns how often; what is wrong is found elsewhere.
//!
//! A report is told once it has stood for a while, so that what passes by itself is not told, and again at intervals
//! as long as it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enforcer_common::name::{HASH_START, hash_step};
use enforcer_core::refusal::{ObjectRef, Refusal};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::DynamicObject;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use tokio::time::{Instant, timeout};

use crate::index::Index;
use crate::kinds::{Watched, kind_of, resource};
use crate::status::Verdicts;
use crate::trouble::Trouble;

/// Who reports, as Events name it.
const CONTROLLER: &str = "enforcer.dev/agent";
/// How long a report must have stood.
const STANDING: Duration = Duration::from_secs(5);
/// Time between two Events of the same report.
const AGAIN: Duration = Duration::from_secs(3600);
/// Time between two attempts to write one.
const RETRY: Duration = Duration::from_secs(60);
/// Most Events of one round; a round is a second at least. What is left comes with the next ones.
const AT_ONCE: usize = 5;
/// Most octets of a note that the API takes.
const NOTE: usize = 1024;
/// How long the last words of an agent that cannot start may take.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Report {
    /// The object it is wrong with; this node where there is none.
    pub object: Option<ObjectRef>,
    /// One word for it, in the manner of Kubernetes.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub note: String,
}

/// When a report that stands is to be told, and whether it was told before.
struct Standing {
    due: Instant,
    is_told: bool,
}

/// Tells reports.
pub(crate) struct Events {
    client: Client,
    node: String,
    recorder: Recorder,
    standing: BTreeMap<Report, Standing>,
}

impl Events {
    /// Those of the agent of `node`.
    pub(crate) fn new(client: &Client, node: &str) -> Self {
        let reporter = Reporter { controller: CONTROLLER.to_owned(), instance: Some(node.to_owned()) };
        let recorder = Recorder::new(client.clone(), reporter);
        Self { client: client.clone(), node: node.to_owned(), recorder, standing: BTreeMap::new() }
    }

    /// Tells what is wrong now and was not told lately.
    pub(crate) async fn round(&mut self, wrong: BTreeSet<Report>) {
        let now = Instant::now();
        self.standing.retain(|report, _| wrong.contains(report));
        for report in wrong {
            self.standing.entry(report).or_insert(Standing { due: now + STANDING, is_told: false });
        }
        let due: Vec<Report> = due(&self.standing, now).take(AT_ONCE).cloned().collect();
        for report in due {
            let told = self.tell(&report).await;
            if let Err(error) = &told {
                tracing::warn!(%error, reason = report.reason, "failed to write an Event");
            }
            if let Some(standing) = self.standing.get_mut(&report) {
                standing.due = now + if told.is_ok() { AGAIN } else { RETRY };
                standing.is_told |= told.is_ok();
            }
        }
    }

    async fn tell(&self, report: &Report) -> kube::Result<()> {
        let Some(regarding) = self.regarding(report).await? else { return Ok(()) };
        self.recorder.publish(&event(report), &regarding).await
    }

    /// What a report is about; nothing when it went meanwhile.
    async fn regarding(&self, report: &Report) -> kube::Result<Option<ObjectReference>> {
        let Some(object) = &report.object else {
            // As the kubelet names a node in Events.
            let (name, uid) = (Some(self.node.clone()), Some(self.node.clone()));
            let kind = Some("Node".to_owned());
            return Ok(Some(ObjectReference { kind, name, uid, ..ObjectReference::default() }));
        };
        let Some(kind) = kind_of(&object.kind) else { return Ok(None) };
        let resource = resource(kind);
        let objects: Api<DynamicObject> = match &object.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let there = objects.get_opt(&object.name).await?;
        Ok(there.map(|there| ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: there.metadata.namespace,
            name: there.metadata.name,
            uid: there.metadata.uid,
            ..ObjectReference::default()
        }))
    }
}

/// Tells at once why an agent does not start, as far as the API server lets it.
pub async fn last_words(client: &Client, node: &str, note: String) {
    let events = Events::new(client, node);
    let report = Report { object: None, reason: "AgentNotStarted", note };
    match timeout(LAST_WORDS, events.tell(&report)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "failed to write an Event"),
        Err(_) => tracing::warn!("failed to write an Event: the API server does not answer"),
    }
}

/// What is wrong with following the API server, with this node and, where this agent writes for all of them, with objects.
pub(crate) fn reports(index: &Index, verdicts: &Verdicts, is_writer: bool) -> BTreeSet<Report> {
    let mut all: BTreeSet<Report> =
        index.troubles().filter_map(|(kind, trouble)| troubled(kind, trouble)).collect();
    let node = |(reason, note): &(&'static str, String)| Report { object: None, reason, note: note.clone() };
    all.extend(verdicts.node.iter().map(node));
    let failure = |failure: &String| Report {
        object: None,
        reason: "PolicyNotInForce",
        note: format!("{failure}; what was in force before stays"),
    };
    all.extend(verdicts.failure.iter().map(failure));
    if is_writer {
        let found = index.objects().iter().filter(|(_, entry)| !entry.refusals.is_empty());
        let found = found.map(|(object, entry)| refused(object, &entry.refusals));
        all.extend(found.chain(verdicts.refused.iter().map(|(object, refusals)| refused(object, refusals))));
    }
    all
}

/// The report of a kind that cannot be followed; none while the server is away, which it could not be told.
fn troubled(kind: Watched, trouble: &Trouble) -> Option<Report> {
    let reason = match trouble {
        Trouble::Absent => "DefinitionMissing",
        Trouble::Forbidden(_) => "AccessDenied",
        Trouble::OtherVersion(_) | Trouble::Older(_) => "DefinitionOfAnotherVersion",
        Trouble::Away(_) | Trouble::Unauthenticated(_) => return None,
    };
    let (what, remedy) = trouble.told(kind);
    Some(Report { object: None, reason, note: format!("{what}; {remedy}") })
}

fn refused(object: &ObjectRef, refusals: &[Refusal]) -> Report {
    let fields: Vec<String> = refusals.iter().map(Refusal::told).collect();
    let note = format!("{}; what was in force of it stays until it is corrected", fields.join("; "));
    Report { object: Some(object.clone()), reason: "Refused", note }
}

/// Reports that are to be told, those that were never told first.
fn due(standing: &BTreeMap<Report, Standing>, now: Instant) -> impl Iterator<Item = &Report> {
    let of = move |is_new: bool| {
        let those = standing.iter().filter(move |(_, of)| of.is_told != is_new && of.due <= now);
        those.map(|(report, _)| report)
    };
    of(true).chain(of(false))
}

fn event(report: &Report) -> Event {
    let end = (0..=NOTE.min(report.note.len())).rev().find(|end| report.note.is_char_boundary(*end));
    let note = report.note[..end.unwrap_or_default()].to_owned();
    // Events are one series when all but the note is the same: this tells different notes apart.
    let number = report.note.bytes().fold(HASH_START, hash_step);
    Event {
        type_: EventType::Warning,
        reason: report.reason.to_owned(),
        note: Some(note),
        action: format!("Enforce-{number:016x}"),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use enforcer_core::manifest::Kind;

    fn report(note: &str) -> Report {
        Report { object: None, reason: "Refused", note: note.to_owned() }
    }

    #[test]
    fn what_is_due_is_told_and_what_is_new_comes_first() {
        let (now, later) = (Instant::now(), Instant::now() + RETRY);
        let standing = BTreeMap::from([
            (report("brief"), Standing { due: later, is_told: false }),
            (report("a: told"), Standing { due: later, is_told: true }),
            (report("b: again"), Standing { due: now, is_told: true }),
            (report("c: new"), Standing { due: now, is_told: false }),
        ]);
        let notes: Vec<&str> = due(&standing, now).map(|report| report.note.as_str()).collect();
        assert_eq!(notes, ["c: new", "b: again"]);
    }

    #[test]
    fn a_note_fits_and_different_notes_are_different_events() {
        let (one, other) = (event(&report(&"ä".repeat(NOTE))), event(&report("short")));
        assert_eq!(one.note.map(|note| note.len()), Some(NOTE));
        assert_ne!(one.action, other.action);
        assert!(one.action.len() <= 128);
    }

    #[test]
    fn an_object_is_told_of_by_the_one_that_writes_and_a_node_by_its_agent() {
        let mut index = Index::new("here");
        index.put(
            Kind::NetworkPolicy,
            &json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "p", "namespace": "n"},
                "spec": {"podSelector": {}, "ingress": [{"ports": [{"port": 70_000}]}]},
            }),
        );
        index.fail(Watched::Pods, Trouble::Forbidden("no".to_owned()));
        index.fail(Watched::Objects(Kind::Node), Trouble::Away("nobody answers".to_owned()));
        let verdicts = Verdicts { node: [("Plugin", "not there".to_owned())].into(), ..Verdicts::default() };
        let told = |is_writer| -> Vec<(bool, &'static str)> {
            let all = reports(&index, &verdicts, is_writer);
            all.into_iter().map(|report| (report.object.is_some(), report.reason)).collect()
        };
        assert_eq!(told(false), [(false, "AccessDenied"), (false, "Plugin")]);
        assert_eq!(told(true), [(false, "AccessDenied"), (false, "Plugin"), (true, "Refused")]);
    }
}
