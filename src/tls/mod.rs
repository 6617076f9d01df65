//! TLS between controller and agents: each side proves who it is with a certificate of the installation's own authority.
//!
//! Agents are found by their pods' addresses, which change, so certificates name no address: an agent is asked as
//! `10-244-1-5.agent.volumeviz.internal`, a name that only this module resolves, and one certificate is for all of `*.agent.volumeviz.internal`.

pub mod issue;
mod names;

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Certificate;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use self::issue::Holder;
pub use self::names::host;

/// The domain of everything here.
const DOMAIN: &str = "volumeviz.internal";

/// Chooses the implementation of TLS for the process, which kube, sqlx and reqwest share; only the first choice counts.
pub fn choose_provider() {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::trace!("a TLS provider was chosen before");
    }
}

/// A certificate, its key, and the authorities that the other side's certificate must be of; all as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// One or more authorities.
    pub authorities: String,
    /// One's own certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl fmt::Debug for Credentials {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

/// Credentials that cannot be used. None of it tells a key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no PEM, or has nothing of the kind in it.
    #[error("failed to read {what}: {source}")]
    Pem {
        /// Of what.
        what: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// Certificate and key do not belong together, or an authority is none.
    #[error("failed to use the certificate: {0}")]
    Unusable(#[from] rustls::Error),
    /// There is no authority.
    #[error("failed to use the authorities: {0}")]
    Authorities(#[from] VerifierBuilderError),
    /// An address has no name; none is known.
    #[error("failed to name an agent by its address")]
    Name,
    /// The HTTP client could not be made.
    #[error("failed to set up the HTTP client for agents: {0}")]
    Client(#[from] reqwest::Error),
}

impl Credentials {
    /// For an agent: answers to whoever has a certificate for clients, in HTTP/1.1 over TLS 1.3.
    pub fn server(&self) -> Result<ServerConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authorities = Arc::new(self.roots()?);
        let clients = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(&provider)).build()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|source| Error::Pem { what: "the certificate's key", source })?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(certificates("the certificate", &self.certificate)?, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Whether the other side would take these at this time: key and certificate belong together, one of the authorities vouches for it, and it is
    /// for this holder.
    pub fn verify(&self, holder: Holder, now: DateTime<Utc>) -> Result<(), Error> {
        self.server()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let authorities = Arc::new(self.roots()?);
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        for certificate in certificates("the certificate", &self.certificate)? {
            match holder {
                Holder::Agent => {
                    let name = ServerName::try_from(host(Ipv4Addr::LOCALHOST.into())).map_err(|_| Error::Name)?;
                    let verifier =
                        WebPkiServerVerifier::builder_with_provider(Arc::clone(&authorities), Arc::clone(&provider));
                    verifier.build()?.verify_server_cert(&certificate, &[], &name, &[], now)?;
                }
                Holder::Controller => {
                    let verifier =
                        WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities), Arc::clone(&provider));
                    verifier.build()?.verify_client_cert(&certificate, &[], now)?;
                }
            }
        }
        Ok(())
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for authority in certificates("the authorities", &self.authorities)? {
            roots.add(authority)?;
        }
        Ok(roots)
    }

    /// For the controller: reaches agents, and nobody else, at the names that [`host`] makes.
    pub fn client(&self, connect_timeout: Duration, timeout: Duration) -> Result<reqwest::Client, Error> {
        // reqwest panics without one.
        choose_provider();
        let authorities = certificates("the authorities", &self.authorities)?;
        let authorities: Vec<_> =
            authorities.iter().map(|authority| Certificate::from_der(authority)).collect::<Result<_, _>>()?;
        let identity = reqwest::Identity::from_pem(format!("{}\n{}", self.certificate, self.key).as_bytes())?;
        // Agents are pods: no proxy of the environment leads to them, and they redirect nowhere.
        let client = reqwest::Client::builder()
            .tls_certs_only(authorities)
            .identity(identity)
            .tls_version_min(reqwest::tls::Version::TLS_1_3)
            .https_only(true)
            .dns_resolver(names::Resolver)
            .connect_timeout(connect_timeout)
            .timeout(timeout)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(client)
    }
}

/// Whether this is the PEM text of one certificate, in a form in which an authority can be believed.
pub fn is_authority(text: &str) -> bool {
    let mut roots = RootCertStore::empty();
    certificates("the authority", text)
        .is_ok_and(|found| found.len() == 1 && found.into_iter().all(|authority| roots.add(authority).is_ok()))
}

fn certificates(what: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Pem { what, source })
}
