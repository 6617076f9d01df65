//! Keeps the certificates of controller and agents: the leader issues them into two Secrets of the installation, and renews them in time.
//!
//! The chart makes both Secrets empty, so that the controller needs no right to create any; a kubelet starts an agent once its Secret is filled.

pub mod plan;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

use self::plan::{Certificates, Data};
use super::dispatch::{CONNECT_TIMEOUT, POST_TIMEOUT};
use super::metrics::Metrics;
use crate::telemetry::Repeated;
use crate::tls::{self, issue};

/// How often is looked whether something is due, or was broken.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How soon again while agents cannot be reached for want of certificates.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const PASS_TIMEOUT: Duration = Duration::from_secs(10);

/// What agents are reached by, or why there is nothing.
pub type Channel = Result<reqwest::Client, Arc<str>>;

/// Where the certificates are.
#[derive(Debug, Clone, clap::Args)]
pub struct Names {
    /// Name of the Secret with the controller's certificate and the authority's key.
    #[arg(
        long,
        env = "VOLUMEVIZ_CONTROLLER_TLS_SECRET",
        default_value = "volumeviz-controller-tls",
        value_name = "NAME"
    )]
    pub controller_tls_secret: String,
    /// Name of the Secret with the agents' certificate.
    #[arg(long, env = "VOLUMEVIZ_AGENT_TLS_SECRET", default_value = "volumeviz-agent-tls", value_name = "NAME")]
    pub agent_tls_secret: String,
}

/// The certificates could not be kept.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read Secret {name}, which the chart makes: {source}")]
    Read { name: String, source: Box<kube::Error> },
    #[error("failed to write Secret {name}: {source}")]
    Write { name: String, source: Box<kube::Error> },
    #[error(transparent)]
    Issue(#[from] issue::Error),
    #[error(transparent)]
    Use(#[from] tls::Error),
    #[error("failed to look after certificates: no answer of the API server within {PASS_TIMEOUT:?}")]
    Timeout,
}

/// The keeper of both Secrets.
pub struct Keeper {
    secrets: Api<Secret>,
    names: Names,
    metrics: Metrics,
    channel: watch::Sender<Channel>,
}

/// Before anything was issued.
pub fn none_yet() -> Channel {
    Err("certificates for agents are not issued yet".into())
}

impl Keeper {
    /// A keeper in this namespace; what agents are reached by is sent to `channel`.
    pub fn new(
        client: Client,
        namespace: &str,
        names: Names,
        metrics: Metrics,
        channel: watch::Sender<Channel>,
    ) -> Self {
        Self { secrets: Api::namespaced(client, namespace), names, metrics, channel }
    }

    /// Looks after them for as long as it is polled; the caller leads.
    pub async fn run(&self) -> Infallible {
        let mut used = None;
        let mut problem = Repeated::default();
        loop {
            let passed = tokio::time::timeout(PASS_TIMEOUT, self.pass(&mut used)).await.unwrap_or(Err(Error::Timeout));
            let failed = passed.err().map(|error| error.to_string());
            if problem.is_news(failed.as_deref()) {
                let failed = failed.unwrap_or_default();
                tracing::warn!("{failed}");
                // What was issued before stays in use.
                self.channel.send_if_modified(|channel| {
                    let replace = channel.is_err();
                    if replace {
                        *channel = Err(failed.into());
                    }
                    replace
                });
            }
            tokio::time::sleep(if used.is_some() { LOOK_EVERY } else { RETRY_AFTER }).await;
        }
    }

    async fn pass(&self, used: &mut Option<Certificates>) -> Result<(), Error> {
        let (controller, agent) =
            (self.read(&self.names.controller_tls_secret).await?, self.read(&self.names.agent_tls_secret).await?);
        let stored = match (Certificates::of(&data(&controller), &data(&agent)), used.as_ref()) {
            // Somebody emptied it: what agents know is put back.
            (stored, Some(used)) if stored.is_empty() => used.clone(),
            (stored, _) => stored,
        };
        let wanted = stored.renewed(Utc::now())?;
        // The controller's first: agents have theirs only from an authority whose key is kept.
        self.write(&self.names.controller_tls_secret, controller, wanted.controller_data()).await?;
        self.write(&self.names.agent_tls_secret, agent, wanted.agent_data()).await?;
        self.metrics.certificates_expire(&wanted.expiry()?);
        if used.as_ref() != Some(&wanted) {
            let client = wanted.controller.client(CONNECT_TIMEOUT, POST_TIMEOUT)?;
            drop(self.channel.send_replace(Ok(client)));
            *used = Some(wanted);
        }
        Ok(())
    }

    async fn read(&self, name: &str) -> Result<Secret, Error> {
        let failed = |source| Error::Read { name: name.to_owned(), source: Box::new(source) };
        self.secrets.get(name).await.map_err(failed)
    }

    /// Only over what was read: of two leaders one fails, and looks again.
    async fn write(&self, name: &str, mut read: Secret, wanted: Data) -> Result<(), Error> {
        if data(&read) == wanted {
            return Ok(());
        }
        read.data = Some(wanted.into_iter().map(|(key, bytes)| (key, ByteString(bytes))).collect::<BTreeMap<_, _>>());
        let failed = |source| Error::Write { name: name.to_owned(), source: Box::new(source) };
        self.secrets.replace(name, &PostParams::default(), &read).await.map_err(failed)?;
        tracing::info!(secret.name = name, "issued certificates");
        Ok(())
    }
}

fn data(secret: &Secret) -> Data {
    let entries = secret.data.iter().flatten();
    entries.map(|(key, ByteString(bytes))| (key.clone(), bytes.clone())).collect()
}
