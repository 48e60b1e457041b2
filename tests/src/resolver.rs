//! The cluster's resolver: dnsmasq, as Debian ships it, in a pod of its own. Owns its process; which names exist is
//! [`crate::zone`]'s.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::Namespace;
use crate::reaper::{Kind, Remnant};

/// A running dnsmasq; ended on drop.
#[derive(Debug)]
pub struct Resolver {
    process: Child,
    _remnant: Remnant,
}

impl Resolver {
    /// Starts it in `namespace`, listening at `addresses`, asking `upstream`. Returns once it serves.
    ///
    /// # Errors
    /// When dnsmasq is not there or does not start; with what it said.
    pub fn start(namespace: &Namespace, addresses: &[IpAddr], upstream: SocketAddr) -> Result<Self> {
        let mut command = Command::new("dnsmasq");
        command.args(["--conf-file=/dev/null", "--keep-in-foreground", "--log-facility=-", "--pid-file="]);
        command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root", "--cache-size=10000"]);
        command.args(addresses.iter().map(|address| format!("--listen-address={address}")));
        command.arg(format!("--server={}#{}", upstream.ip(), upstream.port()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = namespace.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        let mut said = BufReader::new(process.stderr.take().expect("its standard error is a pipe"));
        let resolver = Self { process, _remnant: remnant };
        let mut all = String::new();
        while said.read_line(&mut all).context("failed to read what dnsmasq says")? > 0 {
            if all.lines().last().is_some_and(|line| line.contains("started, version")) {
                // It goes on logging for as long as it lives; somebody has to take it.
                std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
                return Ok(resolver);
            }
        }
        bail!("dnsmasq did not start: {}", all.trim())
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
