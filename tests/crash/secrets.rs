//! The two Secrets of a life: empty at first, filled by the controller, brought to the agents as kubelets do.

use std::sync::Arc;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use chrono::Utc;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::task::JoinHandle;
use volumeviz::controller::certificates::Names;
use volumeviz::controller::certificates::plan::{Certificates, Data};

use crate::kubernetes::{AGENT_SECRET, CONTROLLER_SECRET, NAMESPACE};

const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) struct Secrets {
    pub names: Names,
    api: Api<Secret>,
    kubelet: JoinHandle<()>,
}

impl Secrets {
    /// As the chart makes them; what comes into the agents' is what they serve by.
    pub(crate) async fn empty(client: &Client, life: &str, agents: RustlsConfig) -> Self {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
        let [controller, agent] = [CONTROLLER_SECRET, AGENT_SECRET].map(|end| format!("{life}{end}"));
        for name in [&controller, &agent] {
            let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
            let secret = Secret { metadata, ..Secret::default() };
            secrets.create(&PostParams::default(), &secret).await.unwrap();
        }
        let kubelet = tokio::spawn(bring(secrets.clone(), agent.clone(), agents));
        Self { names: Names { controller_tls_secret: controller, agent_tls_secret: agent }, api: secrets, kubelet }
    }

    /// Whether they hold what they must, so that nothing is due.
    pub(crate) async fn are_settled(&self) -> bool {
        let Names { controller_tls_secret, agent_tls_secret } = &self.names;
        let held =
            Certificates::of(&data(&self.api, controller_tls_secret).await, &data(&self.api, agent_tls_secret).await);
        held.renewed(Utc::now()).unwrap() == held
    }

    pub(crate) async fn delete(&self) {
        self.kubelet.abort();
        for name in [&self.names.controller_tls_secret, &self.names.agent_tls_secret] {
            self.api.delete(name, &DeleteParams::default()).await.unwrap();
        }
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        self.kubelet.abort();
    }
}

/// Lets agents serve by the certificate in their Secret, whenever there is another.
async fn bring(secrets: Api<Secret>, name: String, agents: RustlsConfig) {
    let mut brought = Data::new();
    loop {
        let found = data(&secrets, &name).await;
        if found != brought {
            let certificates = Certificates::of(&Data::new(), &found);
            agents.reload_from_config(Arc::new(certificates.agent.server().unwrap()));
            brought = found;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn data(secrets: &Api<Secret>, name: &str) -> Data {
    let secret = secrets.get(name).await.unwrap();
    secret.data.into_iter().flatten().map(|(key, ByteString(bytes))| (key, bytes)).collect()
}
