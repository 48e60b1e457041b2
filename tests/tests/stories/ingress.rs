//! East-west: `networking.k8s.io/v1` NetworkPolicy between pods of one node, beside namespaces with other modes (C21).

use anyhow::Result;
use enforcer_tests::{Family, Lab, Outcome};

const DATABASE: &str = r"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: database, namespace: shop}
spec:
  podSelector: {matchLabels: {app: database}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{protocol: TCP, port: 5432}]
";

#[test]
fn a_network_policy_admits_who_it_names_and_nobody_else() -> Result<()> {
    let lab =
        Lab::builder().pod_in("shop", "database").pod_in("shop", "web").pod_in("shop", "batch").start()?;
    lab.policy("database.yaml", DATABASE)?;
    let (database, _other) = (lab.pod("database").serve(5432)?, lab.pod("database").serve(8080)?);
    let _web = lab.pod("web").serve(8080)?;
    let agent = lab.agent()?;
    for family in Family::BOTH {
        let address = lab.pod("database").address(family);
        assert_eq!(lab.pod("web").connect(address, 5432), Outcome::Connected, "{family}");
        assert_eq!(lab.pod("web").connect(address, 8080), Outcome::TimedOut, "{family}: another port");
        assert_eq!(lab.pod("batch").connect(address, 5432), Outcome::TimedOut, "{family}: another pod");
        // Nothing selects web: it is open, also to the database.
        assert_eq!(lab.pod("database").connect(lab.pod("web").address(family), 8080), Outcome::Connected);
        let from_node = lab.node.enter(|| enforcer_tests::client::connect_here((address, 8080).into()));
        assert!(from_node.is_ok(), "{family}: the node reaches its own pods: {from_node:?}");
    }
    assert_eq!(database.accepted.len(), 2);
    let record = agent.await_record("batch's refusal", |record| {
        record.source() == "shop/batch" && record.verdict() == "DENIED"
    })?;
    assert_eq!((record.destination().as_str(), record.text("/reason")), ("shop/database", "tier-default"));
    assert_eq!(record.text("/direction").to_uppercase(), "INGRESS");
    Ok(())
}
