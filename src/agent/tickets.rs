//! Serves tickets over TLS, with the credentials that the kubelet keeps in a directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::tls_rustls::RustlsConfig;
use tokio::net::TcpListener;

use crate::http;
use crate::telemetry::Repeated;
use crate::tls::{self, Credentials};

/// How often the directory is looked at: the kubelet changes it within a minute or two of the Secret.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A controller asks at once; one that does not is none.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Tickets are not served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the directory cannot be read.
    #[error("failed to read {path}: {source}")]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in the files cannot be used.
    #[error("failed to use the certificate in {directory}: {source}")]
    Use {
        /// Where it is.
        directory: PathBuf,
        /// Why.
        source: tls::Error,
    },
    /// The listener broke.
    #[error("failed to serve tickets: {0}")]
    Serve(#[from] io::Error),
}

/// Serves until dropped; changed files are used for the connections that come after.
pub(super) async fn serve(listener: TcpListener, directory: &Path, router: Router) -> Result<(), Error> {
    let credentials = read(directory)?;
    let config = RustlsConfig::from_config(Arc::new(usable(directory, &credentials)?));
    let server = http::http1_only(axum_server::from_tcp_rustls(listener.into_std()?, config.clone())?, HEAD_TIMEOUT);
    tokio::select! {
        ended = server.serve(router.into_make_service()) => Ok(ended?),
        never = follow(directory, credentials, config) => match never {},
    }
}

async fn follow(directory: &Path, mut used: Credentials, config: RustlsConfig) -> std::convert::Infallible {
    let mut problem = Repeated::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let renewed = match read(directory) {
            Ok(credentials) if credentials == used => continue,
            Ok(credentials) => usable(directory, &credentials).map(|renewed| (renewed, credentials)),
            Err(error) => Err(error),
        };
        let failed = match renewed {
            Ok((renewed, credentials)) => {
                config.reload_from_config(Arc::new(renewed));
                used = credentials;
                tracing::info!("uses a renewed certificate");
                None
            }
            // The kubelet swaps directories, so this lasts only if it is not its doing.
            Err(error) => Some(error.to_string()),
        };
        if problem.is_news(failed.as_deref()) {
            tracing::warn!("goes on with the certificate it has: {}", failed.unwrap_or_default());
        }
    }
}

fn read(directory: &Path) -> Result<Credentials, Error> {
    let text = |name: &str| {
        let path = directory.join(name);
        std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })
    };
    Ok(Credentials { authorities: text("ca.crt")?, certificate: text("tls.crt")?, key: text("tls.key")? })
}

fn usable(directory: &Path, credentials: &Credentials) -> Result<rustls::ServerConfig, Error> {
    credentials.server().map_err(|source| Error::Use { directory: directory.to_owned(), source })
}
