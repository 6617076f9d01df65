//! Nodes that are lost, cut off, deleted, made anew, added or tainted.

use std::time::Instant;

use super::super::*;

/// The big volume takes the node's whole time: what comes after it is left out, and the node is no success.
#[test]
fn node_out_of_time() {
    slow_down_agents();
    let volumes = Volumes;
    make_volumes();
    in_node(
        "node-2",
        "docker volume create c-late >/dev/null; mkdir /var/lib/docker/volumes/b-big/_data/more; cd /var/lib/docker/volumes/b-big/_data/more
         seq 1 400000 | xargs touch",
    );
    let scan = Scan::new("out-of-time", &json!({"limits": {"volumeTimeoutSeconds": 10, "nodeTimeoutSeconds": 10}}));
    let status = scan.complete(60);
    in_node("node-2", "docker volume rm c-late >/dev/null");
    drop(volumes);
    assert_eq!(status["lastRun"]["result"], "Partial");
    let failed = &status["failedNodes"][0];
    assert_eq!((&failed["node"], &failed["reason"]), (&json!("node-2"), &json!("NodeTimeout")), "{failed}");
    let results = "SELECT string_agg(v.name || ' ' || r.completeness, ', ' ORDER BY v.name) FROM scan_results r JOIN volumes v ON v.id = r.volume_id
        JOIN scan_jobs j ON j.id = r.scan_job_id WHERE run_id = (SELECT max(id) FROM scan_runs)";
    assert_eq!(sql(results), "a-small Complete, b-big Partial");
}

#[test]
fn node_lost_in_the_middle() {
    let (scan, _volumes) = mid_scan(
        "node-lost",
        &json!({"limits": {"volumeTimeoutSeconds": 15, "nodeTimeoutSeconds": 15, "runTimeoutSeconds": 15}}),
    );
    cluster(&["kill", "node-2"]);
    let status = scan.complete(150);
    assert_eq!(status["lastRun"]["result"], "Partial");
    let failed = &status["failedNodes"][0];
    assert_eq!(failed["node"], "node-2");
    assert!(
        ["RunTimeout", "NodeTimeout", "AgentUnreachable", "AgentLost"].contains(&failed["reason"].as_str().unwrap()),
        "{failed}"
    );
    invariants_hold(2);
    cluster(&["start", "node-2"]);
    kubectl("wait node/node-2 --for=condition=Ready --timeout=120s");
    wait(60, "Docker on node-2", || try_in_node("node-2", "docker version").ok());
}

fn nodes_ready(scan: &Scan) -> Value {
    scan.status()["agents"]["ready"].clone()
}

fn ready(node: &str) {
    kubectl(&format!("wait node/{node} --for=condition=Ready --timeout=120s"));
}

/// The agent goes on measuring and keeps what it finds; cut off for longer than its lease, it is fenced when it is back.
#[test]
fn node_cut_off() {
    let (scan, _volumes) = mid_scan("node-cut-off", &json!({}));
    let (before, since) = (measured(), Instant::now());
    cluster(&["cut", "node-2"]);
    let mended = Undo::new(|| drop(try_cluster(&["mend", "node-2"])));
    wait(90, "the status to tell that a node is away", || (nodes_ready(&scan) == 2).then_some(()));
    took("node loss in status", since);
    assert!(kubectl("get node node-2 --no-headers").contains("NotReady"));
    wait(60, "a new ticket", || (attempts() == "2").then_some(()));
    mended.now();
    ready("node-2");
    ends_well(&scan, 150, "2");
    assert_eq!(measured(), before, "a finished volume was measured again");
}

/// The kubelet keeps the agent for a while; what it still finds counts no more.
#[test]
fn node_deleted() {
    let (scan, _volumes) = mid_scan("node-deleted", &json!({}));
    let since = Instant::now();
    let _back = node_2_comes_back();
    kubectl("delete node node-2");
    let status = scan.complete(90);
    took("NodeGone in status", since);
    let failed = &status["failedNodes"][0];
    assert_eq!((&failed["node"], &failed["reason"]), (&json!("node-2"), &json!("NodeGone")), "{status}");
    assert_eq!(status["lastRun"]["result"], "Partial");
    invariants_hold(2);
    let rows = "SELECT count(*) FROM scan_results JOIN scan_jobs ON scan_jobs.id = scan_job_id
        WHERE run_id = (SELECT max(id) FROM scan_runs) AND node = 'node-2'";
    stays(15, "nothing is written under the old ticket", || sql(rows));
}

