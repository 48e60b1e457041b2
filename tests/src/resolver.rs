//! The cluster's resolver in a pod of its own: dnsmasq, unbound or BIND, as Debian ships them. Owns its process; which names
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
    /// The same, by the reference implementation.
    Bind,
}

impl Software {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dnsmasq, Self::Unbound, Self::Bind];
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
                let file = configuration("/var/lib/unbound", &unbound(addresses, upstream))?;
                let mut command = Command::new("unbound");
                command.arg("-d").arg("-c").arg(file.path());
                (command, "start of service", Some(file))
            }
            Software::Bind => {
                let file = configuration("/var/cache/bind", &bind(addresses, upstream))?;
                let mut command = Command::new("named");
                command.args(["-g", "-n", "1", "-c"]).arg(file.path());
                (command, "running", Some(file))
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

/// A configuration file at a place that the program may read under the AppArmor profile of its package, where there is
/// that place.
fn configuration(directory: &str, text: &str) -> Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(directory).or_else(|_| NamedTempFile::new())?;
    file.write_all(text.as_bytes())?;
    Ok(file)
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

/// As [`unbound`]: no control channel, no keys, no files of its own. A name may have more than its hundred addresses.
fn bind(addresses: &[IpAddr], upstream: SocketAddr) -> String {
    let listen = |is_v4: bool| -> String {
        let own = addresses.iter().filter(|address| address.is_ipv4() == is_v4);
        own.map(|address| format!("{address}; ")).collect()
    };
    format!(
        "options {{\n  directory \"/\";\n  listen-on {{ {}}};\n  listen-on-v6 {{ {}}};\n\
         \x20 forward only;\n  forwarders {{ {} port {}; }};\n  allow-query {{ any; }};\n  recursion yes;\n\
         \x20 allow-recursion {{ any; }};\n  dnssec-validation no;\n  minimal-responses yes;\n\
         \x20 max-records-per-type 0;\n  edns-udp-size 4096;\n  max-udp-size 4096;\n  pid-file none;\n  session-keyfile none;\n}};\n\
         controls {{ }};\n",
        listen(true),
        listen(false),
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
