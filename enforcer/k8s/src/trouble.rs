//! What is wrong between the agent and the API server, told so that an operator can mend it.

use enforcer_core::causes::chain;
use kube::core::Status;
use kube::runtime::watcher;

use crate::kinds::{Absence, Watched};

/// Why a kind cannot be followed now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// The server does not serve the kind.
    Absent,
    /// The agent's account may not read it.
    Forbidden(String),
    /// The server cannot be reached, or fails.
    Away(String),
}

impl Trouble {
    /// What an error of a watch means; `None` for one that the watch mends by itself.
    pub(crate) fn of(error: &watcher::Error) -> Option<Self> {
        let error = match error {
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
            Self::Forbidden(message) => {
                let remedy = format!(
                    "let the agent's account list and watch {plural} (the chart's ClusterRole does); what was in \
                     force stays until then"
                );
                (format!("{plural} may not be read: {message}"), remedy)
            }
            Self::Away(message) => {
                let remedy = "what was in force stays; it is tried again";
                (format!("{plural} cannot be followed: {message}"), remedy.to_owned())
            }
        }
    }

    /// True when the kind counts as one without objects.
    pub(crate) fn is_empty_kind(&self, kind: Watched) -> bool {
        *self == Self::Absent && kind.absence() != Absence::Fault
    }
}

fn of_status(status: &Status) -> Option<Trouble> {
    match status.code {
        404 => Some(Trouble::Absent),
        401 | 403 => Some(Trouble::Forbidden(status.message.clone())),
        // The version is gone: the watch lists anew.
        410 => None,
        _ => Some(Trouble::Away(status.message.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(code: u16, message: &str) -> watcher::Error {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn an_error_says_what_it_means() {
        assert_eq!(Trouble::of(&api(404, "not found")), Some(Trouble::Absent));
        assert_eq!(Trouble::of(&api(403, "no")), Some(Trouble::Forbidden("no".to_owned())));
        assert_eq!(Trouble::of(&api(410, "too old")), None);
        assert_eq!(Trouble::of(&api(500, "etcd")), Some(Trouble::Away("etcd".to_owned())));
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
