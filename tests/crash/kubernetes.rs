//! Clients of the API server: the test's own, and the controller's, whose writes pass the seam.

use std::sync::Arc;

use axum::http::{Method, Request, Uri};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::client::Body;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use std::time::Duration;

use crate::seam::Seam;

const SCANS: &str = "/apis/volumeviz.io/v1alpha1/volumescans";
const ALERTS: &str = "/apis/volumeviz.io/v1alpha1/volumealerts";
/// Of Secrets and Events.
pub(crate) const NAMESPACE: &str = "default";
/// How the names of a life's two Secrets end.
pub(crate) const CONTROLLER_SECRET: &str = "-controller-tls";
pub(crate) const AGENT_SECRET: &str = "-agent-tls";

/// A client without a seam; installs the product's CRDs.
pub(crate) async fn client() -> Client {
    let client = plain().await;
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

async fn plain() -> Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::try_default().await.expect("KUBECONFIG: run by tests/with-apiserver")
}

/// The controller's client. It sees the scan and the alert of one name only: many lives go on at a time.
pub(crate) async fn seamed(seam: Arc<Seam>, name: String) -> Client {
    let inner = plain().await;
    let service = tower::service_fn(move |request: Request<Body>| {
        let (inner, seam, request) = (inner.clone(), Arc::clone(&seam), only(request, &name));
        async move {
            let effect = effect(&request);
            let lost = match effect {
                Some(kind) => seam.before(kind).await,
                None => false,
            };
            seam.alive().await;
            let response = inner.send(request).await;
            seam.after(lost).await;
            response
        }
    });
    Client::new(service, "default")
}

/// The kind of a request's side effect.
fn effect(request: &Request<Body>) -> Option<String> {
    let (method, path) = (request.method(), request.uri().path());
    let what = match path {
        _ if method == Method::GET => return None,
        path if path.starts_with(SCANS) && path.ends_with("/status") => "status",
        path if path.starts_with(ALERTS) && path.ends_with("/status") => "alert status",
        path if path.starts_with(SCANS) => "volumescan",
        path if path.ends_with(CONTROLLER_SECRET) => "controller's secret",
        path if path.ends_with(AGENT_SECRET) => "agents' secret",
        path if path.contains("/events") => "event",
        path => path,
    };
    Some(format!("{method} {what}"))
}

fn only(mut request: Request<Body>, name: &str) -> Request<Body> {
    let path = request.uri().path().to_owned();
    if [SCANS, ALERTS].contains(&path.as_str()) {
        let query = request.uri().query().map_or_else(String::new, |query| format!("{query}&"));
        let uri: Uri = format!("{path}?{query}fieldSelector=metadata.name%3D{name}").parse().unwrap();
        *request.uri_mut() = uri;
    }
    request
}
