//! The API server takes every object that the chart makes, and its pods where they belong.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{Seek, Write};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::tool::tool;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs a tool with something on its standard input: a file, for a pipe could be full on both sides.
fn run<S: AsRef<OsStr>>(tool: &str, arguments: &[S], input: &str) -> Output {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    let mut command = Command::new(self::tool(tool));
    command
        .args(arguments)
        .stdin(file)
        .output()
        .unwrap_or_else(|error| panic!("{tool}: {error}: `make setup` builds it"))
}

/// What a tool says; its failure fails the test.
fn ok<S: AsRef<OsStr>>(tool: &str, arguments: &[S], input: &str) -> String {
    let output = run(tool, arguments, input);
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A List, which kubectl takes as it takes one object.
fn items<'a>(objects: impl IntoIterator<Item = &'a Value>) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects.into_iter().collect::<Vec<_>>()}).to_string()
}

fn namespace(name: &str, enforce: &str) {
    let labels = json!({"pod-security.kubernetes.io/enforce": enforce});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    ok("kubectl", &["apply", "-f", "-"], &namespace.to_string());
}

/// Every object of every combination of values, each once, as kubectl reads it: to it 0440 is a number, as to Helm.
async fn objects() -> Vec<Value> {
    let _ours = super::client().await;
    let monitoring = tool("monitoring");
    ok("kubectl", &[OsStr::new("apply"), OsStr::new("--server-side"), OsStr::new("-f"), monitoring.as_os_str()], "");
    ok("kubectl", &["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"], "");
    let folder = tempfile::tempdir().unwrap();
    let rendered = Command::new(repository().join("tests/chart/render")).arg(folder.path()).status().unwrap();
    assert!(rendered.success());
    let files = std::fs::read_dir(folder.path()).unwrap();
    let texts: Vec<String> = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    let documents: BTreeSet<&str> = texts.iter().flat_map(|text| text.split("\n---\n")).map(str::trim).collect();
    let all = documents.into_iter().collect::<Vec<_>>().join("\n---\n");
    let arguments = ["create", "--dry-run=client", "--validate=false", "--output=json", "-f", "-"];
    let json = ok("kubectl", &arguments, &all);
    serde_json::Deserializer::from_str(&json).into_iter().map(Result::unwrap).collect()
}

/// The pod that a template of this object makes, in a namespace.
fn pod(object: &Value, namespace: &str) -> Option<Value> {
    let template = match object["kind"].as_str()? {
        "Pod" => object,
        "CronJob" => object.pointer("/spec/jobTemplate/spec/template")?,
        _ => object.pointer("/spec/template")?,
    };
    let mut spec = template["spec"].clone();
    // Its own is in another namespace; who it runs as says nothing about what it may on the node.
    spec.as_object_mut()?.remove("serviceAccountName");
    // What a StatefulSet mounts of its claims.
    for claim in object.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array).into_iter().flatten() {
        let volume = json!({"name": claim["metadata"]["name"], "emptyDir": {}});
        spec["volumes"].as_array_mut()?.push(volume);
    }
    let metadata = json!({"generateName": "pod-", "namespace": namespace, "labels": template["metadata"]["labels"]});
    Some(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
}

/// For who makes objects of the cluster, which have the same names in each release.
static CLUSTER: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn every_object_of_every_combination_of_values_is_taken() {
    let _turn = CLUSTER.lock().await;
    namespace("volumeviz", "privileged");
    let objects = objects().await;
    assert!(objects.len() > 60, "{}", objects.len());
    let of = |kind: &str| -> Vec<&Value> { objects.iter().filter(|object| object["kind"] == kind).collect() };
    // A pod is refused whose account is not there.
    ok("kubectl", &["apply", "--server-side", "--force-conflicts", "-f", "-"], &items(of("ServiceAccount")));
    // Other tests have made these.
    let crds = items(of("CustomResourceDefinition"));
    let arguments = ["--dry-run=server", "--validate=strict", "-f", "-"];
    ok("kubectl", &[&["apply", "--server-side", "--force-conflicts"], &arguments[..]].concat(), &crds);
    let there = ["ServiceAccount", "CustomResourceDefinition"];
    let others = objects.iter().filter(|object| !there.iter().any(|kind| object["kind"] == *kind));
    ok("kubectl", &[&["create"], &arguments[..]].concat(), &items(others));
}

