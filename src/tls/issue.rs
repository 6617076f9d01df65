//! The installation's own authority, and the certificates it issues.

use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
};
use time::OffsetDateTime;
use x509_parser::pem::parse_x509_pem;

use super::DOMAIN;

/// How long an authority is valid.
pub const AUTHORITY_LASTS: TimeDelta = TimeDelta::days(730);
/// How long an agent's and the controller's certificate is valid.
pub const CERTIFICATE_LASTS: TimeDelta = TimeDelta::days(90);
/// So far the clocks of nodes may be behind.
pub const CLOCKS_DIFFER: TimeDelta = TimeDelta::hours(1);

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// All agents; it is good for serving only.
    Agent,
    /// The controller; it is good for asking only.
    Controller,
}

/// An authority with its key.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whose it is.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// From when it is valid.
    pub not_before: DateTime<Utc>,
    /// Until when.
    pub not_after: DateTime<Utc>,
}

/// No certificate could be made, or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be made.
    #[error("failed to issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
    /// A date that X.509 cannot write.
    #[error("failed to issue a certificate: {0}")]
    Date(#[from] time::error::ComponentRange),
    /// The text is no certificate.
    #[error("failed to read a certificate: {0}")]
    Read(String),
}

impl Authority {
    /// A new one, which vouches for names below `volumeviz.internal` only.
    pub fn new(now: DateTime<Utc>) -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        // Named by its time: two that are valid together must not have one name.
        let mut params = params(&format!("VolumeViz {}", now.timestamp()), now, AUTHORITY_LASTS)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let permitted_subtrees = vec![GeneralSubtree::DnsName(DOMAIN.to_owned())];
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// One that was made before; certificate and key must belong together.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key)?;
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|error| Error::Read(error.to_string()))?;
        let parsed = pem.parse_x509().map_err(|error| Error::Read(error.to_string()))?;
        if !parsed.is_ca() || parsed.public_key().raw != key.subject_public_key_info() {
            return Err(Error::Read("it is no authority's, or the key is another's".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_pem(certificate, key)?;
        Ok(Self { certificate: certificate.to_owned(), issuer })
    }

    /// Its certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, as PEM.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate that is valid for [`CERTIFICATE_LASTS`] from now.
    pub fn issue(&self, holder: Holder, now: DateTime<Utc>) -> Result<Issued, Error> {
        let (name, purpose) = match holder {
            Holder::Agent => (format!("*.agent.{DOMAIN}"), ExtendedKeyUsagePurpose::ServerAuth),
            Holder::Controller => (format!("controller.{DOMAIN}"), ExtendedKeyUsagePurpose::ClientAuth),
        };
        let key = KeyPair::generate()?;
        let mut params = params(&name, now, CERTIFICATE_LASTS)?;
        params.subject_alt_names = CertificateParams::new([name])?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }
}

fn params(name: &str, now: DateTime<Utc>, lasts: TimeDelta) -> Result<CertificateParams, Error> {
    let date = |date: DateTime<Utc>| OffsetDateTime::from_unix_timestamp(date.timestamp());
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date(now - CLOCKS_DIFFER)?;
    params.not_after = date(now + lasts)?;
    Ok(params)
}

/// What the first certificate of a PEM text says.
pub fn said(text: &str) -> Result<Said, Error> {
    let read = |problem: &dyn std::fmt::Display| Error::Read(problem.to_string());
    let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|error| read(&error))?;
    let certificate = pem.parse_x509().map_err(|error| read(&error))?;
    let date = |timestamp| DateTime::from_timestamp(timestamp, 0).ok_or_else(|| read(&"its dates are out of range"));
    Ok(Said {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        not_before: date(certificate.validity().not_before.timestamp())?,
        not_after: date(certificate.validity().not_after.timestamp())?,
    })
}
