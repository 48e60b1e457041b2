//! Who is who in a cluster under test: an authority, certificates of servers and clients, the key of service accounts, and the
//! kubeconfig of every client. Owns the files of one directory; they live as long as the cluster.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// How old certificates are when they are made.
const VALID_BEFORE: Duration = Duration::from_secs(24 * 3600);

/// The authority and where its files lie.
#[derive(Debug)]
pub(crate) struct Pki {
    directory: PathBuf,
    server: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Makes the authority and the key of service accounts; `server` is the API server's URL.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn create(directory: &Path, server: &str) -> Result<Self> {
        std::fs::create_dir(directory).with_context(|| format!("failed to make {}", directory.display()))?;
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "cluster under test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate()?;
        std::fs::write(directory.join("ca.crt"), authority.self_signed(&key)?.pem())?;
        std::fs::write(directory.join("ca.key"), key.serialize_pem())?;
        let accounts = KeyPair::generate()?;
        std::fs::write(directory.join("accounts.key"), accounts.serialize_pem())?;
        std::fs::write(directory.join("accounts.pub"), accounts.public_key_pem())?;
        let (directory, server) = (directory.to_owned(), server.to_owned());
        Ok(Self { directory, server, issuer: Issuer::new(authority, key) })
    }

    /// A file of it.
    pub(crate) fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Makes `NAME.crt` and `NAME.key` for a server that is reached at these names and addresses.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn serving(&self, name: &str, names: &[&str], addresses: &[IpAddr]) -> Result<()> {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())?;
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.distinguished_name.push(DnType::CommonName, name);
        self.issue(name, params, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Makes `NAME.crt`, `NAME.key` and `NAME.kubeconfig` for a client: what the API server calls it, and its group.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn client(&self, name: &str, user: &str, group: Option<&str>) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        self.issue(name, params, ExtendedKeyUsagePurpose::ClientAuth)?;
        let [certificate, key] = [format!("{name}.crt"), format!("{name}.key")].map(|file| self.file(&file));
        let credentials = format!("client-certificate: {certificate}, client-key: {key}");
        self.kubeconfig(name, &credentials, "default").map(drop)
    }

    /// Makes `NAME.kubeconfig` for an account of a namespace, whose token is in a file, and returns where it is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn account(&self, name: &str, token: &Path, namespace: &str) -> Result<String> {
        self.kubeconfig(name, &format!("tokenFile: {}", token.display()), namespace)
    }

    fn kubeconfig(&self, name: &str, credentials: &str, namespace: &str) -> Result<String> {
        let (server, authority) = (&self.server, self.file("ca.crt"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: only\n\
             clusters: [{{name: only, cluster: {{server: \"{server}\", certificate-authority: {authority}}}}}]\n\
             users: [{{name: only, user: {{{credentials}}}}}]\n\
             contexts: [{{name: only, context: {{cluster: only, user: only, namespace: {namespace}}}}}]\n"
        );
        let file = self.file(&format!("{name}.kubeconfig"));
        std::fs::write(&file, text)?;
        Ok(file)
    }

    fn issue(&self, name: &str, mut params: CertificateParams, usage: ExtendedKeyUsagePurpose) -> Result<()> {
        // A clock that is far behind is before it.
        params.not_before = (SystemTime::now() - VALID_BEFORE).into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::write(self.directory.join(format!("{name}.crt")), certificate.pem())?;
        Ok(std::fs::write(self.directory.join(format!("{name}.key")), key.serialize_pem())?)
    }
}
