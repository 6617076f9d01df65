//! Clients of the API server: the test's own, and the controller's, whose writes pass the seam.

use std::sync::Arc;

use axum::http::{Method, Request, Uri};
use kube::Client;
use kube::client::Body;

use crate::crds;
use crate::seam::Seam;

const SCANS: &str = "/apis/volumeviz.io/v1alpha1/volumescans";
const ALERTS: &str = "/apis/volumeviz.io/v1alpha1/volumealerts";
/// Of Secrets and Events.
pub(crate) const NAMESPACE: &str = "default";
/// How the names of a life's two Secrets end.
pub(crate) const CONTROLLER_SECRET: &str = "-controller-tls";
pub(crate) const AGENT_SECRET: &str = "-agent-tls";

/// The controller's client. It sees the scan and the alert of one name only: many lives go on at a time.
pub(crate) async fn seamed(seam: Arc<Seam>, name: String) -> Client {
    let inner = crds::client().await;
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
