//! The plugin's place on a node: its file, and a network configuration in front of the others which is the first of them
//! with the plugin at its end. Owns these two files and nothing else: what others wrote is never touched, so that
//! removing them restores what was there.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{FailurePolicy, NAME};

/// Our configuration: sorted in front of the others, the one that runtimes use.
const FILE: &str = "00-enforcer.conflist";
/// Endings of files that runtimes read.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];

/// Where the plugin goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// True when it belongs there; false when what an agent put there is to be taken away.
    pub is_wanted: bool,
    /// Network configurations of this node.
    pub configurations: PathBuf,
    /// Plugins of this node.
    pub plugins: PathBuf,
    /// The agent's socket, as the node sees it.
    pub socket: PathBuf,
    /// What becomes of pods while the agent is away.
    pub failure_policy: FailurePolicy,
}

/// Why the plugin is not in its place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file that cannot be read or written.
    #[error("failed to {attempt} {}; mount the node's directory into the agent, writable", path.display())]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No network to be the last plugin of.
    #[error("no network configuration is in {}; the plugin is added as soon as there is one", .0.display())]
    NoNetwork(PathBuf),
    /// Somebody's file comes before ours.
    #[error("{} is read before {FILE}; rename it, or add {NAME} to it by hand", .0.display())]
    Before(PathBuf),
    /// A configuration that is none.
    #[error("failed to understand {}: {reason}; correct it, the plugin is added then", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl InstallError {
    fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { attempt, path: path.to_owned(), source }
    }
}

/// Puts the program `own` where runtimes look for plugins, unless it is there.
///
/// # Errors
/// [`InstallError::Io`]; what was there stays.
pub fn put(own: &Path, plugins: &Path) -> Result<(), InstallError> {
    let plugin = plugins.join(NAME);
    let program = fs::read(own).map_err(InstallError::io("read", own))?;
    if fs::read(&plugin).is_ok_and(|there| there == program) {
        return Ok(());
    }
    place(&plugin, &program, 0o755)
}

/// Puts the configuration in its place, or brings it up to date; true when it changed.
///
/// # Errors
/// [`InstallError`]; what was in its place stays.
pub fn chain(options: &Options) -> Result<bool, InstallError> {
    let (path, network) = network(&options.configurations)?;
    let wanted = chained(&path, network, options)?;
    let file = options.configurations.join(FILE);
    let is_same = fs::read(&file).is_ok_and(|there| there == wanted);
    if !is_same {
        place(&file, &wanted, 0o600)?;
    }
    Ok(!is_same)
}

/// Takes both away; true when there was anything.
///
/// # Errors
/// [`InstallError::Io`].
pub fn remove(configurations: &Path, plugins: &Path) -> Result<bool, InstallError> {
    let mut any = false;
    // The configuration first: one without its plugin would keep pods from starting.
    for path in [configurations.join(FILE), plugins.join(NAME)] {
        // A directory that is read-only does not say that nothing is there.
        if fs::symlink_metadata(&path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            continue;
        }
        match fs::remove_file(&path) {
            Ok(()) => any = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(InstallError::io("remove", &path)(error)),
        }
    }
    Ok(any)
}

/// The configuration that runtimes would use were ours not there.
fn network(directory: &Path) -> Result<(PathBuf, Vec<u8>), InstallError> {
    let entries = fs::read_dir(directory).map_err(InstallError::io("read", directory))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name != FILE))
        .filter(|path| path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known)))
        .collect();
    files.sort();
    let first = files.into_iter().next().ok_or_else(|| InstallError::NoNetwork(directory.to_owned()))?;
    if first < directory.join(FILE) {
        return Err(InstallError::Before(first));
    }
    let text = fs::read(&first).map_err(InstallError::io("read", &first))?;
    Ok((first, text))
}

