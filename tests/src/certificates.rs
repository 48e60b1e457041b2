//! An authority and certificates of it for a server at 127.0.0.1 and its client, made by OpenSSL. Owns the files: `ca.pem`,
//! `server.pem`, `server.key`, `client.pem` and `client.key` of a directory; never who trusts whom.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A key that is not encrypted.
const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

/// Makes all of them, in place of former ones.
///
/// # Errors
/// When OpenSSL does not.
pub fn make(directory: &Path) -> Result<()> {
    let subject = ["-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"];
    openssl(directory, &[&["req", "-x509", "-days", "1"], &NEW_KEY[..], &subject].concat())?;
    let address = "subjectAltName=IP:127.0.0.1";
    for (name, usage) in
        [("server", "extendedKeyUsage=serverAuth"), ("client", "extendedKeyUsage=clientAuth")]
    {
        let [key, certificate] = ["key", "pem"].map(|end| format!("{name}.{end}"));
        let subject = format!("/CN={name}");
        let end = "basicConstraints=critical,CA:FALSE";
        let signed =
            ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", end, "-addext", address, "-addext", usage];
        let files = ["-subj", &subject, "-keyout", &key, "-out", &certificate];
        openssl(directory, &[&["req", "-x509", "-days", "1"], &NEW_KEY[..], &signed, &files].concat())?;
    }
    Ok(())
}

fn openssl(directory: &Path, arguments: &[&str]) -> Result<()> {
    let made = Command::new("openssl").args(arguments).current_dir(directory).output();
    let made = made.context("failed to run openssl")?;
    if !made.status.success() {
        bail!("openssl {arguments:?}: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok(())
}
