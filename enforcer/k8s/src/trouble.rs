//! What is wrong between the agent and the API server, told so that an operator can mend it.

use enforcer_core::causes::chain;
use kube::core::Status;
use kube::runtime::watcher;

use crate::history::GONE;
use crate::kinds::{Absence, Watched};

/// What the end of a connection says that was silent for too long.
const SILENCE: &str = "timed out";
/// What rustls says of a certificate that is of another time.
const OUT_OF_TIME: [&str; 2] = ["certificate not valid yet", "certificate expired"];

/// Why a kind cannot be followed now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The server does not serve the kind.
    Absent,
    /// It serves the kind in these versions only.
    OtherVersion(Vec<String>),
    /// The definition of the kind has not these fields of this version's: objects lose them when they are written.
    Older(Vec<String>),
    /// The agent's account may not read it.
    Forbidden(String),
    /// The server does not accept what the agent says that it is.
    Unauthenticated(String),
    /// The server cannot be reached, or fails.
    Away(String),
}

impl Trouble {
    /// What an error of a watch means; `None` for one that the watch mends by itself.
    pub(crate) fn of(error: &watcher::Error) -> Option<Self> {
        let error = match error {
            // Kinds of which nothing changes are silent for longer than connections may be: they are asked for anew.
            watcher::Error::WatchFailed(error) if chain(error).ends_with(SILENCE) => return None,
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => error,
            watcher::Error::WatchError(status) => return of_status(status),
            watcher::Error::NoResourceVersion => return Some(Self::Away(chain(error))),
        };
        match error {
            kube::Error::Api(status) => of_status(status),
            // A stream that ends is taken up again.
            other => Some(Self::Away(chain(other))),
        }
    }

    /// What is wrong, and what to do about it.
    pub fn told(&self, kind: Watched) -> (String, String) {
        let (plural, group) = (kind.plural(), kind.group());
        match self {
            Self::Absent => {
                let name = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
                let remedy = "apply the definitions that come with this version (deploy/crds); until then there \
                              is no such object";
                (format!("the API server does not serve {name}"), remedy.to_owned())
            }
            Self::OtherVersion(versions) => {
                let (served, own) = (versions.join(", "), kind.api_version());
                let remedy = "install the definition in that version, beside the other or in place of it; until then there \
                              is no such object";
                let what = format!("the API server serves {plural} as {served} only, this agent reads {own}");
                (what, remedy.to_owned())
            }
            Self::Older(fields) => {
                let remedy = "apply the definitions that come with this version (deploy/crds), then write objects that \
                              use these fields once more";
                let fields = fields.join(", ");
                let what = format!(
                    "the definition of {plural} is an older one: it has no {fields}, which objects lose when they are written"
                );
                (what, remedy.to_owned())
            }
            Self::Unauthenticated(message) => {
                let remedy = "the kubelet replaces a token that expired; if this lasts, compare the clocks of this node and \
                              of the API server, and start the agent's pod anew; what was in force stays";
                let what = format!(
                    "{plural} cannot be followed: the API server does not accept the agent's token: {message}"
                );
                (what, remedy.to_owned())
            }
            Self::Forbidden(message) => {
                let remedy = format!(
                    "let the agent's account list and watch {plural} (the chart's ClusterRole does); what was in \
                     force stays until then"
                );
                (format!("{plural} may not be read: {message}"), remedy)
            }
            Self::Away(message) => {
                let remedy = match OUT_OF_TIME.iter().any(|words| message.contains(words)) {
                    true => {
                        "compare this node's clock with the API server's, or renew its certificate; what was in force stays"
                    }
                    false => "what was in force stays; it is tried again",
                };
                (format!("{plural} cannot be followed: {message}"), remedy.to_owned())
            }
        }
    }

    /// True when objects may have changed without being told.
    pub(crate) fn is_behind(&self) -> bool {
        matches!(self, Self::Forbidden(_) | Self::Unauthenticated(_) | Self::Away(_))
    }

    /// True when the kind counts as one without objects.
    pub(crate) fn is_empty_kind(&self, kind: Watched) -> bool {
        *self == Self::Absent && kind.absence() != Absence::Fault
    }
}

/// True when the server no longer has the part of its history that a watch goes on from.
pub(crate) fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchError(status) if status.code == GONE)
}

fn of_status(status: &Status) -> Option<Trouble> {
    match status.code {
        404 => Some(Trouble::Absent),
        401 => Some(Trouble::Unauthenticated(status.message.clone())),
        403 => Some(Trouble::Forbidden(status.message.clone())),
        // The version is gone: the watch lists anew.
        GONE => None,
        _ => Some(Trouble::Away(status.message.clone())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_rustls::rustls::pki_types::UnixTime;
    use tokio_rustls::rustls::{CertificateError, Error};

    use super::*;

    fn api(code: u16, message: &str) -> watcher::Error {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn an_error_says_what_it_means() {
        assert_eq!(Trouble::of(&api(404, "not found")), Some(Trouble::Absent));
        assert_eq!(Trouble::of(&api(403, "no")), Some(Trouble::Forbidden("no".to_owned())));
        assert_eq!(Trouble::of(&api(401, "who")), Some(Trouble::Unauthenticated("who".to_owned())));
        assert_eq!(Trouble::of(&api(410, "too old")), None);
        let expired = Status { code: GONE, ..Status::default() };
        assert!(is_expired(&watcher::Error::WatchError(expired.boxed())));
        assert!(!is_expired(&api(500, "etcd")));
        assert_eq!(Trouble::of(&api(500, "etcd")), Some(Trouble::Away("etcd".to_owned())));
    }

    #[test]
    fn a_watch_that_was_silent_is_no_trouble_and_a_server_that_is_silent_is() {
        let timed_out = || kube::Error::ReadEvents(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(Trouble::of(&watcher::Error::WatchFailed(timed_out())), None);
        assert!(matches!(
            Trouble::of(&watcher::Error::WatchStartFailed(timed_out())),
            Some(Trouble::Away(_))
        ));
    }

    #[test]
    fn a_certificate_of_another_time_points_to_the_clocks() {
        let remedy = |error: CertificateError| {
            let message = Error::InvalidCertificate(error).to_string();
            Trouble::Away(message).told(Watched::Pods).1
        };
        let [then, now] = [1, 2].map(|day| UnixTime::since_unix_epoch(Duration::from_secs(day * 86_400)));
        let early = CertificateError::NotValidYetContext { time: then, not_before: now };
        let late = CertificateError::ExpiredContext { time: now, not_after: then };
        for error in [early, late] {
            assert!(remedy(error).starts_with("compare this node's clock"));
        }
        assert!(remedy(CertificateError::Revoked).starts_with("what was in force stays"));
    }

    #[test]
    fn only_kinds_of_their_own_definition_may_be_absent() {
        use enforcer_core::manifest::Kind;
        assert!(Trouble::Absent.is_empty_kind(Watched::Objects(Kind::Tier)));
        assert!(Trouble::Absent.is_empty_kind(Watched::Objects(Kind::ClusterNetworkPolicy)));
        assert!(!Trouble::Absent.is_empty_kind(Watched::Pods));
        assert!(!Trouble::Forbidden(String::new()).is_empty_kind(Watched::Objects(Kind::Tier)));
    }
}
