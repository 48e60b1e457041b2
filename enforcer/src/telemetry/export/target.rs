//! Where records are sent, as it is written on the command line. Owns the reading of it; never connects.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;

/// Port of OTLP over gRPC.
const GRPC_PORT: u16 = 4317;
/// Port of OTLP over HTTP.
const HTTP_PORT: u16 = 4318;
/// Where logs go over HTTP when nothing else is said.
const HTTP_PATH: &str = "/v1/logs";
/// Port of syslog over UDP and TCP.
const SYSLOG_PORT: u16 = 514;
/// Port of syslog over TLS.
const SYSLOG_TLS_PORT: u16 = 6514;

/// A text that says no place.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} cannot be used: write {expected}")]
pub struct UnknownPlace {
    /// The text.
    pub text: String,
    /// What would do.
    pub expected: &'static str,
}

/// A host and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Authority {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A collector of OpenTelemetry: `http://HOST[:PORT][/PATH]` or `https://…`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Collector {
    /// True for `https`.
    pub is_secure: bool,
    /// The host, and the port where one is written.
    host: String,
    port: Option<u16>,
    path: String,
}

/// A syslog server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyslogServer {
    /// `udp://HOST[:PORT]`.
    Udp(Authority),
    /// `tcp://HOST[:PORT]`.
    Tcp(Authority),
    /// `tls://HOST[:PORT]`.
    Tls(Authority),
    /// `unix:PATH`: a socket of datagrams.
    Unix(PathBuf),
}

impl Collector {
    /// Host and port for gRPC.
    pub fn grpc(&self) -> Authority {
        Authority { host: self.host.clone(), port: self.port.unwrap_or(GRPC_PORT) }
    }

    /// Host and port for HTTP.
    pub fn http(&self) -> Authority {
        Authority { host: self.host.clone(), port: self.port.unwrap_or(HTTP_PORT) }
    }

    /// The path for HTTP.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for SyslogServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(authority) => write!(f, "udp://{authority}"),
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
            Self::Tls(authority) => write!(f, "tls://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Collector {
    type Err = UnknownPlace;

    fn from_str(text: &str) -> Result<Self, UnknownPlace> {
        let unknown =
            || UnknownPlace { text: text.to_owned(), expected: "http://HOST[:PORT] or https://HOST[:PORT]" };
        let uri: Uri = text.parse().map_err(|_| unknown())?;
        let is_secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(unknown()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(unknown)?;
        let path = match uri.path() {
            "/" | "" => HTTP_PATH.to_owned(),
            path => path.to_owned(),
        };
        Ok(Self { is_secure, host: bare(host), port: uri.port_u16(), path })
    }
}

impl FromStr for SyslogServer {
    type Err = UnknownPlace;

    fn from_str(text: &str) -> Result<Self, UnknownPlace> {
        let unknown = || UnknownPlace {
            text: text.to_owned(),
            expected: "udp://HOST[:PORT], tcp://HOST[:PORT], tls://HOST[:PORT] or unix:PATH",
        };
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let uri: Uri = text.parse().map_err(|_| unknown())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(unknown)?;
        let at = |port| Authority { host: bare(host), port: uri.port_u16().unwrap_or(port) };
        match uri.scheme_str() {
            Some("udp") => Ok(Self::Udp(at(SYSLOG_PORT))),
            Some("tcp") => Ok(Self::Tcp(at(SYSLOG_PORT))),
            Some("tls") => Ok(Self::Tls(at(SYSLOG_TLS_PORT))),
            _ => Err(unknown()),
        }
    }
}

/// A host without the brackets of IPv6 addresses.
fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_have_ports_by_protocol() {
        let plain: Collector = "http://collector".parse().expect("a collector");
        assert_eq!(
            (plain.grpc().to_string(), plain.http().to_string()),
            ("collector:4317".into(), "collector:4318".into())
        );
        assert_eq!((plain.path(), plain.is_secure), ("/v1/logs", false));
        let full: Collector = "https://[2001:db8::1]:443/otlp/v1/logs".parse().expect("a collector");
        assert_eq!((full.grpc().to_string(), full.path()), ("[2001:db8::1]:443".into(), "/otlp/v1/logs"));
        assert!(full.is_secure);
        for text in ["collector:4317", "grpc://x", "http://", ""] {
            let error = text.parse::<Collector>().expect_err(text).to_string();
            assert!(error.contains("https://HOST[:PORT]"), "{error}");
        }
    }

    #[test]
    fn syslog_servers_are_read_and_written_alike() {
        for (text, whole) in [
            ("udp://10.0.0.1", "udp://10.0.0.1:514"),
            ("tcp://siem:601", "tcp://siem:601"),
            ("tls://siem", "tls://siem:6514"),
            ("unix:/dev/log", "unix:/dev/log"),
        ] {
            assert_eq!(text.parse::<SyslogServer>().expect(text).to_string(), whole);
        }
        for text in ["siem:514", "unix:", "http://x", "udp://"] {
            assert!(text.parse::<SyslogServer>().is_err(), "{text}");
        }
    }
}
