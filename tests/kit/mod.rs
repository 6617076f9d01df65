//! What end-to-end and fault tests share: running commands against the local cluster, and waiting for conditions.

#![allow(dead_code, unreachable_pub, reason = "a module of two test programs, each of which uses a part")]

use std::fmt::Debug;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const POLL: Duration = Duration::from_millis(200);

/// Runs a command; its output, or a panic with what it said.
pub fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap_or_else(|error| panic!("{program} {}: {error}", arguments.join(" ")))
}

pub fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{}{text}", String::from_utf8_lossy(&output.stderr))) }
}

pub fn kubectl(arguments: &str) -> String {
    run("kubectl", &arguments.split_whitespace().collect::<Vec<_>>())
}

/// `kubectl apply` of a manifest.
pub fn apply(manifest: &Value) -> Result<String, String> {
    use std::io::Write;
    let mut child = Command::new("kubectl")
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut stdin = child.stdin.take().ok_or("kubectl has no input")?;
    stdin.write_all(manifest.to_string().as_bytes()).map_err(|error| error.to_string())?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

const CLUSTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/cluster");

pub fn cluster(arguments: &[&str]) -> String {
    run(CLUSTER, arguments)
}

pub fn try_cluster(arguments: &[&str]) -> Result<String, String> {
    try_run(CLUSTER, arguments)
}

pub fn try_in_node(node: &str, script: &str) -> Result<String, String> {
    try_run(CLUSTER, &["exec", node, "sh", "-euc", script])
}

/// Runs a shell command inside a node.
pub fn in_node(node: &str, script: &str) -> String {
    cluster(&["exec", node, "sh", "-euc", script])
}

/// The chart, as `tests/cluster/install` installs it.
pub fn install(arguments: &[&str]) -> Result<String, String> {
    try_run(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/install"), arguments)
}

/// A scan that is deleted with this value.
pub struct Scan(pub String);

impl Scan {
    pub fn new(name: &str, spec: &Value) -> Self {
        let manifest = manifest(name, spec);
        apply(&manifest).unwrap_or_else(|error| panic!("{manifest}: {error}"));
        Self(name.to_owned())
    }

    pub fn read(&self) -> Value {
        get(&format!("volumescan {}", self.0))
    }

    pub fn status(&self) -> Value {
        self.read()["status"].clone()
    }

    /// Waits until the scan is Complete; its status.
    pub fn complete(&self, seconds: u64) -> Value {
        wait(seconds, "the scan to be Complete", || {
            let status = self.status();
            (condition(&status, "Complete").0 == "True").then_some(status)
        })
    }

    pub fn until(&self, seconds: u64, type_: &str, expected: (&str, &str)) -> Value {
        wait(seconds, &format!("{type_} to be {expected:?}"), || {
            let status = self.status();
            let (truth, reason) = condition(&status, type_);
            ((truth.as_str(), reason.as_str()) == expected).then_some(status)
        })
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        drop(try_run("kubectl", &["delete", "volumescan", &self.0, "--ignore-not-found"]));
    }
}

pub fn manifest(name: &str, spec: &Value) -> Value {
    serde_json::json!({"apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeScan", "metadata": {"name": name}, "spec": spec})
}

/// An object of the API.
pub fn get(what: &str) -> Value {
    serde_json::from_str(&kubectl(&format!("get {what} -o json"))).unwrap()
}

/// Status and reason of a condition; empty when there is none.
pub fn condition(status: &Value, type_: &str) -> (String, String) {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == type_).unwrap_or_default();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

/// Waits for a condition with a deadline.
pub fn wait<T>(seconds: u64, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < until, "waited {seconds} s in vain for {what}");
        std::thread::sleep(POLL);
    }
}

/// Asserts that something stays as it is for a while.
pub fn stays<T: PartialEq + Debug>(seconds: u64, what: &str, probe: impl Fn() -> T) {
    let before = probe();
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        assert_eq!(probe(), before, "{what}");
        std::thread::sleep(POLL);
    }
}

/// One value from the bundled database, as its superuser.
pub fn sql(query: &str) -> String {
    try_sql(query).unwrap_or_else(|error| panic!("{query}: {error}"))
}

pub fn try_sql(query: &str) -> Result<String, String> {
    let psql = ["--", "psql", "-U", "postgres", "-d", "volumeviz", "-Atqc", query];
    try_run("kubectl", &[["exec", "-n", "volumeviz", "volumeviz-database-0"].as_slice(), &psql].concat())
}

/// The name of the pod of a component on a node.
pub fn pod(component: &str, node: &str) -> String {
    let selector = format!("app.kubernetes.io/component={component}");
    let field = format!("spec.nodeName={node}");
    run(
        "kubectl",
        &[
            "get",
            "pod",
            "-n",
            "volumeviz",
            "-l",
            &selector,
            "--field-selector",
            &field,
            "-o",
            "jsonpath={.items[0].metadata.name}",
        ],
    )
}

/// Process id, inside the node, of the only process whose command line matches.
pub fn pid(node: &str, pattern: &str) -> String {
    in_node(node, &format!("pgrep -f '{pattern}'"))
}

/// Scales a workload and waits until its pods are there, or gone.
pub fn scale(workload: &str, replicas: u32) {
    kubectl(&format!("scale -n volumeviz {workload} --replicas={replicas}"));
    if replicas == 0 {
        let component = if workload.contains("database") { "database" } else { "controller" };
        kubectl(&format!(
            "wait -n volumeviz pod -l app.kubernetes.io/component={component} --for=delete --timeout=60s"
        ));
    } else {
        kubectl(&format!("rollout status -n volumeviz {workload} --timeout=120s"));
    }
}

/// Writes of the API server's audit log in the name of this installation, Lease renewals apart.
pub fn writes() -> Vec<String> {
    let log = std::fs::read_to_string(format!("{}/audit.log", std::env::var("CLUSTER_DIR").unwrap())).unwrap();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries
        .filter(|entry| entry["stage"] == "ResponseComplete" && entry["objectRef"]["resource"] != "leases")
        .filter(|entry| {
            entry["user"]["username"].as_str().is_some_and(|user| user.starts_with("system:serviceaccount:volumeviz:"))
        })
        .map(|entry| format!("{} {}", entry["verb"], entry["requestURI"]))
        .collect()
}
