//! TLS as OpenSSL speaks it: a server with a certificate of its own making, clients that ask it for a name, and a relay that
//! cuts what a client sends into small pieces. Owns their processes; what names are worth is not known here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::Namespace;
use crate::reaper::{Kind, Remnant};

/// Seconds after which a handshake is given up.
const PATIENCE: &str = "10";

/// A server at one port of every address; ended on drop.
#[derive(Debug)]
pub struct TlsServer {
    process: Child,
    _files: TempDir,
    _remnant: Remnant,
}

impl TlsServer {
    /// Starts it in `namespace`. Returns once it accepts connections.
    ///
    /// # Errors
    /// When OpenSSL is not there or does not serve.
    pub fn start(namespace: &Namespace, port: u16) -> Result<Self> {
        let files = TempDir::new()?;
        let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| files.path().join(name));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-subj", "/CN=server", "-days", "1", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .context("failed to run openssl")?;
        ensure!(made.status.success(), "no certificate: {}", String::from_utf8_lossy(&made.stderr));
        let mut command = Command::new("openssl");
        command
            .args(["s_server", "-rev", "-accept", &port.to_string(), "-key"])
            .arg(&key)
            .arg("-cert")
            .arg(&certificate);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = namespace.spawn(&mut command)?;
        let remnant = Remnant::new(Kind::Process, &process.id().to_string())?;
        let mut said = BufReader::new(process.stdout.take().expect("its standard output is a pipe"));
        let server = Self { process, _files: files, _remnant: remnant };
        let mut line = String::new();
        while line.trim() != "ACCEPT" {
            line.clear();
            ensure!(said.read_line(&mut line)? > 0, "the server ended before it served");
        }
        // It goes on talking for as long as it lives; somebody has to take it.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Ok(server)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        // Either fails only when it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Shakes hands with a server by TLS, asking it for a name or for none; what the client says when that fails.
///
/// # Errors
/// When OpenSSL is not there.
pub fn shake_hands(
    namespace: &Namespace,
    server: SocketAddr,
    name: Option<&str>,
) -> Result<std::result::Result<(), String>> {
    let mut command = Command::new("timeout");
    command.args([PATIENCE, "openssl", "s_client", "-brief", "-connect", &server.to_string()]);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = namespace.spawn(&mut command)?.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok(if said.contains("CONNECTION ESTABLISHED") { Ok(()) } else { Err(said) })
}

/// As [`shake_hands`], with everything that the client sends cut into pieces of so many octets.
///
/// # Errors
/// When OpenSSL is not there, or no connection can be made.
pub fn shake_hands_in_pieces(
    namespace: &Namespace,
    server: SocketAddr,
    name: &str,
    octets: usize,
) -> Result<std::result::Result<(), String>> {
    let listener = namespace.enter(|| TcpListener::bind((IpAddr::from(Ipv4Addr::LOCALHOST), 0)))?;
    let relay = listener.local_addr()?;
    let far = namespace.enter(|| TcpStream::connect(server))?;
    far.set_nodelay(true)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (near, _) = listener.accept()?;
            let back = (far.try_clone()?, near.try_clone()?);
            std::thread::spawn(move || copy(back.0, back.1, 1 << 14));
            copy(near, far, octets)
        });
        shake_hands(namespace, relay, Some(name))
    })
}

/// Hands on what comes, in pieces, until either side ends.
fn copy(mut from: TcpStream, mut to: TcpStream, octets: usize) -> std::io::Result<()> {
    let mut buffer = vec![0; octets];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        if length == 0 || to.write_all(&buffer[..length]).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return to.shutdown(Shutdown::Both);
        }
    }
}
