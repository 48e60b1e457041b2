//! A large cluster that changes as one at work does: labels, pods that come and go with their services' slices, kubelets that
//! tell of their nodes. Owns what is sent to the API server and when; what comes of it is not known here.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::objects::{self, Size};

/// Changes of pods in one turn.
const TURN: u32 = 6;
/// New pods that live at the same time.
const LIVING: usize = 20;
/// Moves the number of a pod to one somewhere else: coprime to every usual number of pods.
const STRIDE: usize = 7919;

/// What was changed, as watches tell of it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Change {
    /// Pods that came, changed or went.
    pub pods: usize,
    /// Slices.
    pub slices: usize,
    /// Nodes.
    pub nodes: usize,
}

/// A turn that may still be under way; it ends with the number of the pod that came in it.
type Turn = JoinHandle<Result<usize>>;

/// Whoever changes the cluster.
#[derive(Clone)]
pub struct Churn {
    client: Client,
    size: Size,
    turn: Rc<Cell<usize>>,
    done: Rc<Cell<Change>>,
    /// Turns whose pods live, by the pod that each makes.
    living: Rc<RefCell<VecDeque<Turn>>>,
}

impl Churn {
    /// One that begins with the cluster as it was made.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn new(kubeconfig: &Path, size: Size) -> Result<Self> {
        let client = enforcer_k8s::client::connect(Some(kubeconfig)).await?;
        Ok(Self { client, size, turn: Rc::default(), done: Rc::default(), living: Rc::default() })
    }

    /// Changes `rate` pods a second for as long, and what goes with them. Returns what was changed and how long it took.
    ///
    /// # Errors
    /// When the API server refuses a change.
    pub async fn run(&self, rate: u32, lasting: Duration) -> Result<(Change, Duration)> {
        self.done.take();
        let began = Instant::now();
        let mut ticks = interval(Duration::from_secs(1) * TURN / rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        while began.elapsed() < lasting {
            ticks.tick().await;
            let turn = self.turn.replace(self.turn.get() + 1);
            let mut living = self.living.borrow_mut();
            let former = if living.len() < LIVING { None } else { living.pop_front() };
            let churn = self.clone();
            living.push_back(spawn_local(async move { churn.turn(turn, former).await }));
        }
        let living = self.living.take();
        for (place, turn) in living.into_iter().enumerate() {
            let number = turn.await.context("a turn broke off")??;
            self.living.borrow_mut().insert(place, spawn_local(async move { Ok(number) }));
        }
        Ok((self.done.take(), began.elapsed()))
    }

    /// Replaces a part of an object of a namespace.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, part: Value) -> Result<()> {
        let patched =
            self.api(kind, namespace).patch(name, &PatchParams::default(), &Patch::Merge(part)).await;
        patched.map(drop).with_context(|| format!("failed to change {kind} {namespace}/{name}"))
    }

    /// Three pods get other labels; one comes, gets its address and takes its place behind its service, and an older one goes;
    /// a kubelet tells of its node.
    async fn turn(&self, turn: usize, former: Option<Turn>) -> Result<usize> {
        for label in 0..3 {
            self.relabel(turn * 3 + label).await?;
        }
        let number = self.size.pods + turn;
        self.come(number).await?;
        if let Some(former) = former {
            self.go(former.await.context("a turn broke off")??).await?;
        }
        self.tell_of_node(turn).await?;
        Ok(number)
    }

    /// A pod of another node gets another label that policies speak of.
    async fn relabel(&self, change: usize) -> Result<()> {
        let others = self.size.pods - self.size.local;
        let number = self.size.local + change.wrapping_mul(STRIDE) % others;
        let tier = objects::TIERS[(change + number) % objects::TIERS.len()];
        let part = json!({"metadata": {"labels": {"tier": tier, "example.com/turn": change.to_string()}}});
        let (namespace, _) = objects::deployment(self.size, number);
        self.patch("Pod", &namespace, &objects::pod_name(self.size, number), part).await?;
        self.count(|done| done.pods += 1);
        Ok(())
    }

    async fn come(&self, number: usize) -> Result<()> {
        let (name, address) = (objects::pod_name(self.size, number), objects::address(number));
        let mut pod = objects::pod(self.size, number, &name, address);
        let status = pod["status"].take();
        let metadata = &mut pod["metadata"];
        for kept in ["managedFields", "uid", "creationTimestamp"] {
            metadata.as_object_mut().context("metadata is an object")?.remove(kept);
        }
        let (namespace, _) = objects::deployment(self.size, number);
        let pods = self.api("Pod", &namespace);
        let object: DynamicObject = serde_json::from_value(pod)?;
        pods.create(&PostParams::default(), &object).await.context("failed to make a pod")?;
        let status = Patch::Merge(json!({"status": status}));
        pods.patch_status(&name, &PatchParams::default(), &status)
            .await
            .context("failed to give an address")?;
        let endpoint = objects::endpoint(self.size, number, &name, address);
        self.place(number, Some(endpoint)).await?;
        self.count(|done| done.pods += 2);
        Ok(())
    }

    async fn go(&self, number: usize) -> Result<()> {
        let name = objects::pod_name(self.size, number);
        let (namespace, _) = objects::deployment(self.size, number);
        let at_once = DeleteParams::default().grace_period(0);
        self.api("Pod", &namespace).delete(&name, &at_once).await.context("failed to delete a pod")?;
        self.place(number, None).await?;
        self.count(|done| done.pods += 1);
        Ok(())
    }

    /// Writes the slice of a pod's service: those that were always there, and this endpoint.
    async fn place(&self, number: usize, more: Option<Value>) -> Result<()> {
        let (namespace, app) = objects::deployment(self.size, number);
        let first = number % self.size.deployments();
        let members = (first..self.size.pods).step_by(self.size.deployments());
        let endpoints = members.map(|pod| {
            let name = objects::pod_name(self.size, pod);
            objects::endpoint(self.size, pod, &name, objects::address(pod))
        });
        let part = json!({"endpoints": endpoints.chain(more).collect::<Vec<_>>()});
        self.patch("EndpointSlice", &namespace, &objects::slice_name(&app), part).await?;
        self.count(|done| done.slices += 1);
        Ok(())
    }

    async fn tell_of_node(&self, turn: usize) -> Result<()> {
        let at = format!("2026-02-01T{:02}:{:02}:{:02}Z", turn / 3600 % 24, turn / 60 % 60, turn % 60);
        let status = json!({"status": {"conditions": objects::node_conditions(&at)}});
        let name = objects::node_name(turn.wrapping_mul(STRIDE) % self.size.nodes);
        let nodes: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource("Node"));
        let told = nodes.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await;
        told.with_context(|| format!("failed to tell of {name}"))?;
        self.count(|done| done.nodes += 1);
        Ok(())
    }

    fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &resource(kind))
    }

    fn count(&self, add: impl FnOnce(&mut Change)) {
        let mut done = self.done.get();
        add(&mut done);
        self.done.set(done);
    }
}

fn resource(kind: &str) -> ApiResource {
    let (group, version) = match kind {
        "EndpointSlice" => ("discovery.k8s.io", "v1"),
        "NetworkPolicy" => ("networking.k8s.io", "v1"),
        _ => ("", "v1"),
    };
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}
