//! Writes container images of one layer as archives in the OCI image layout (github.com/opencontainers/image-spec, v1.1).
//! Owns the format: the same content gives the same octets, on every machine and at every time. Never decides what an image
//! holds, and reads nothing but the files it is given.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// What every file and the image itself claim as their time: the beginning of Unix time.
const TIME: u64 = 0;
const CREATED: &str = "1970-01-01T00:00:00Z";

/// An image that will be.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Image {
    /// Its name with its tag, `registry/name:tag`.
    pub name: String,
    /// What a container of it runs, and the arguments when none are given.
    pub entrypoint: Vec<String>,
    /// See [`Self::entrypoint`].
    pub arguments: Vec<String>,
    /// `NAME=VALUE` each.
    pub environment: Vec<String>,
    /// Numbers of user and group, `UID:GID`; root when empty.
    pub user: String,
    /// Labels of the image, which are annotations of its manifest as well.
    pub labels: BTreeMap<String, String>,
    /// Its processor, as Go names it: `amd64`.
    pub architecture: String,
    files: BTreeMap<String, Entry>,
}

/// What lies at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Entry {
    Directory,
    File { octets: Vec<u8>, mode: u32 },
    Link(String),
}

impl Image {
    /// An empty image of this name, for processors of this kind (`amd64`, `arm64`).
    pub fn new(name: &str, architecture: &str) -> Self {
        Self { name: name.to_owned(), architecture: architecture.to_owned(), ..Self::default() }
    }

    /// Puts a file at `path`, which begins with a slash; `mode` is its permissions.
    pub fn file(&mut self, path: &str, octets: Vec<u8>, mode: u32) {
        self.put(path, Entry::File { octets, mode });
    }

    /// Puts a file of this machine at `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn copy(&mut self, source: &Path, path: &str, mode: u32) -> io::Result<()> {
        self.file(path, std::fs::read(source)?, mode);
        Ok(())
    }

    /// Puts a symbolic link at `path` that leads to `target`.
    pub fn link(&mut self, path: &str, target: &str) {
        self.put(path, Entry::Link(target.to_owned()));
    }

    /// Puts an empty directory at `path`.
    pub fn directory(&mut self, path: &str) {
        self.put(path, Entry::Directory);
    }

    /// Writes the archive, whole or not at all. Returns the digest of its manifest, `sha256:...`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, archive: &Path) -> io::Result<String> {
        let layer = self.layer()?;
        let config = octets(&self.config(&layer));
        let manifest = octets(&self.manifest(&config, &layer));
        let index = octets(&self.index(&manifest));
        let partial = archive.with_extension("partial");
        let mut tar = Builder::new(io::BufWriter::new(File::create(&partial)?));
        append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut tar, "index.json", &index)?;
        for blob in [&config, &manifest, &layer] {
            append(&mut tar, &format!("blobs/sha256/{}", hex(blob)), blob)?;
        }
        tar.into_inner()?.flush()?;
        std::fs::rename(&partial, archive)?;
        Ok(digest(&manifest))
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            self.files.entry(path[..end].to_owned()).or_insert(Entry::Directory);
        }
        self.files.insert(path.to_owned(), entry);
    }

    /// The file system as an archive, a directory before what is in it.
    fn layer(&self) -> io::Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for (path, entry) in &self.files {
            match entry {
                Entry::Directory => {
                    let mut header = header(EntryType::Directory, 0o755, 0);
                    tar.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Entry::File { octets, mode } => {
                    let mut header = header(EntryType::Regular, *mode, octets.len());
                    tar.append_data(&mut header, path, octets.as_slice())?;
                }
                Entry::Link(target) => {
                    tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target)?;
                }
            }
        }
        tar.into_inner()
    }

    fn config(&self, layer: &[u8]) -> Value {
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": CREATED,
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.arguments,
                "Env": self.environment,
                "User": self.user,
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
            "history": [{"created": CREATED, "created_by": "oci-archive"}],
        })
    }

    fn manifest(&self, config: &[u8], layer: &[u8]) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config),
            "layers": [descriptor(LAYER, layer)],
            "annotations": self.labels,
        })
    }

    fn index(&self, manifest: &[u8]) -> Value {
        let mut only = descriptor(MANIFEST, manifest);
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        only["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        // The first is what containerd names an image by, the second what the specification has for tags.
        only["annotations"] =
            json!({"io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag});
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [only]})
    }
}

fn descriptor(kind: &str, blob: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": digest(blob), "size": blob.len()})
}

/// serde_json keeps the members of an object sorted.
fn octets(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn digest(blob: &[u8]) -> String {
    format!("sha256:{}", hex(blob))
}

/// The SHA-256 of a blob in hexadecimal digits.
pub fn hex(blob: &[u8]) -> String {
    Sha256::digest(blob).iter().map(|octet| format!("{octet:02x}")).collect()
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(TIME);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(tar: &mut Builder<impl Write>, path: &str, octets: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(EntryType::Regular, 0o644, octets.len()), path, octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn image() -> Image {
        let mut image = Image::new("registry.example/thing:1.2", "amd64");
        image.entrypoint = vec!["/bin/thing".to_owned()];
        image.labels = [("org.opencontainers.image.title".to_owned(), "thing".to_owned())].into();
        image.link("/bin/other", "thing");
        image.file("/bin/thing", b"octets".to_vec(), 0o755);
        image.directory("/run");
        image
    }

    fn entries(octets: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(octets);
        let read = |entry: io::Result<tar::Entry<'_, &[u8]>>| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn every_descriptor_leads_to_its_blob_and_the_layer_holds_the_files() {
        let directory = tempfile::tempdir().unwrap();
        let archive = directory.path().join("image.tar");
        let told = image().write(&archive).unwrap();
        let all = entries(&std::fs::read(&archive).unwrap());
        let blob = |descriptor: &Value| {
            let name = descriptor["digest"].as_str().unwrap().replace(':', "/");
            let blob = &all[&format!("blobs/{name}")];
            assert_eq!(
                (digest(blob).replace(':', "/"), descriptor["size"].as_u64()),
                (name, Some(blob.len() as u64))
            );
            blob.clone()
        };
        let index: Value = serde_json::from_slice(&all["index.json"]).unwrap();
        let only = &index["manifests"][0];
        assert_eq!(only["digest"], told);
        assert_eq!(only["annotations"]["io.containerd.image.name"], "registry.example/thing:1.2");
        let manifest: Value = serde_json::from_slice(&blob(only)).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["Labels"]["org.opencontainers.image.title"], "thing");
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&layer));
        let files = entries(&layer);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["bin/", "bin/other", "bin/thing", "run/"]);
        assert_eq!(files["bin/thing"], b"octets");
    }

    #[test]
    fn the_same_content_gives_the_same_octets() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one.tar", "other.tar"].map(|name| {
            let archive = directory.path().join(name);
            image().write(&archive).unwrap();
            std::fs::read(archive).unwrap()
        });
        assert!(one == other);
    }
}
