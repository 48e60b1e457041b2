//! Which agent writes for all of them, by a lease. Owns who that is and when it becomes another one; what is written is
//! [`crate::status`]'s.
//!
//! Clocks of nodes are never compared: a holder counts for as long as its lease keeps changing, as this agent's own clock
//! measures it. Two agents may both believe to hold the lease for a moment; they write the same.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

/// A holder whose lease did not change for so long is gone. Others look a few times as often.
const LASTING: Duration = Duration::from_secs(60);
/// Between two looks at the lease, and between two renewals.
const LOOK: Duration = Duration::from_secs(15);
/// So long after its last renewal a holder writes no more: earlier than anybody takes over.
const TRUST: Duration = Duration::from_secs(45);
/// Somebody else was quicker.
const CONFLICT: u16 = 409;

/// A lease as it was seen, and since when it has been so.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    version: String,
    holder: Option<String>,
    since: Instant,
}

/// What is to be done about a lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// It is this agent's: say that it still is.
    Renew,
    /// Its holder is gone, or there is none.
    Take,
    /// It is somebody else's.
    Wait,
}

/// The lease, as one agent knows it.
pub(crate) struct Election {
    leases: Api<Lease>,
    name: &'static str,
    own: String,
    seen: Option<Seen>,
    looked: Option<Instant>,
    renewed: Option<Instant>,
}

impl Election {
    /// For the lease `name` of the agent's namespace, in which this agent is called `own`.
    pub(crate) fn new(client: &Client, name: &'static str, own: &str) -> Self {
        let leases = Api::default_namespaced(client.clone());
        Self { leases, name, own: own.to_owned(), seen: None, looked: None, renewed: None }
    }

    /// True while this agent holds the lease. Looks at it, renews it or takes it over when it is time.
    ///
    /// # Errors
    /// When the API server cannot be asked; the lease is held as long as it was before.
    pub(crate) async fn is_held(&mut self) -> kube::Result<bool> {
        let now = Instant::now();
        let outcome = match self.looked.is_none_or(|looked| now - looked >= LOOK) {
            true => self.look(now).await,
            false => Ok(()),
        };
        outcome.map(|()| self.renewed.is_some_and(|renewed| Instant::now() - renewed < TRUST))
    }

    async fn look(&mut self, now: Instant) -> kube::Result<()> {
        self.looked = Some(now);
        let there = self.leases.get_opt(self.name).await?;
        let step = match &there {
            None => Step::Take,
            Some(lease) => {
                let seen = see(self.seen.take(), lease, now);
                step(self.seen.insert(seen), &self.own, now)
            }
        };
        if step == Step::Wait {
            self.renewed = None;
            return Ok(());
        }
        let written = match there {
            Some(lease) => {
                let next = held(lease, &self.own, step);
                self.leases.replace(self.name, &PostParams::default(), &next).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(self.name.to_owned()), ..ObjectMeta::default() };
                let next = held(Lease { metadata, spec: None }, &self.own, step);
                self.leases.create(&PostParams::default(), &next).await
            }
        };
        match written {
            Ok(_) => self.renewed = Some(now),
            Err(kube::Error::Api(status)) if status.code == CONFLICT => self.renewed = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// What is known of a lease after this look: since when it is as it is.
fn see(before: Option<Seen>, lease: &Lease, now: Instant) -> Seen {
    let version = lease.metadata.resource_version.clone().unwrap_or_default();
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
    let since = before.filter(|before| before.version == version).map_or(now, |before| before.since);
    Seen { version, holder: holder.filter(|holder| !holder.is_empty()), since }
}

fn step(seen: &Seen, own: &str, now: Instant) -> Step {
    match &seen.holder {
        Some(holder) if holder == own => Step::Renew,
        Some(_) if now - seen.since < LASTING => Step::Wait,
        _ => Step::Take,
    }
}

/// The lease as it is once this agent holds it; its version stays, so that whoever else changes it meanwhile wins.
fn held(lease: Lease, own: &str, step: Step) -> Lease {
    let now = MicroTime(Timestamp::now());
    let before = lease.spec.unwrap_or_default();
    let is_new = step == Step::Take;
    let spec = LeaseSpec {
        holder_identity: Some(own.to_owned()),
        lease_duration_seconds: Some(LASTING.as_secs() as i32),
        acquire_time: if is_new { Some(now.clone()) } else { before.acquire_time },
        lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(is_new)),
        renew_time: Some(now),
        ..LeaseSpec::default()
    };
    Lease { metadata: lease.metadata, spec: Some(spec) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str, holder: Option<&str>, renewed: &str) -> Lease {
        let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        let renew_time = Some(MicroTime(renewed.parse().expect("a time")));
        let holder_identity = holder.map(str::to_owned);
        Lease { metadata, spec: Some(LeaseSpec { holder_identity, renew_time, ..LeaseSpec::default() }) }
    }

    #[test]
    fn a_holder_counts_while_its_lease_changes_whatever_the_clocks_say() {
        let begun = Instant::now();
        for renewed in ["2001-01-01T00:00:00Z", "2101-01-01T00:00:00Z"] {
            let first = see(None, &lease("1", Some("b"), renewed), begun);
            assert_eq!(step(&first, "a", begun), Step::Wait, "nobody knows how long it has been so");
            let later = begun + LASTING - Duration::from_secs(1);
            let same = see(Some(first.clone()), &lease("1", Some("b"), renewed), later);
            assert_eq!((same.since, step(&same, "a", later)), (begun, Step::Wait));
            let changed = see(Some(same.clone()), &lease("2", Some("b"), renewed), later);
            assert_eq!(step(&changed, "a", begun + LASTING), Step::Wait);
            let gone = see(Some(same), &lease("1", Some("b"), renewed), begun + LASTING);
            assert_eq!(step(&gone, "a", begun + LASTING), Step::Take);
        }
    }

    #[test]
    fn what_is_nobodys_is_taken_and_what_is_own_is_renewed() {
        let now = Instant::now();
        let of = |holder| step(&see(None, &lease("1", holder, "2026-01-01T00:00:00Z"), now), "a", now);
        assert_eq!((of(None), of(Some("")), of(Some("a"))), (Step::Take, Step::Take, Step::Renew));
    }

    #[test]
    fn a_lease_that_is_taken_keeps_its_version_and_counts_its_holders() {
        let before = lease("7", Some("b"), "2026-01-01T00:00:00Z");
        let taken = held(before.clone(), "a", Step::Take);
        let spec = taken.spec.expect("a holder");
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("a"), Some(1)));
        assert_eq!(spec.acquire_time, spec.renew_time);
        let renewed = held(before, "b", Step::Renew).spec.expect("a holder");
        assert_eq!((renewed.acquire_time, renewed.lease_transitions), (None, Some(0)));
    }
}
