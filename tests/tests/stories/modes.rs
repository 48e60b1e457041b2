//! Modes of namespaces: `observe` drops nothing and tells what it would have, and a namespace is switched while
//! its traffic goes on (C6).

use std::time::Instant;

use anyhow::{Result, bail};
use enforcer_tests::journal::PATIENCE;
use enforcer_tests::{Family, Lab, Outcome};

use crate::policies::{ALERTS, CLUSTER_DNS, modes};

fn lab(mode: &'static str) -> Result<Lab> {
    let lab = Lab::builder().pod("alerts").mode("alerts", mode).start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    lab.policy("alerts-egress.yaml", ALERTS)?;
    Ok(lab)
}

#[test]
fn observe_lets_everything_pass_and_tells_what_it_would_deny() -> Result<()> {
    let lab = lab("observe")?;
    let agent = lab.agent()?;
    for family in Family::BOTH {
        for (name, verdict) in [("pagerduty.com", "FORWARDED"), ("github.com", "WOULD_DENY")] {
            assert_eq!(lab.pod("alerts").visit(name, 443, family), Outcome::Connected, "{name} {family}");
            let what = format!("the flow to {name} over {family}");
            let record = agent.await_record(&what, |record| {
                let of_family = record.destination_address().is_some_and(|address| family.has(&address));
                of_family && record.names() == [name] && record.event() == "admitted"
            })?;
            assert_eq!(record.verdict(), verdict, "{name} {family}");
        }
    }
    Ok(())
}

#[test]
fn c6_a_namespace_is_switched_while_it_runs() -> Result<()> {
    let lab = lab("policy")?;
    let _agent = lab.agent()?;
    for (mode, expected) in
        [("observe", Outcome::Connected), ("enforce", Outcome::TimedOut), ("observe", Outcome::Connected)]
    {
        lab.policy("namespaces.yaml", &modes(&[("alerts", mode)]))?;
        await_outcome(&lab, &expected)?;
        for family in Family::BOTH {
            assert_eq!(lab.pod("alerts").visit("github.com", 443, family), expected, "{mode} {family}");
            assert_eq!(
                lab.pod("alerts").visit("pagerduty.com", 443, family),
                Outcome::Connected,
                "{mode} {family}"
            );
        }
    }
    Ok(())
}

/// Tries until the change of policy is seen.
fn await_outcome(lab: &Lab, expected: &Outcome) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while lab.pod("alerts").visit("github.com", 443, Family::V4) != *expected {
        if Instant::now() > deadline {
            bail!("it never became {expected:?}");
        }
    }
    Ok(())
}
