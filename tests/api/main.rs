//! Against a real kube-apiserver: what it refuses of a VolumeScan, what it defaults, who leads, and whether it takes the
//! chart.
//!
//! Run by `tests/with-apiserver`, which gives `KUBECONFIG`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod alerts;
mod chart;
mod leader;
mod schema;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use std::time::Duration;

/// A client with the product's CRDs installed.
async fn client() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::try_default().await.expect("KUBECONFIG: run by tests/with-apiserver");
    for manifest in volumeviz::crd::manifests().unwrap() {
        let crd: CustomResourceDefinition = serde_yaml::from_str(&manifest.yaml).unwrap();
        let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
        crds.patch(&crd.name_any(), &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await.unwrap();
        let name = crd.name_any();
        let established = await_condition(crds, &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(20), established).await.expect("CRD established in 20 s").unwrap();
    }
    client
}

/// All examples of a kind, with the names of their files.
fn examples(kind: &str) -> Vec<(String, DynamicObject)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let object: DynamicObject = serde::Deserialize::deserialize(document).unwrap();
            if object.types.as_ref().is_some_and(|types| types.kind == kind) {
                found.push((path.display().to_string(), object));
            }
        }
    }
    found
}
