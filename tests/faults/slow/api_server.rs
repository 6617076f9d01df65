//! An API server that restarts, throttles, fails, forgets its history, or serves a second writer.

use std::net::TcpListener;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use volumeviz::crd::VolumeScan;

use super::super::*;

const CONTROLLER: &str = "system:serviceaccount:volumeviz:volumeviz-controller";

fn started() -> Undo {
    Undo::new(|| drop(try_cluster(&["api-start"])))
}

#[test]
fn api_server_restarted_in_the_middle() {
    let mid = mid_scan("api-restarted", &json!({}));
    let back = started();
    cluster(&["api-stop"]);
    assert!(try_run("kubectl", &["get", "nodes", "--request-timeout=2s"]).is_err());
    std::thread::sleep(Duration::from_secs(15));
    back.now();
    let since = Instant::now();
    mid.status_is_right();
    mid.ended(150, "end of the run after the API server's return", since);
    mid.ends_well(150, 1, Job::WentOn);
}

/// A priority level with one seat, and somebody who sits on it: every other request is answered 429, a lease's renewal as well.
fn throttle() -> Undo {
    let listener = TcpListener::bind("10.90.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let subjects = json!([
        {"kind": "ServiceAccount", "serviceAccount": {"name": "volumeviz-controller", "namespace": "volumeviz"}},
        {"kind": "User", "user": {"name": "fault"}}]);
    let undo = Undo::kubectl(
        "delete flowschema,prioritylevelconfiguration,validatingwebhookconfiguration,clusterrolebinding fault --ignore-not-found",
    );
    for manifest in [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "fault"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "fault"}]}),
        // It accepts and never answers, so a request that waits for it lasts for 30 s.
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "fault"},
            "webhooks": [{"name": "fault.volumeviz.io", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
                "timeoutSeconds": 30, "clientConfig": {"url": url},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["configmaps"]}]}]}),
        json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration", "metadata": {"name": "fault"},
            "spec": {"type": "Limited", "limited":
                {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}}),
        json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": "fault"}, "spec": {
            "matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "fault"}, "rules": [{"subjects": subjects,
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}}),
    ] {
        apply(&manifest).unwrap();
    }
    std::thread::spawn(move || {
        let held: Vec<_> = listener.incoming().collect();
        drop(held);
    });
    std::thread::spawn(|| {
        for _ in 0..2 {
            drop(try_run("kubectl", &["create", "configmap", "fault", "-n", "default", "--as=fault"]));
        }
    });
    undo
}

#[test]
fn api_server_throttles_everything() {
    let mid = mid_scan("api-throttles", &json!({}));
    let undo = throttle();
    let rejected = || {
        let metrics = kubectl("get --raw /metrics");
        let of_fault = metrics.lines().filter(|line| {
            line.starts_with("apiserver_flowcontrol_rejected_requests_total") && line.contains("flow_schema=\"fault\"")
        });
        of_fault.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
    };
    wait(20, "requests to be rejected", || (rejected() > 0.0).then_some(()));
    std::thread::sleep(Duration::from_secs(30));
    let count = rejected();
    println!("    requests answered 429 in 30 s: {count}");
    assert!(count < 300.0, "{count} requests in 30 s are a hot loop");
    undo.now();
    let since = Instant::now();
    mid.status_is_right();
    mid.ended(150, "end of the run after the last 429", since);
    mid.ends_well(150, 1, Job::WentOn);
}

/// Requests of the controller in the audit log that were answered with this code.
fn answered(code: u16) -> usize {
    let log = std::fs::read_to_string(format!("{}/audit.log", std::env::var("CLUSTER_DIR").unwrap())).unwrap();
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    entries.filter(|entry| entry["user"]["username"] == CONTROLLER && entry["responseStatus"]["code"] == code).count()
}

