//! The process behind a socket, as records show it. Owns how a container is told from the path of a control group; never
//! reads a file.

use serde::{Deserialize, Serialize};

/// Digits of a container's number.
const CONTAINER_DIGITS: usize = 64;

/// A process.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its number on the node.
    pub pid: u32,
    /// Name of the thread that used the socket, at most 15 octets.
    pub command: String,
    /// File that it runs, as the process sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// Number of its container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// The container in the path of a control group: the last part that ends with 64 hexadecimal digits, as container runtimes
/// name them (`cri-containerd-DIGITS.scope`, `crio-DIGITS.scope`, `docker/DIGITS`).
pub fn container_in(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let digits = part.get(part.len().checked_sub(CONTAINER_DIGITS)?..)?;
        let is_hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        digits.chars().all(is_hexadecimal).then_some(digits)
    })
}

#[cfg(test)]
mod tests {
    use super::container_in;

    #[test]
    fn a_container_is_found_whoever_runs_it() {
        let digits = "0123456789abcdef".repeat(4);
        for path in [
            format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{digits}.scope"),
            format!("/kubepods/besteffort/pod1/{digits}"),
            format!("/machine.slice/crio-{digits}.scope/container"),
        ] {
            assert_eq!(container_in(&path), Some(digits.as_str()), "{path}");
        }
        for path in ["/", "/system.slice/sshd.service", &format!("/a/{}", &digits[1..]), "/é"] {
            assert_eq!(container_in(path), None, "{path}");
        }
    }
}
