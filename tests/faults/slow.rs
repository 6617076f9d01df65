//! Faults whose ends take minutes: leases, deadlines and the time after which a node is given up.

use super::*;

#[test]
fn postgres_away_in_the_middle() {
    let (scan, _volumes) = mid_scan("postgres-away", &json!({}));
    let seconds = std::env::var("FAULT_AWAY_SECONDS").map_or(35, |seconds| seconds.parse().unwrap());
    scale("statefulset/volumeviz-database", 0);
    scan.until(15, "DatabaseReady", ("False", "Unreachable"));
    stays(seconds, "the run goes on while the database is away", || scan.status()["activeRun"]["id"].clone());
    scale("statefulset/volumeviz-database", 1);
    let status = scan.complete(120);
    assert_eq!((status["lastRun"]["result"].as_str(), attempts().as_str()), (Some("Succeeded"), "1"));
    invariants_hold(3);
}

#[test]
fn docker_restarted_between_scans_and_gone_from_every_node() {
    let restarts = || {
        kubectl(
            "get pods -n volumeviz -l app.kubernetes.io/component=agent -o jsonpath={.items[*].status.containerStatuses[0].restartCount}",
        )
    };
    Scan::new("before-restart", &json!({})).complete(60);
    let before = restarts();
    cluster(&["docker-stop", "node-2"]);
    cluster(&["docker-start", "node-2"]);
    assert_eq!(Scan::new("after-restart", &json!({})).complete(90)["lastRun"]["result"], "Succeeded");
    assert_eq!(restarts(), before);

    let nodes = ["node-1", "node-2", "node-3"];
    for node in nodes {
        cluster(&["docker-stop", node]);
        in_node(node, "mv /var/lib/docker/volumes /var/lib/docker/volumes-away; rm -f /run/docker.sock");
    }
    let scan = Scan::new("no-engine", &json!({}));
    let status = scan.until(60, "Failed", ("True", "NoDockerEngine"));
    assert_eq!((&status["totals"], &status["agents"]["withoutDocker"]), (&Value::Null, &json!(3)));
    let pods =
        kubectl("get pods -n volumeviz -l app.kubernetes.io/component=agent -o jsonpath={.items[*].status.phase}");
    assert_eq!(pods, "Running Running Running");
    for node in nodes {
        in_node(node, "mv /var/lib/docker/volumes-away /var/lib/docker/volumes");
        cluster(&["docker-start", node]);
    }
    assert_eq!(Scan::new("engines-back", &json!({})).complete(60)["agents"]["withoutDocker"], 0);
}

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
