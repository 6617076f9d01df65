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
#[path = "../kit/crds.rs"]
mod crds;
mod leader;
mod schema;
#[path = "../kit/tool.rs"]
mod tool;

use crds::client_with_crds as client;
use kube::api::DynamicObject;

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