#[tokio::test]
async fn all_pods_but_the_agents_are_restricted() {
    namespace("restricted", "restricted");
    namespace("unrestricted", "privileged");
    for name in ["restricted", "unrestricted"] {
        let account =
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}});
        ok("kubectl", &["apply", "-f", "-"], &account.to_string());
    }
    let mut kinds = BTreeSet::new();
    for object in objects().await {
        let Some(restricted) = pod(&object, "restricted") else { continue };
        let kind = object["kind"].as_str().unwrap();
        let arguments = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        if kind == "DaemonSet" {
            let refused = run("kubectl", &arguments, &restricted.to_string());
            let why = String::from_utf8(refused.stderr).unwrap();
            assert!(
                !refused.status.success() && why.contains("violates PodSecurity") && why.contains("hostPath"),
                "{why}"
            );
            ok("kubectl", &arguments, &pod(&object, "unrestricted").unwrap().to_string());
        } else {
            ok("kubectl", &arguments, &restricted.to_string());
        }
        kinds.insert(kind.to_owned());
    }
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["CronJob", "DaemonSet", "Deployment", "Pod", "StatefulSet"]);
}

/// Helm, with the values of a database of one's own.
fn helm(arguments: &[&str]) -> Output {
    let [chart, values] = ["charts/volumeviz", "tests/chart/external.yaml"].map(|path| repository().join(path));
    let given = arguments.iter().map(OsStr::new);
    let all: Vec<&OsStr> = given.chain([chart.as_os_str(), OsStr::new("--values"), values.as_os_str()]).collect();
    run("helm", &all, "")
}

#[tokio::test]
async fn a_namespace_in_which_agents_cannot_run_is_refused_with_the_way_out() {
    for (level, refused) in [("baseline", true), ("restricted", true), ("privileged", false)] {
        let name = format!("enforces-{level}");
        namespace(&name, level);
        let output = helm(&["template", "volumeviz", "--is-upgrade", "--dry-run=server", "--namespace", &name]);
        let why = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), !refused, "{level}: {why}");
        let command = format!("kubectl label namespace {name} pod-security.kubernetes.io/enforce=privileged");
        assert_eq!(why.contains(&command), refused, "{why}");
    }
}

/// In the order of a life: beside another, upgraded, gone.
#[tokio::test]
async fn a_second_installation_is_refused_while_the_first_is_there() {
    let _turn = CLUSTER.lock().await;
    let _ours = super::client().await;
    namespace("first", "privileged");
    namespace("second", "privileged");
    let done = |arguments: &[&str]| {
        let output = helm(&[arguments, &["--set", "crds.enabled=false"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    done(&["install", "volumeviz", "--namespace", "first"]);
    for name in ["volumeviz", "another"] {
        let output =
            helm(&["install", name, "--namespace", "second", "--set", "crds.enabled=false,nameOverride=disks"]);
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && why.contains("release volumeviz in namespace first"), "{name}: {why}");
    }
    an_upgrade_leaves_the_certificates_alone(done);
    ok("helm", &["uninstall", "volumeviz", "--namespace", "first"], "");
    // A namespace that says nothing may be one where the cluster's own default forbids agents.
    ok("kubectl", &["create", "namespace", "third"], "");
    for (name, may_be_forbidden) in [("second", false), ("third", true)] {
        let said = done(&["install", "another", "--namespace", name, "--dry-run=server"]);
        assert_eq!(said.contains("PodsForbidden"), may_be_forbidden, "{said}");
    }
}

/// The controller fills them; Helm makes them only.
fn an_upgrade_leaves_the_certificates_alone(done: impl Fn(&[&str]) -> String) {
    let of = ["secret", "--namespace", "first", "volumeviz-agent-tls"];
    let patch = ["--type=merge", "--patch", r#"{"stringData": {"tls.crt": "made by the controller"}}"#];
    ok("kubectl", &[&["patch"], &of[..], &patch].concat(), "");
    let data = || ok("kubectl", &[&["get"], &of[..], &["--output=jsonpath={.data}"]].concat(), "");
    let filled = data();
    done(&["upgrade", "volumeviz", "--namespace", "first", "--set", "log.filter=debug"]);
    assert!(filled.contains("tls.crt") && data() == filled, "{filled}: {}", data());
}
