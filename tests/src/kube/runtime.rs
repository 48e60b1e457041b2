//! The node's container runtime: runc, with a bundle whose limits are what the node's cgroups can give. Owns what is taken
//! out of the bundle; everything else is runc's.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::role::is_without_limits;

/// Becomes runc.
///
/// # Errors
/// When the bundle cannot be read or written, or there is no runc.
pub(super) fn run(arguments: &[&str]) -> Result<()> {
    let bundle = arguments.windows(2).find(|pair| pair[0] == "--bundle").map(|pair| Path::new(pair[1]));
    if let Some(bundle) = bundle.filter(|_| is_without_limits()) {
        let file = bundle.join("config.json");
        let text = std::fs::read_to_string(&file).context("failed to read the bundle")?;
        std::fs::write(&file, without_limits(&text)?).context("failed to write the bundle")?;
    }
    Err(Command::new("runc").args(arguments).exec()).context("failed to start runc")
}

/// A bundle's configuration with no limits but those of devices.
fn without_limits(configuration: &str) -> Result<String> {
    let mut configuration: Value = serde_json::from_str(configuration)?;
    if let Some(resources) = configuration.pointer_mut("/linux/resources").and_then(Value::as_object_mut) {
        resources.retain(|name, _| name == "devices");
    }
    Ok(configuration.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_stay() {
        let given =
            r#"{"linux":{"resources":{"devices":[],"cpu":{"shares":2},"memory":{},"unified":{}}},"root":{}}"#;
        assert_eq!(without_limits(given).unwrap(), r#"{"linux":{"resources":{"devices":[]}},"root":{}}"#);
    }
}
