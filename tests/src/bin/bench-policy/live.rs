//! How long an edit takes to be in force: a real agent, 110 pods, and packets whose fate changes.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use enforcer_tests::{Lab, Namespace};

use crate::cluster::LOCAL;

/// Port of the packets; policy lets it pass and drops it in turn.
const PORT: u16 = 7_010;
/// Longest time an edit is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time without a packet after which nothing is under way any more.
const SILENCE: Duration = Duration::from_millis(20);

/// Every pod's sending socket, and the server's.
struct Probe {
    senders: Vec<UdpSocket>,
    server: UdpSocket,
}

/// Edits the policy of all pods `edits` times; returns how long each edit took to let packets of every pod pass, ascending.
///
/// # Errors
/// Without root or the agent's binary, or when an edit does not take effect.
pub(crate) fn measure(edits: usize) -> Result<Vec<Duration>> {
    let names: Vec<&'static str> = (0..LOCAL).map(|number| &*format!("pod{number}").leak()).collect();
    let builder = names.iter().fold(Lab::builder(), |builder, name| builder.pod_in("bench", name));
    let lab = builder.mode("bench", "enforce").start()?;
    lab.policy("all.yaml", &policy(PORT - 1))?;
    let agent = lab.agent()?;
    let probe = Probe::open(&names.iter().map(|name| &lab.pod(name).namespace).collect::<Vec<_>>(), &lab)?;
    let mut taken = Vec::new();
    for _ in 0..edits {
        let began = Instant::now();
        lab.policy("all.yaml", &policy(PORT))?;
        taken.push(probe.await_all(began)?);
        lab.policy("all.yaml", &policy(PORT - 1))?;
        probe.await_silence()?;
    }
    drop(agent);
    taken.sort_unstable();
    Ok(taken)
}

/// One policy of every pod.
fn policy(port: u16) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: all, namespace: bench}}\nspec:\n\
         \x20 podSelector: {{}}\n  egress:\n  - ports: [{{protocol: UDP, port: {port}}}]\n"
    )
}

impl Probe {
    fn open(pods: &[&Namespace], lab: &Lab) -> Result<Self> {
        let address = Ipv4Addr::new(198, 18, 0, 10);
        let server = lab.internet.namespace.enter(|| UdpSocket::bind((address, PORT)))?;
        server.set_nonblocking(true)?;
        let mut senders = Vec::new();
        for (number, pod) in (0u16..).zip(pods) {
            let sender = pod.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 20_000 + number)))?;
            sender.connect(SocketAddrV4::new(address, PORT))?;
            sender.set_nonblocking(true)?;
            senders.push(sender);
        }
        Ok(Self { senders, server })
    }

    /// Sends from every pod in turn until a packet of each has come; returns how long after `began` that was.
    fn await_all(&self, began: Instant) -> Result<Duration> {
        let mut missing: BTreeSet<usize> = (0..self.senders.len()).collect();
        while !missing.is_empty() {
            ensure!(began.elapsed() < PATIENCE, "{} pods are still without the new policy", missing.len());
            for number in &missing {
                self.send(*number)?;
            }
            self.receive(|number| {
                missing.remove(&number);
            })?;
        }
        Ok(began.elapsed())
    }

    /// Sends from every pod until nothing comes any more.
    fn await_silence(&self) -> Result<()> {
        let began = Instant::now();
        let mut last = began;
        while last.elapsed() < SILENCE {
            ensure!(began.elapsed() < PATIENCE, "the former policy is still in force");
            (0..self.senders.len()).try_for_each(|number| self.send(number))?;
            self.receive(|_| last = Instant::now())?;
        }
        Ok(())
    }

    fn send(&self, number: usize) -> Result<()> {
        match self.senders[number].send(&(number as u16).to_be_bytes()) {
            // What is dropped on its way out may be told to the sender as an error.
            Err(error) if !matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::WouldBlock) => {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }

    fn receive(&self, mut visit: impl FnMut(usize)) -> Result<()> {
        let mut buffer = [0; 2];
        loop {
            match self.server.recv(&mut buffer) {
                Ok(_) => visit(u16::from_be_bytes(buffer).into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
