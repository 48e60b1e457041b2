//! The network plugin's place on this node, as the agent keeps it: its file is put once, its configuration follows the others.
//! Owns when something is tried again, and what is said while it is not in its place; the files are [`install`]'s.

use std::path::Path;

use enforcer_core::causes::chain;

use crate::cni::install::{self, InstallError, Options};
use crate::source::problem::Problem;

/// What this program is copied from.
const OWN: &str = "/proc/self/exe";

/// The plugin.
#[derive(Debug)]
pub struct Plugin {
    options: Options,
    /// Why its file is not there.
    missing: Option<Problem>,
    is_put: bool,
}

impl Plugin {
    /// One that is not in its place yet.
    pub fn new(options: Options) -> Self {
        Self { options, missing: None, is_put: false }
    }

    /// The directory whose changes it follows.
    pub fn directory(&self) -> &Path {
        &self.options.configurations
    }

    /// Puts it in its place, or says why it is not there. A file that could not be put is tried again when `is_time`.
    pub fn install(&mut self, is_time: bool) -> Option<Problem> {
        let plugins = &self.options.plugins;
        if !self.is_put && (is_time || self.missing.is_none()) {
            let put = install::put(Path::new(OWN), plugins);
            self.is_put = put.is_ok();
            self.missing = put.err().map(|error| problem(plugins, &error));
        }
        if self.missing.is_some() {
            return self.missing.clone();
        }
        match install::chain(&self.options) {
            Ok(false) => None,
            Ok(true) => {
                tracing::info!(directory = %self.directory().display(), "pods wait for their policy from now on");
                None
            }
            Err(error) => Some(problem(self.directory(), &error)),
        }
    }
}

fn problem(place: &Path, error: &InstallError) -> Problem {
    Problem::of_file(place, chain(error), "until then pods start without waiting for their policy")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::FailurePolicy;

    #[test]
    fn what_could_not_be_put_is_said_and_tried_again_when_it_is_time() {
        let root = tempfile::tempdir().expect("a directory");
        let [configurations, plugins] = ["net.d", "bin"].map(|name| root.path().join(name));
        std::fs::create_dir(&configurations).expect("made");
        std::fs::write(configurations.join("10-a.conf"), r#"{"cniVersion":"1.0.0","name":"a","type":"ptp"}"#)
            .expect("written");
        let failure_policy = FailurePolicy::Closed;
        let options =
            Options { configurations, plugins: plugins.clone(), socket: "/socket".into(), failure_policy };
        let mut plugin = Plugin::new(options);
        let missing = plugin.install(false).expect("there is no such directory");
        assert!(missing.reason.starts_with("failed to write"), "{missing}");
        std::fs::create_dir(&plugins).expect("made");
        assert_eq!(plugin.install(false), Some(missing), "it is not time");
        assert_eq!(plugin.install(true), None);
        assert!(
            plugins.join(crate::cni::NAME).exists()
                && plugin.directory().join("00-enforcer.conflist").exists()
        );
    }
}
