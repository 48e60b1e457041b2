//! The three workloads of `deploy/examples/egress`, as Deployments in a real cluster: what each reaches, by names that CoreDNS
//! resolves and pods look up as any pod does.

use std::path::Path;

use anyhow::{Result, ensure};
use enforcer_tests::kube::{AGNHOST, AT_ONCE, Kube};
use serde_json::{Value, json};

use super::Story;

/// In order.
pub(crate) const STORIES: &[Story] =
    &[("three_apps_reach_what_they_may_by_name", three_apps_reach_what_they_may_by_name)];

/// Each is a Deployment in a namespace of the same name.
const APPS: [&str; 3] = ["payment", "update", "alerts"];
/// What they try, and who reaches it.
const TARGETS: [(&str, &[&str]); 5] = [
    ("github.com:22", &["update"]),
    ("api.github.com:443", &[]),
    ("github.com:443", &[]),
    ("pagerduty.com:443", &["alerts"]),
    ("events.pagerduty.com:443", &["alerts"]),
];

fn three_apps_reach_what_they_may_by_name(cluster: &Kube) -> Result<()> {
    for file in ["namespaces.yaml", "cluster-dns.yaml", "update-egress.yaml", "alerts-egress.yaml"] {
        cluster.kubectl(&["apply", "-f", &example(file)])?;
    }
    for app in APPS {
        cluster.apply(&deployment(app).to_string())?;
    }
    for app in APPS {
        cluster.kubectl(&["-n", app, "rollout", "status", &format!("deployment/{app}"), "--timeout=120s"])?;
    }
    // What is admitted shows that all of it is in force; what is not is asked for after that.
    for (target, who) in TARGETS {
        for app in who {
            let what = format!("{app} reaches {target}");
            cluster.wait(&what, || {
                Ok(cluster.connect(app, &format!("deployment/{app}"), target)?.is_empty().then_some(()))
            })?;
        }
    }
    for (target, who) in TARGETS {
        for app in APPS {
            let expected = if who.contains(&app) { "" } else { AT_ONCE };
            let said = cluster.connect(app, &format!("deployment/{app}"), target)?;
            ensure!(said == expected, "{app} to {target}: {said:?}");
        }
    }
    let files = ["update-egress.yaml", "alerts-egress.yaml", "cluster-dns.yaml", "namespaces.yaml"];
    files
        .iter()
        .try_for_each(|file| cluster.kubectl(&["delete", "--wait=false", "-f", &example(file)]).map(drop))
}

fn example(file: &str) -> String {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the tree's top level");
    tree.join("deploy/examples/egress").join(file).display().to_string()
}

fn deployment(app: &str) -> Value {
    let labels = json!({"app": app});
    let container = json!({"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "args": ["pause"]});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": app, "namespace": app},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        },
    })
}
