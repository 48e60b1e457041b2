//! The bill of materials of the product: every crate that is linked into the program or its kernel programs, as CycloneDX 1.6
//! (cyclonedx.org/docs/1.6/json). Owns the reading of cargo's metadata; it has no time and no random number in it, so that the
//! same tree has the same bill.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::commands::ENFORCER;
use crate::shell;

/// Packages whose code is in the image: the program, and the kernel programs that it carries.
const ROOTS: [&str; 2] = [ENFORCER, "enforcer-ebpf"];

/// The bill for programs of a triple.
///
/// # Errors
/// When cargo cannot tell what the program is made of.
pub(super) fn bill(triple: &str) -> Result<Vec<u8>> {
    let mut cargo =
        shell::cargo(&["metadata", "--format-version=1", "--locked", "--filter-platform", triple]);
    let said = cargo.output().context("failed to run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&said.stdout).context("failed to read cargo's metadata")?;
    let lock = std::fs::read_to_string(shell::root().join("Cargo.lock"))?;
    let mut text = serde_json::to_vec_pretty(&write(&metadata, &checksums(&lock))?)?;
    text.push(b'\n');
    Ok(text)
}

fn write(metadata: &Value, checksums: &BTreeMap<(String, String), String>) -> Result<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> =
        list(&metadata["packages"]).into_iter().map(|package| (text(&package["id"]), package)).collect();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
    let mut left: Vec<String> = packages
        .iter()
        .filter(|(_, p)| ROOTS.contains(&text(&p["name"]).as_str()))
        .map(|(id, _)| id.clone())
        .collect();
    let mut found = BTreeSet::new();
    while let Some(id) = left.pop() {
        let node = nodes.get(&id).with_context(|| format!("cargo resolved no {id}"))?;
        if found.insert(id) {
            left.extend(list(&node["deps"]).iter().filter(|dep| is_linked(dep)).map(|dep| text(&dep["pkg"])));
        }
    }
    let of = |id: &String| &packages[id];
    let own = found.iter().map(of).find(|package| package["name"] == ENFORCER).context("no product")?;
    let components: Vec<Value> = found.iter().map(|id| component(of(id), checksums)).collect();
    let dependencies: Vec<Value> = found
        .iter()
        .map(|id| {
            let on = list(&nodes[id]["deps"])
                .into_iter()
                .filter(is_linked)
                .map(|dep| purl(of(&text(&dep["pkg"]))));
            json!({"ref": purl(of(id)), "dependsOn": on.collect::<BTreeSet<_>>()})
        })
        .collect();
    let mut about = component(own, checksums);
    about["type"] = json!("application");
    about["bom-ref"] = json!("image");
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": about},
        "components": components,
        "dependencies": dependencies,
    }))
}

/// True for what ends up in the program, rather than in the tools that build or test it.
fn is_linked(dependency: &Value) -> bool {
    dependency["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
}

fn component(package: &Value, checksums: &BTreeMap<(String, String), String>) -> Value {
    let [name, version] = ["name", "version"].map(|key| text(&package[key]));
    let mut all = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": name,
        "version": version,
        "purl": purl(package),
    });
    if let Some(license) = package["license"].as_str() {
        // Before SPDX, crates wrote a slash for "or".
        all["licenses"] = json!([{"expression": license.replace('/', " OR ")}]);
    }
    if let Some(checksum) = checksums.get(&(name, version)) {
        all["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    all
}

/// A package's URL (github.com/package-url/purl-spec).
fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", text(&package["name"]), text(&package["version"]))
}

/// Checksum of every package of a lock file that has one, by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let entry = |block: &str| {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            line.map(|value| value.trim_end_matches('"').to_owned())
        };
        Some(((field("name")?, field("version")?), field("checksum")?))
    };
    lock.split("[[package]]").filter_map(entry).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str) -> Value {
        json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0"})
    }

    #[test]
    fn what_is_linked_is_listed_with_its_checksum_and_what_only_builds_is_not() {
        let dependency = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [package("enforcer"), package("enforcer-ebpf"), package("linked"), package("builds")],
            "resolve": {"nodes": [
                {"id": "enforcer", "deps": [dependency("linked", Value::Null), dependency("builds", json!("build"))]},
                {"id": "enforcer-ebpf", "deps": []},
                {"id": "linked", "deps": []},
                {"id": "builds", "deps": []},
            ]},
        });
        let lock = "[[package]]\nname = \"linked\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n\n[[package]]\nname = \"enforcer\"\n";
        let bill = write(&metadata, &checksums(lock)).unwrap();
        let names: Vec<_> = bill["components"].as_array().unwrap().iter().map(|c| text(&c["name"])).collect();
        assert_eq!(names, ["enforcer", "enforcer-ebpf", "linked"]);
        assert_eq!(bill["components"][2]["hashes"], json!([{"alg": "SHA-256", "content": "00ff"}]));
        assert_eq!(bill["components"][2]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["dependencies"][0]["dependsOn"], json!(["pkg:cargo/linked@1.0.0"]));
    }
}
