//! Nodes that are lost, cut off, deleted, made anew, added or tainted.

use super::super::*;

/// The big volume takes the node's whole time: what comes after it is left out, and the node is no success.
#[test]
fn node_out_of_time() {
    slow_down_agents();
    let _volumes = Volumes;
    make_volumes();
    let _late = Undo::in_node("node-2", "docker volume rm c-late >/dev/null");
    in_node(
        "node-2",
        "docker volume create c-late >/dev/null; mkdir /var/lib/docker/volumes/b-big/_data/more; cd /var/lib/docker/volumes/b-big/_data/more
         seq 1 400000 | xargs touch",
    );
    let since = Instant::now();
    let scan = Scan::new("out-of-time", &json!({"limits": {"volumeTimeoutSeconds": 10, "nodeTimeoutSeconds": 10}}));
    let status = scan.complete(60);
    took("NodeTimeout in status", since);
    assert_eq!(status["lastRun"]["result"], "Partial");
    let failed = &status["failedNodes"][0];
    assert_eq!((&failed["node"], &failed["reason"]), (&json!("node-2"), &json!("NodeTimeout")), "{failed}");
    let run = Run::last(&status);
    assert_eq!(run.results("v.name, r.completeness"), "a-small Complete, b-big Partial");
    run.invariants_hold(2);
    status_is_right(&scan);
}

/// Kills everything on node-2; its machine starts again when the value is dropped.
fn node_2_lost() -> Undo {
    let back = Undo::new(|| {
        tell("undo", try_cluster(&["start", "node-2"]));
        tell("undo", try_kubectl("wait node/node-2 --for=condition=Ready --timeout=120s"));
        tell("undo", try_in_node("node-2", DOCKER_ANSWERS));
    });
    cluster(&["kill", "node-2"]);
    back
}

const DOCKER_ANSWERS: &str = "for i in $(seq 60); do docker version >/dev/null 2>&1 && exit 0; sleep 1; done; exit 1";

/// Waits until a scan's status tells that node-2 is away, which it does within 90 s.
fn node_loss_is_told(scan: &Scan, since: Instant) {
    wait(left(90, since), "the status to tell that a node is away", || {
        (scan.status()["agents"]["ready"] == 2).then_some(())
    });
    took("node loss in status", since);
    assert!(kubectl("get node node-2 --no-headers").contains("NotReady"));
}

#[test]
fn node_lost_in_the_middle_and_back() {
    let mid = mid_scan("node-lost", &json!({}));
    let since = Instant::now();
    let back = node_2_lost();
    node_loss_is_told(&mid.scan, since);
    back.now();
    mid.status_is_right();
    mid.ends_well(150, 2, Job::Resumed);
}

/// It stays away past the run's deadline.
#[test]
fn node_lost_for_good() {
    let limits = json!({"volumeTimeoutSeconds": 60, "nodeTimeoutSeconds": 60, "runTimeoutSeconds": 60});
    let mid = mid_scan("node-lost-for-good", &json!({"limits": limits}));
    let since = Instant::now();
    let back = node_2_lost();
    node_loss_is_told(&mid.scan, since);
    mid.ended(150, "end of the run without the node", since);
    mid.ends_without_node_2(10, "RunTimeout");
    back.now();
    mid.status_is_right();
}

/// The agent goes on measuring; cut off for longer than its lease, it is fenced when it is back, and takes the job again.
#[test]
fn node_cut_off() {
    let mid = mid_scan("node-cut-off", &json!({}));
    let ticket = mid.run.ticket();
    let mended = Undo::new(|| tell("undo", try_cluster(&["mend", "node-2"])));
    let since = Instant::now();
    cluster(&["cut", "node-2"]);
    node_loss_is_told(&mid.scan, since);
    wait(60, "a new ticket", || (mid.run.ticket() != ticket).then_some(()));
    took("new ticket", since);
    mended.now();
    mid.status_is_right();
    mid.ends_well(150, 2, Job::Resumed);
}

/// The kubelet keeps the agent for a while: what it still tells the database is refused.
#[test]
fn node_deleted() {
    let mid = mid_scan("node-deleted", &json!({}));
    let agent = pod("agent", "node-2");
    let address = kubectl(&format!("get pod -n volumeviz {agent} -o jsonpath={{.status.podIP}}"));
    // In the node, where it can be asked whatever the API server knows of it.
    let fenced = || {
        let metrics = in_node("node-2", &format!("curl -sS --noproxy '*' --max-time 5 http://{address}:8081/metrics"));
        sum(&metrics, "volumeviz_agent_fenced_total")
    };
    let before = fenced();
    let back = node_2_comes_back();
    let since = Instant::now();
    kubectl("delete node node-2");
    mid.ended(90, "NodeGone in status", since);
    wait(30, "the agent to be refused", || (fenced() > before).then_some(()));
    took("the agent refused", since);
    mid.ends_without_node_2(10, "NodeGone");
    stays(15, "nothing is written under the old ticket", || mid.run.results("v.name, r.id"));
    back.now();
    status_is_right(&mid.scan);
}

