//! The cluster's resolver in a pod of its own: dnsmasq or unbound, as Debian ships them. Owns its process; which names
//! exist is [`crate::zone`]'s.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::Namespace;
use crate::reaper::{Kind, Remnant};

/// Which resolver it is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Software {
    /// Forwards and caches.
    #[default]
    Dnsmasq,
    /// Reads every answer, follows aliases by itself and writes answers anew.
    Unbound,
}

/// A running resolver; ended on drop.
#[derive(Debug)]
pub struct Resolver {
    process: Child,
    _configuration: Option<NamedTempFile>,
    _remnant: Remnant,
}

impl Resolver {
    /// Starts it in `namespace`, listening at `addresses`, asking `upstream`. Returns once it serves.
    ///
    /// # Errors
    /// When it is not there or does not start; with what it said.
    pub fn start(
        software: Software,
        namespace: &Namespace,
        addresses: &[IpAddr],
        upstream: SocketAddr,
    ) -> Result<Self> {
        let (mut command, ready, configuration) = match software {
            Software::Dnsmasq => (dnsmasq(addresses, upstream), "started, version", None),
            Software::Unbound => {
                let mut file = NamedTempFile::new()?;
                file.write_all(unbound(addresses, upstream).as_bytes())?;
                let mut command = Command::new("unbound");
                command.arg("-d").arg("-c").arg(file.path());
                (command, "start of service", Some(file))
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = namespace.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        let mut said = BufReader::new(process.stderr.take().expect("its standard error is a pipe"));
        let resolver = Self { process, _configuration: configuration, _remnant: remnant };
        let mut all = String::new();
        while said.read_line(&mut all).context("failed to read what the resolver says")? > 0 {
            if all.lines().last().is_some_and(|line| line.contains(ready)) {
                // It goes on logging for as long as it lives; somebody has to take it.
                std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
                return Ok(resolver);
            }
        }
        bail!("{software:?} did not start: {}", all.trim())
    }
}

fn dnsmasq(addresses: &[IpAddr], upstream: SocketAddr) -> Command {
    let mut command = Command::new("dnsmasq");
    command.args(["--conf-file=/dev/null", "--keep-in-foreground", "--log-facility=-", "--pid-file="]);
    command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root", "--cache-size=10000"]);
    command.args(addresses.iter().map(|address| format!("--listen-address={address}")));
    command.arg(format!("--server={}#{}", upstream.ip(), upstream.port()));
    command
}

/// A configuration that needs no file but itself: no trust anchors, no control socket, no other user.
fn unbound(addresses: &[IpAddr], upstream: SocketAddr) -> String {
    let listen: String = addresses.iter().map(|address| format!("  interface: {address}\n")).collect();
    format!(
        "server:\n{listen}  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n\
         \x20 do-daemonize: no\n  use-syslog: no\n  logfile: \"\"\n  pidfile: \"\"\n  chroot: \"\"\n\
         \x20 username: \"\"\n  directory: \"/\"\n  module-config: \"iterator\"\n  num-threads: 1\n\
         \x20 minimal-responses: yes\n  max-udp-size: 4096\n  do-not-query-localhost: no\n\
         remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \".\"\n  forward-addr: {}@{}\n",
        upstream.ip(),
        upstream.port()
    )
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
