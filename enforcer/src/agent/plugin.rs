//! The network plugin's place on this node, as the agent keeps it: its file is put once, its configuration follows the others;
//! or, where it is not wanted, what an earlier agent put there is taken away.
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
    /// Why its file is not there, or still is.
    missing: Option<Problem>,
    /// True when its file was put, or everything was taken away.
    is_done: bool,
}

impl Plugin {
    /// One that is not in its place yet.
    pub fn new(options: Options) -> Self {
        Self { options, missing: None, is_done: false }
    }

    /// The directory whose changes it follows.
    pub fn directory(&self) -> &Path {
        &self.options.configurations
    }

    /// One word for what [`Self::keep`] says.
    pub fn failure(&self) -> &'static str {
        if self.options.is_wanted { "NetworkPluginNotInstalled" } else { "NetworkPluginNotRemoved" }
    }

    /// Puts it in its place, or takes it away where it is not wanted; says why that failed. What failed is tried again when
    /// `is_time`.
    pub fn keep(&mut self, is_time: bool) -> Option<Problem> {
        if self.options.is_wanted { self.install(is_time) } else { self.remove(is_time) }
    }

    fn remove(&mut self, is_time: bool) -> Option<Problem> {
        if !self.is_done && (is_time || self.missing.is_none()) {
            let Options { configurations, plugins, .. } = &self.options;
            let removed = install::remove(configurations, plugins);
            if matches!(removed, Ok(true)) {
                tracing::info!(directory = %configurations.display(), "pods no longer wait for their policy");
            }
            self.is_done = removed.is_ok();
            let stays = "until then pods that start wait for the agent";
            self.missing = removed.err().map(|error| Problem::of_file(configurations, chain(&error), stays));
        }
        self.missing.clone()
    }

    fn install(&mut self, is_time: bool) -> Option<Problem> {
        let plugins = &self.options.plugins;
        if !self.is_done && (is_time || self.missing.is_none()) {
            let put = install::put(Path::new(OWN), plugins);
            self.is_done = put.is_ok();
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
        let (is_wanted, socket) = (true, "/socket".into());
        let mut options =
            Options { is_wanted, configurations, plugins: plugins.clone(), socket, failure_policy };
        let mut plugin = Plugin::new(options.clone());
        let missing = plugin.keep(false).expect("there is no such directory");
        assert!(missing.reason.starts_with("failed to write"), "{missing}");
        std::fs::create_dir(&plugins).expect("made");
        assert_eq!(plugin.keep(false), Some(missing), "it is not time");
        assert_eq!(plugin.keep(true), None);
        assert!(
            plugins.join(crate::cni::NAME).exists()
                && plugin.directory().join("00-enforcer.conflist").exists()
        );
        options.is_wanted = false;
        let mut unwanted = Plugin::new(options);
        assert_eq!(unwanted.keep(false), None);
        assert!(
            !plugins.join(crate::cni::NAME).exists()
                && !plugin.directory().join("00-enforcer.conflist").exists()
        );
    }
}