/// Gives node-2 back when the value is dropped. A kubelet registers its node when it starts; one that found none is Ready only minutes later,
/// so it is started once more.
fn node_2_comes_back() -> Undo {
    Undo::new(|| {
        for wanted in ["--for=create", "--for=condition=Ready"] {
            drop(try_cluster(&["kill", "node-2"]));
            drop(try_cluster(&["start", "node-2"]));
            drop(try_run("kubectl", &["wait", "node/node-2", wanted, "--timeout=60s"]));
        }
        let docker = "for i in $(seq 60); do docker version >/dev/null 2>&1 && break; sleep 1; done";
        drop(try_in_node("node-2", docker));
        let rollout = ["rollout", "status", "-n", "volumeviz", "daemonset/volumeviz-agent", "--timeout=60s"];
        drop(try_run("kubectl", &rollout));
    })
}

#[test]
fn node_back_under_its_name_as_another_machine() {
    let (scan, _volumes) = mid_scan("node-anew", &json!({}));
    let uid = || kubectl("get node node-2 -o jsonpath={.metadata.uid}");
    let before = uid();
    let back = node_2_comes_back();
    cluster(&["kill", "node-2"]);
    kubectl("delete node node-2");
    back.now();
    assert_ne!(uid(), before);
    let status = scan.complete(90);
    let failed = &status["failedNodes"][0];
    assert_eq!((&failed["node"], &failed["reason"]), (&json!("node-2"), &json!("NodeGone")), "{status}");
    invariants_hold(2);
    let next = Scan::new("on-the-new-machine", &json!({"measurement": {"mode": "Inventory"}}));
    assert_eq!(next.complete(120)["lastRun"]["result"], "Succeeded");
    invariants_hold(3);
}

/// A run's nodes are those of its beginning.
#[test]
fn node_joins_in_the_middle() {
    kubectl("label node node-1 node-2 fault=joined");
    let _labels = Undo::kubectl("label node --all fault-");
    let spec = json!({"trigger": "one", "nodeSelector": {"matchLabels": {"fault": "joined"}}});
    let (scan, _volumes) = mid_scan("node-joins", &spec);
    kubectl("label node node-3 fault=joined");
    wait(15, "the status to count the new node", || (scan.status()["agents"]["desired"] == 3).then_some(()));
    assert_eq!(scan.status()["activeRun"]["nodes"]["total"], 2);
    let status = scan.complete(150);
    assert_eq!((&status["lastRun"]["result"], &status["lastRun"]["nodes"]["total"]), (&json!("Succeeded"), &json!(2)));
    invariants_hold(2);
    run("kubectl", &["patch", "volumescan", "node-joins", "--type=merge", "-p", r#"{"spec":{"trigger":"two"}}"#]);
    wait(150, "the next run", || {
        let status = scan.status();
        (status["lastHandledTrigger"] == "two"
            && status["activeRun"].is_null()
            && status["lastRun"]["nodes"]["total"] == 3)
            .then_some(())
    });
    invariants_hold(3);
}

/// Agents tolerate everything: the volumes are there all the same.
#[test]
fn node_tainted_in_the_middle() {
    let (scan, _volumes) = mid_scan("node-tainted", &json!({}));
    let (before, agent) = (measured(), pod("agent", "node-2"));
    let canary = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "canary", "namespace": "default"}, "spec": {
        "nodeName": "node-2", "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "localhost/pause:1", "imagePullPolicy": "Never"}]}});
    apply(&canary).unwrap();
    let _canary = Undo::kubectl("delete pod -n default canary --ignore-not-found --wait=false");
    kubectl("wait -n default pod/canary --for=condition=Ready --timeout=30s");
    kubectl("taint node node-2 fault=tainted:NoExecute");
    let _taint = Undo::kubectl("taint node node-2 fault-");
    kubectl("wait -n default pod/canary --for=delete --timeout=60s");
    ends_well(&scan, 150, "1");
    assert_eq!((measured(), pod("agent", "node-2")), (before, agent));
}