/// Gives node-2 back when the value is dropped. A kubelet registers its node when it starts; one that found none is Ready only minutes later,
/// so it is started once more.
fn node_2_comes_back() -> Undo {
    Undo::new(|| {
        for wanted in ["--for=create", "--for=condition=Ready"] {
            tell("undo", try_cluster(&["kill", "node-2"]));
            tell("undo", try_cluster(&["start", "node-2"]));
            tell("undo", try_kubectl(&format!("wait node/node-2 {wanted} --timeout=60s")));
        }
        tell("undo", try_in_node("node-2", DOCKER_ANSWERS));
        tell("undo", try_kubectl("rollout status -n volumeviz daemonset/volumeviz-agent --timeout=60s"));
    })
}

/// Takes every controller away until the value is dropped; one on node-2, which is dead, is forgotten at once.
fn controllers_away() -> Undo {
    let back = Undo::new(|| {
        tell("undo", try_kubectl("scale -n volumeviz deployment/volumeviz-controller --replicas=2"));
        tell("undo", try_kubectl("rollout status -n volumeviz deployment/volumeviz-controller --timeout=120s"));
    });
    let controllers = "-n volumeviz -l app.kubernetes.io/component=controller";
    kubectl("scale -n volumeviz deployment/volumeviz-controller --replicas=0");
    kubectl(&format!("delete pod {controllers} --field-selector spec.nodeName=node-2 --force --grace-period=0"));
    gone(&format!("pod {controllers}"));
    back
}

/// Nobody sees that it was away: the uid alone tells that it is another machine.
#[test]
fn node_back_under_its_name_as_another_machine() {
    let mid = mid_scan("node-anew", &json!({}));
    let uid = || kubectl("get node node-2 -o jsonpath={.metadata.uid}");
    let before = uid();
    let back = node_2_comes_back();
    cluster(&["kill", "node-2"]);
    let controllers = controllers_away();
    kubectl("delete node node-2");
    back.now();
    assert_ne!(uid(), before);
    assert_eq!(
        (mid.run.of_node_2("status"), mid.run.result()),
        ("running".to_owned(), String::new()),
        "nobody has seen it"
    );
    let since = Instant::now();
    controllers.now();
    mid.ended(90, "NodeGone in status after the controllers' return", since);
    mid.ends_without_node_2(10, "NodeGone");
    status_is_right(&mid.scan);
    let next = Scan::new("on-the-new-machine", &json!({"measurement": {"mode": "Inventory"}}));
    let status = next.complete(120);
    assert_eq!(status["lastRun"]["result"], "Succeeded");
    Run::last(&status).invariants_hold(3);
}

/// A run's nodes are those of its beginning.
#[test]
fn node_joins_in_the_middle() {
    let _labels = Undo::kubectl("label node --all fault-");
    kubectl("label node node-1 node-2 fault=joined");
    let spec = json!({"trigger": "one", "nodeSelector": {"matchLabels": {"fault": "joined"}}});
    let mid = mid_scan("node-joins", &spec);
    let since = Instant::now();
    kubectl("label node node-3 fault=joined");
    wait(15, "the status to count the new node", || (mid.scan.status()["agents"]["desired"] == 3).then_some(()));
    took("the new node in status", since);
    assert_eq!(mid.scan.status()["activeRun"]["nodes"]["total"], 2);
    mid.status_is_right();
    assert_eq!(mid.ends_well(150, 1, Job::WentOn)["lastRun"]["nodes"]["total"], 2);
    run("kubectl", &["patch", "volumescan", "node-joins", "--type=merge", "-p", r#"{"spec":{"trigger":"two"}}"#]);
    let status = wait(150, "the next run", || {
        let status = mid.scan.status();
        (status["lastHandledTrigger"] == "two" && status["activeRun"].is_null()).then_some(status)
    });
    assert_eq!((&status["lastRun"]["result"], &status["lastRun"]["nodes"]["total"]), (&json!("Succeeded"), &json!(3)));
    Run::last(&status).invariants_hold(3);
}

/// Agents tolerate everything: the volumes are there all the same.
#[test]
fn node_tainted_in_the_middle() {
    let mid = mid_scan("node-tainted", &json!({}));
    let (started, agent) = (restarts("agent"), pod("agent", "node-2"));
    let canary = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "canary", "namespace": "default"}, "spec": {
        "nodeName": "node-2", "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "localhost/pause:1", "imagePullPolicy": "Never"}]}});
    let _canary = Undo::kubectl("delete pod -n default canary --ignore-not-found --wait=false");
    apply(&canary).unwrap();
    kubectl("wait -n default pod/canary --for=condition=Ready --timeout=30s");
    let _taint = Undo::kubectl("taint node node-2 fault-");
    let since = Instant::now();
    kubectl("taint node node-2 fault=tainted:NoExecute");
    gone("pod -n default canary");
    took("eviction of another pod", since);
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);
    assert_eq!((restarts("agent"), pod("agent", "node-2")), (started, agent));
}