/// The configuration with the plugin at its end.
fn chained(path: &Path, text: Vec<u8>, options: &Options) -> Result<Vec<u8>, InstallError> {
    let malformed = |reason: String| InstallError::Malformed { path: path.to_owned(), reason };
    let value: Value = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    let Value::Object(fields) = value else { return Err(malformed("it is no object".to_owned())) };
    let mut list = listed(fields).map_err(malformed)?;
    let Some(Value::Array(plugins)) = list.get_mut("plugins") else {
        return Err(malformed("plugins is no list".to_owned()));
    };
    plugins.retain(|plugin| plugin.get("type").and_then(Value::as_str) != Some(NAME));
    if plugins.is_empty() {
        return Err(malformed("it has no plugins".to_owned()));
    }
    plugins.push(json!({"type": NAME, "socket": options.socket, "failurePolicy": options.failure_policy}));
    let mut text = serde_json::to_vec_pretty(&list).map_err(|error| malformed(error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

/// A configuration of one plugin as a list of one.
fn listed(mut fields: Map<String, Value>) -> Result<Map<String, Value>, String> {
    if fields.contains_key("plugins") {
        return Ok(fields);
    }
    let name = fields.get("name").cloned().ok_or("it has no name")?;
    let version = fields.remove("cniVersion").unwrap_or_else(|| "0.3.1".into());
    let list = json!({"cniVersion": version, "name": name, "plugins": [fields]});
    list.as_object().cloned().ok_or_else(|| "it is no object".to_owned())
}

/// Puts a file in its place in one step: nobody ever reads a half of it.
fn place(path: &Path, content: &[u8], mode: u32) -> Result<(), InstallError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    // Runtimes read no file that ends so.
    let next = path.with_file_name(name);
    fs::write(&next, content).map_err(InstallError::io("write", &next))?;
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(&next, permissions).map_err(InstallError::io("write", &next))?;
    fs::rename(&next, path).map_err(InstallError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Node {
        root: tempfile::TempDir,
        options: Options,
    }

    impl Node {
        fn new() -> Self {
            let root = tempfile::tempdir().expect("a directory");
            let [configurations, plugins] = ["net.d", "bin"].map(|name| root.path().join(name));
            for directory in [&configurations, &plugins] {
                fs::create_dir(directory).expect("made");
            }
            fs::write(root.path().join("own"), "program").expect("written");
            let (socket, failure_policy) = ("/run/enforcer/enforcer.sock".into(), FailurePolicy::Closed);
            Self {
                options: Options { is_wanted: true, configurations, plugins, socket, failure_policy },
                root,
            }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.options.configurations.join(name), text).expect("written");
        }

        fn install(&self) -> Result<bool, String> {
            put(&self.root.path().join("own"), &self.options.plugins).map_err(|error| error.to_string())?;
            chain(&self.options).map_err(|error| error.to_string())
        }

        fn chained(&self) -> Value {
            let text = fs::read(self.options.configurations.join(FILE)).expect("it is there");
            serde_json::from_slice(&text).expect("JSON")
        }
    }

    #[test]
    fn the_plugin_is_the_last_of_the_first_network_and_going_leaves_nothing() {
        let node = Node::new();
        let original = r#"{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"ptp","mtu":1400},{"type":"portmap"}]}"#;
        node.write("10-pods.conflist", original);
        node.write("20-other.conf", "{}");
        assert_eq!(node.install(), Ok(true));
        assert_eq!(node.install(), Ok(false), "nothing to do");
        let own = json!({"type": NAME, "socket": "/run/enforcer/enforcer.sock", "failurePolicy": "closed"});
        let plugins = json!([{"type": "ptp", "mtu": 1400}, {"type": "portmap"}, own]);
        assert_eq!(node.chained(), json!({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins}));
        let Options { configurations, plugins, .. } = &node.options;
        assert!(fs::metadata(plugins.join(NAME)).expect("there").permissions().mode() & 0o111 != 0);
        assert!(remove(configurations, plugins).expect("removed"));
        assert!(!remove(configurations, plugins).expect("nothing left"));
        let left: Vec<_> =
            fs::read_dir(configurations).expect("read").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left.len(), 2);
        assert_eq!(fs::read_to_string(configurations.join("10-pods.conflist")).expect("there"), original);
    }

    #[test]
    fn a_configuration_of_one_plugin_becomes_a_list_and_changes_are_followed() {
        let node = Node::new();
        node.write("10-pods.conf", r#"{"cniVersion":"0.4.0","name":"pods","type":"bridge"}"#);
        assert_eq!(node.install(), Ok(true));
        let chain = node.chained();
        assert_eq!((&chain["cniVersion"], &chain["plugins"][0]["type"]), (&json!("0.4.0"), &json!("bridge")));
        node.write("10-pods.conf", r#"{"cniVersion":"0.4.0","name":"pods","type":"ptp"}"#);
        assert_eq!(node.install(), Ok(true));
        assert_eq!(node.chained()["plugins"][0]["type"], json!("ptp"));
    }

    #[test]
    fn what_hinders_says_what_to_do() {
        let node = Node::new();
        assert!(node.install().expect_err("none").contains("no network configuration is in"));
        node.write("10-pods.conflist", "{");
        assert!(node.install().expect_err("broken").contains("failed to understand"));
        node.write("00-a.conflist", "{}");
        assert!(node.install().expect_err("before").contains("is read before 00-enforcer.conflist"));
        let gone = Options { configurations: "/nowhere".into(), ..node.options.clone() };
        let error = chain(&gone).expect_err("gone").to_string();
        assert!(error.starts_with("failed to read /nowhere"), "{error}");
    }
}
