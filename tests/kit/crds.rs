//! The product's CRDs in a real API server.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};

/// A client of the one that `tests/with-apiserver` starts.
pub(crate) async fn client() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::try_default().await.expect("KUBECONFIG: run by tests/with-apiserver")
}

/// The same, once it has the CRDs.
pub(crate) async fn client_with_crds() -> Client {
    let client = client().await;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for manifest in volumeviz::crd::manifests().unwrap() {
        let crd: CustomResourceDefinition = serde_yaml::from_str(&manifest.yaml).unwrap();
        let name = crd.name_any();
        crds.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await.unwrap();
        let established = await_condition(crds.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(20), established).await.expect("CRD established in 20 s").unwrap();
    }
    client
}