/// A webhook that nobody serves makes the API server fail every write of a status with 500.
#[test]
fn api_server_fails_status_writes() {
    let mid = mid_scan("api-fails", &json!({}));
    let webhook = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "fault"},
        "webhooks": [{"name": "fault.volumeviz.io", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "timeoutSeconds": 1, "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{"apiGroups": ["volumeviz.io"], "apiVersions": ["*"], "operations": ["UPDATE"], "resources": ["volumescans/status"]}]}]});
    let before = answered(500);
    let undo = Undo::kubectl("delete validatingwebhookconfiguration fault --ignore-not-found");
    apply(&webhook).unwrap();
    wait(30, "a write to be answered 500", || (answered(500) > before).then_some(()));
    std::thread::sleep(Duration::from_secs(30));
    let count = answered(500) - before;
    println!("    writes answered 500 in 30 s: {count}");
    assert!(count < 60, "{count} failed writes in 30 s are a hot loop");
    undo.now();
    let since = Instant::now();
    mid.status_is_right();
    mid.ended(150, "end of the run after the last 500", since);
    mid.ends_well(150, 1, Job::WentOn);
}

/// Watches that go on from a version which etcd has dropped are answered 410, and have to list anew.
#[test]
fn history_compacted() {
    let mid = mid_scan("compacted", &json!({"trigger": "one"}));
    let version = mid.scan.read()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let controllers = kubectl("get pods -n volumeviz -l app.kubernetes.io/component=controller -o name");
    let back = started();
    let since = Instant::now();
    cluster(&["api-stop"]);
    let etcd = |call: &str, body: &str| run("curl", &["-sS", "-d", body, &format!("http://127.0.0.1:23790/v3/{call}")]);
    // Something that moves the history on while nobody watches.
    etcd("kv/put", r#"{"key": "ZmF1bHQ=", "value": "eA=="}"#);
    let now: Value = serde_json::from_str(&etcd("kv/range", r#"{"key": "ZmF1bHQ="}"#)).unwrap();
    let revision = now["header"]["revision"].as_str().unwrap();
    let answer = etcd("kv/compaction", &format!("{{\"revision\": \"{revision}\", \"physical\": true}}"));
    assert!(answer.contains("header"), "{answer}");
    back.now();
    let watch = format!("/apis/volumeviz.io/v1alpha1/volumescans?watch=1&timeoutSeconds=3&resourceVersion={version}");
    let refused = try_run("kubectl", &["get", "--raw", &watch]).unwrap_or_else(|error| error);
    assert!(refused.contains("410") || refused.contains("too old") || refused.contains("Expired"), "{refused}");
    wait(30, "a controller to be told that its watch is too old", || {
        controllers.lines().any(|pod| has_said(pod, "too old resource version", since)).then_some(())
    });
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);
    let edited = Instant::now();
    run("kubectl", &["patch", "volumescan", "compacted", "--type=merge", "-p", r#"{"spec":{"trigger":"two"}}"#]);
    wait(60, "an edit after it to be seen", || (mid.scan.status()["lastHandledTrigger"] == "two").then_some(()));
    took("an edit after it in status", edited);
    let status =
        wait(150, "the run asked for", || Some(mid.scan.status()).filter(|status| status["activeRun"].is_null()));
    Run::last(&status).invariants_hold(3);
}

/// Labels, annotations and the spec change all the time, as from a tool that fights over the object.
#[test]
fn another_writer_edits_the_scan_all_the_time() {
    let scan = Scan::new("edited", &json!({"schedule": "0 0 1 1 *", "suspend": false}));
    scan.until(30, "Ready", ("True", "WaitingForSchedule"));
    let status_writes = || writes().iter().filter(|write| write.contains("volumescans/edited/status")).count();
    let before = status_writes();
    let edits = edit_for(Duration::from_secs(20), "edited");
    let ours = status_writes() - before;
    println!("    edits in 20 s: {edits}; status writes by us: {ours}");
    assert!(edits >= 200, "only {edits} edits");
    assert!(ours < 40, "{ours} writes in 20 s");
    run("kubectl", &["patch", "volumescan", "edited", "--type=merge", "-p", r#"{"spec":{"suspend":true}}"#]);
    status_is_right(&scan);
    scan.until(10, "Ready", ("True", "Suspended"));
    stays(10, "the status", || scan.status());
    assert_eq!(sql("SELECT count(*) FROM scan_runs WHERE scan_name = 'edited'"), "0");
}

/// Edits a scan up to 50 times a second; how often it did. Every fourth edit suspends it or no longer does.
fn edit_for(time: Duration, name: &str) -> u32 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let scans: kube::Api<VolumeScan> = kube::Api::all(kube::Client::try_default().await.unwrap());
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        let until = Instant::now() + time;
        let mut edits = 0_u32;
        while Instant::now() < until {
            ticks.tick().await;
            edits += 1;
            let value = edits.to_string();
            let patch = match edits % 4 {
                0 => json!({"spec": {"suspend": edits.is_multiple_of(8)}}),
                1 | 3 => json!({"metadata": {"labels": {"fault": value}}}),
                _ => json!({"metadata": {"annotations": {"fault": value}}}),
            };
            scans.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
        }
        edits
    })
}
