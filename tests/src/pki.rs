//! A certificate authority of our own, in a directory, for tests with TLS.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use handover_tls::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// The authority.
pub struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// The common name: the user at etcd.
    pub common_name: Option<String>,
    /// URI names, such as `handover://prod/coordinator`.
    pub uris: Vec<String>,
    /// Addresses, for servers that are known by theirs.
    pub addresses: Vec<IpAddr>,
    /// How many days ago it was issued, and in how many it expires (negative: it has). None: long ago, and never.
    pub days: Option<(i64, i64)>,
}

impl Subject {
    /// Somebody known to etcd by this name.
    pub fn named(common_name: &str) -> Self {
        Self { common_name: Some(common_name.to_owned()), ..Self::default() }
    }

    /// The same, with one more URI name.
    #[must_use]
    pub fn uri(mut self, uri: impl ToString) -> Self {
        self.uris.push(uri.to_string());
        self
    }
}

impl Pki {
    /// A new authority whose files lie in `dir`, which is made; its own certificate is `ca.pem` there.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn new(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "handover-tests");
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pki = Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate()?)?, dir: dir.to_owned() };
        std::fs::write(pki.ca(), pki.ca.pem())?;
        Ok(pki)
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// Issues a certificate for both ends of a connection, as `{file}.pem` and `{file}.key`.
    ///
    /// # Errors
    /// If the names are none, or the files cannot be written.
    pub fn issue(&self, file: &str, subject: &Subject) -> Result<TlsFiles> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = &subject.common_name {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        for uri in &subject.uris {
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into()?));
        }
        params.subject_alt_names.extend(subject.addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if let Some((ago, left)) = subject.days {
            let began = date_time_ymd(1970, 1, 1);
            (params.not_before, params.not_after) = (began + in_days(-ago)?, began + in_days(left)?);
        }
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.ca)?;
        let path = |end: &str| self.dir.join(format!("{file}.{end}"));
        std::fs::write(path("pem"), cert.pem())?;
        std::fs::write(path("key"), key.serialize_pem())?;
        Ok(TlsFiles { prefix: "store.", ca: self.ca(), cert: path("pem"), key: path("key") })
    }

    /// Issues a server's certificate for 127.0.0.1.
    ///
    /// # Errors
    /// As [`Pki::issue`].
    pub fn server(&self, file: &str) -> Result<TlsFiles> {
        self.issue(file, &Subject { addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)], ..Subject::default() })
    }
}

/// The moment in so many days, since 1970.
fn in_days(days: i64) -> Result<Duration> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).context("before 1970")?;
    let seconds = now.as_secs().checked_add_signed(days * 86_400).context("before 1970")?;
    Ok(Duration::from_secs(seconds))
}
