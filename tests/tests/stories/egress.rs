//! Egress by name, C2 to C5, with the policies that ship as the example.

use anyhow::Result;
use enforcer_tests::{Family, Lab, Outcome};

use crate::policies::{ALERTS, CLUSTER_DNS, UPDATE};

const NAMES: [&str; 4] = ["github.com", "api.github.com", "pagerduty.com", "events.pagerduty.com"];

/// The three workloads under `enforce`, with the example's policies.
fn lab() -> Result<Lab> {
    let mut builder = Lab::builder();
    for name in ["payment", "update", "alerts"] {
        builder = builder.pod(name).mode(name, "enforce");
    }
    let lab = builder.start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    lab.policy("update-egress.yaml", UPDATE)?;
    lab.policy("alerts-egress.yaml", ALERTS)?;
    Ok(lab)
}

/// Tries every name on ports 22 and 443 in both families and returns what was reached, as `name:port`.
///
/// Attempts run side by side, since each denied one takes its whole time.
fn reached(lab: &Lab, workload: &str) -> Vec<String> {
    let tries: Vec<_> = NAMES.into_iter().flat_map(|name| [(name, 22), (name, 443)]).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = tries
            .iter()
            .map(|(name, port)| {
                scope.spawn(move || Family::BOTH.map(|f| lab.pod(workload).visit(name, *port, f)))
            })
            .collect();
        let outcomes = threads.into_iter().map(|thread| thread.join().expect("a visit never panics"));
        let told = tries.iter().zip(outcomes).filter_map(|((name, port), [v4, v6])| {
            assert_eq!(v4, v6, "{workload} to {name}:{port}: the families differ");
            assert!(
                [Outcome::Connected, Outcome::TimedOut].contains(&v4),
                "{workload} to {name}:{port}: {v4:?}"
            );
            v4.is_connected().then(|| format!("{name}:{port}"))
        });
        told.collect()
    })
}

#[test]
fn c2_without_a_policy_enforce_cuts_a_workload_off() -> Result<()> {
    let lab = lab()?;
    assert_eq!(reached(&lab, "payment").len(), 8, "without an agent everything is reached");
    let agent = lab.agent()?;
    assert_eq!(reached(&lab, "payment"), [""; 0]);
    for family in Family::BOTH {
        assert_eq!(
            lab.pod("payment").connect(
                enforcer_tests::zone::fresh_addresses(9, false)[usize::from(family == Family::V6)],
                80
            ),
            Outcome::TimedOut
        );
    }
    let record = agent.await_record("payment's refusal", |record| {
        record.source() == "payment/payment" && record.verdict() == "DENIED"
    })?;
    assert_eq!(record.text("/reason"), "mode-default");
    Ok(())
}

#[test]
fn c3_update_reaches_github_over_ssh_only() -> Result<()> {
    let lab = lab()?;
    let agent = lab.agent()?;
    assert_eq!(reached(&lab, "update"), ["github.com:22"]);
    let record = agent.await_record("the ssh flow", |record| {
        record.event() == "admitted" && record.destination_port() == 22
    })?;
    assert_eq!(record.rule(), "SegmentPolicy update/update-egress github-ssh");
    assert_eq!((record.source().as_str(), record.names()), ("update/update", vec!["github.com"]));
    Ok(())
}

#[test]
fn c4_alerts_reaches_pagerduty_over_https_only() -> Result<()> {
    let lab = lab()?;
    let _agent = lab.agent()?;
    assert_eq!(reached(&lab, "alerts"), ["pagerduty.com:443", "events.pagerduty.com:443"]);
    Ok(())
}

#[test]
fn c5_a_name_opens_any_protocol_and_port_it_is_allowed_for_and_no_other() -> Result<()> {
    use crate::policies::{egress, rule};
    use enforcer_tests::internet::UdpEcho;
    use enforcer_tests::zone;

    let lab = Lab::builder().pod("app").mode("app", "enforce").start()?;
    lab.policy("cluster-dns.yaml", CLUSTER_DNS)?;
    let rules = [
        rule("postgres", "Allow", "fqdns: [github.com]", "TCP", 5432),
        rule("datagrams", "Allow", "fqdns: [github.com]", "UDP", 4500),
    ];
    lab.policy("app.yaml", &egress("app", &rules))?;
    let _agent = lab.agent()?;
    for family in Family::BOTH {
        let server = lab.pod("app").resolve("github.com", family)?[0];
        assert!(zone::addresses("github.com").contains(&server));
        let _allowed = UdpEcho::serve(&lab.internet.namespace, (server, 4500).into())?;
        let denied = UdpEcho::serve(&lab.internet.namespace, (server, 4501).into())?;
        assert_eq!(lab.pod("app").connect(server, 5432), Outcome::Connected);
        assert_eq!(lab.pod("app").connect(server, 443), Outcome::TimedOut);
        lab.pod("app").ping((server, 4500).into(), b"allowed")?;
        assert!(lab.pod("app").ping((server, 4501).into(), b"denied").is_err());
        assert_eq!(denied.received(), 0);
    }
    Ok(())
}
