//! What the chart makes of its values, as Helm renders it.

mod arguments;
mod backup;
mod bundled;
mod controller;
mod database;
mod metadata;
mod names;
mod network;
mod notes;
mod probes;
mod renderings;
mod security;
mod values;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub(crate) use crate::tool::tool;

/// A release with its own database and backups.
const VALUES: [&str; 8] = [
    "image.repository=registry.example.com/volumeviz",
    "database.mode=external",
    "database.external.host=database.example.com",
    "database.existingSecrets.owner=owner",
    "database.existingSecrets.controller=controller",
    "database.existingSecrets.agent=agent",
    "backup.enabled=true",
    "backup.image=postgres:16",
];

/// What makes it a release with the chart's database.
const BUNDLED: [&str; 3] =
    ["database.mode=bundled", "database.existingSecrets.superuser=superuser", "database.existingSecrets.tls=tls"];

pub(crate) fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/volumeviz")
}

/// Renders such a release with more arguments.
pub(crate) fn template(arguments: &[impl AsRef<OsStr>]) -> Output {
    template_as("volumeviz", arguments)
}

fn template_as(release: &str, arguments: &[impl AsRef<OsStr>]) -> Output {
    let mut command = Command::new(tool("helm"));
    command.args(["template", release]).arg(chart()).args(arguments);
    command.output().expect("helm: `make setup` builds it")
}

/// Arguments by which Helm takes these values.
pub(crate) fn set(values: &[&str]) -> Vec<String> {
    VALUES.iter().chain(values).flat_map(|value| ["--set".to_owned(), (*value).to_owned()]).collect()
}

/// Renders such a release with a values file, in which numbers and lists are what YAML makes of them.
fn template_with_file(values: &str) -> Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), values).unwrap();
    let mut arguments: Vec<OsString> = set(&[]).into_iter().map(OsString::from).collect();
    arguments.extend(["--values".into(), file.path().into()]);
    template(&arguments)
}

/// Why Helm makes nothing of such values.
fn refusal(values: &[&str]) -> String {
    why(template(&set(values)), &format!("{values:?}"))
}

fn why(refused: Output, values: &str) -> String {
    assert!(!refused.status.success(), "{values} are taken");
    String::from_utf8(refused.stderr).unwrap()
}

fn parsed(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    documents(&output.stdout)
}

/// What is rendered, in which no key may come twice: Helm takes the last one, others refuse it.
fn documents(text: &[u8]) -> Vec<Value> {
    let documents = serde_yaml::Deserializer::from_slice(text);
    let documents = documents.map(|document| <serde_yaml::Value as serde::Deserialize>::deserialize(document).unwrap());
    documents.map(|document| serde_json::to_value(document).unwrap()).collect()
}

/// All objects of such a release.
pub(crate) fn objects(values: &[&str]) -> Vec<Value> {
    parsed(&template(&set(values)))
}

/// The specification of the pods that an object makes.
fn pod_of(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Pod" => object.get("spec"),
        "CronJob" => object.pointer("/spec/jobTemplate/spec/template/spec"),
        _ => object.pointer("/spec/template/spec"),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The containers of such a release, by name, and the pod of each; all its objects.
struct Rendered(BTreeMap<String, (Value, Value)>, Vec<Value>);

impl Rendered {
    fn with(values: &[&str]) -> Self {
        Self::of(objects(values))
    }

    fn of(objects: Vec<Value>) -> Self {
        let mut containers = BTreeMap::new();
        for pod in objects.iter().filter_map(pod_of) {
            for container in [list(&pod["containers"]), list(&pod["initContainers"])].concat() {
                containers.insert(container["name"].as_str().unwrap().to_owned(), (container.clone(), pod.clone()));
            }
        }
        Self(containers, objects)
    }

    fn object(&self, kind: &str, name: &str) -> Option<&Value> {
        self.1.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    }

    /// The pod of a container.
    fn pod(&self, container: &str) -> &Value {
        &self.0[container].1
    }

    /// A variable of a container; empty when it is not set.
    fn variable(&self, container: &str, name: &str) -> &str {
        let found = list(&self.0[container].0["env"]).iter().find(|variable| variable["name"] == name);
        found.map_or("", |variable| variable["value"].as_str().unwrap())
    }

    /// The rules about a resource in the Role of this name.
    fn rules(&self, role: &str, resource: &str) -> Vec<&Value> {
        let role = self.object("Role", role).unwrap();
        list(&role["rules"])
            .iter()
            .filter(|rule| list(&rule["resources"]).iter().any(|named| named == resource))
            .collect()
    }

    /// Files of the Secret of this name that the pod of a container has.
    fn files(&self, container: &str, secret: &str) -> Vec<&str> {
        let mounted =
            list(&self.pod(container)["volumes"]).iter().filter(|volume| volume["secret"]["secretName"] == secret);
        mounted.flat_map(|volume| list(&volume["secret"]["items"])).map(|item| item["path"].as_str().unwrap()).collect()
    }
}
