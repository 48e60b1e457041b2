//! The policies the stories use: those that ship as the example, and small ones made to measure.

/// Everybody may ask the resolver.
pub(crate) const CLUSTER_DNS: &str = include_str!("../../../deploy/examples/egress/cluster-dns.yaml");
/// update: TCP/22 to github.com.
pub(crate) const UPDATE: &str = include_str!("../../../deploy/examples/egress/update-egress.yaml");
/// alerts: TCP/443 to pagerduty.com and below.
pub(crate) const ALERTS: &str = include_str!("../../../deploy/examples/egress/alerts-egress.yaml");

/// An egress policy of a namespace, from rules as [`rule`] writes them.
pub(crate) fn egress(namespace: &str, rules: &[String]) -> String {
    format!(
        "apiVersion: enforcer.dev/v1alpha1\nkind: SegmentPolicy\n\
         metadata: {{name: {namespace}-egress, namespace: {namespace}}}\n\
         spec:\n  subject: {{}}\n  egress:\n{}",
        rules.concat()
    )
}

/// One rule: `peers` is what stands in the only entry of `to`, for example `fqdns: [github.com]`.
pub(crate) fn rule(name: &str, action: &str, peers: &str, protocol: &str, port: u16) -> String {
    format!(
        "  - name: {name}\n    action: {action}\n    to: [{{{peers}}}]\n    \
         ports: [{{protocol: {protocol}, port: {port}}}]\n"
    )
}

/// Namespace objects with their modes.
pub(crate) fn modes(modes: &[(&str, &str)]) -> String {
    let object = |(name, mode): &(&str, &str)| {
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{enforcer.dev/mode: {mode}}}}}\n"
        )
    };
    modes.iter().map(object).collect()
}
