//! Docker Engines that restart, hang or go, and a volume whose file system hangs.

use std::time::Instant;

use super::super::*;

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

/// The agents' data root is not the engines': what cannot be seen is no success, and what needs no sizes is.
#[test]
fn docker_keeps_its_volumes_elsewhere_than_the_chart_says() {
    make_volumes();
    let _volumes = Volumes;
    let all_at_once = "agent.updateStrategy.rollingUpdate.maxUnavailable=100%";
    let rolled = |set: &[&str]| {
        install(&[&["--set", all_at_once, "--wait", "--timeout", "3m"], set].concat()).unwrap();
        kubectl("rollout status -n volumeviz daemonset/volumeviz-agent --timeout=2m");
    };
    rolled(&["--set", "agent.docker.dataRoot=/srv"]);
    let status = Scan::new("elsewhere", &json!({})).complete(60);
    let failed = &status["failedNodes"][0];
    assert_eq!((&failed["node"], &failed["reason"]), (&json!("node-2"), &json!("DataRootMismatch")), "{status}");
    assert_eq!(failed["message"], "Docker keeps its volumes in /var/lib/docker, and the agent is given /srv");
    assert_eq!(Scan::new("only-listed", &json!({"mode": "Inventory"})).complete(60)["lastRun"]["result"], "Succeeded");
    rolled(&[]);
    assert_eq!(Scan::new("seen-again", &json!({})).complete(60)["lastRun"]["result"], "Succeeded");
}

/// The engine takes connections and answers nothing.
#[test]
fn docker_hung() {
    slow_down_agents();
    let dockerd = pid("node-2", "^dockerd");
    let hung = pause("node-2", &dockerd);
    assert!(try_in_node("node-2", "timeout 5 docker version").is_err());
    let since = Instant::now();
    let scan = Scan::new("docker-hung", &json!({"maxAttempts": 1}));
    wait(60, "the other nodes to be done", || (scan.status()["activeRun"]["nodes"]["succeeded"] == 2).then_some(()));
    let status = scan.complete(120);
    took("DockerUnreachable in status", since);
    let failed = &status["failedNodes"][0];
    assert_eq!((&failed["node"], &failed["reason"]), (&json!("node-2"), &json!("DockerUnreachable")), "{status}");
    assert_eq!(status["lastRun"]["result"], "Partial");
    invariants_hold(2);
    hung.now();
    assert_eq!(Scan::new("docker-well", &json!({})).complete(90)["lastRun"]["result"], "Succeeded");
    invariants_hold(3);
}

/// Mounts a file system whose FUSE server never answers its first request, in the mount namespace of a process: whoever touches it waits
/// until the server is gone. Docker itself lists no volume while the root of one hangs, so `agent` is the namespace for that.
fn hang(name: &str, process: &str, folder: &str) -> Undo {
    in_node(
        "node-2",
        &format!(
            "exec 9<>/dev/fuse; mount -N {process} -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 hung {folder}
             setsid sh -c 'echo $$ > /run/{name}.pid; exec sleep 600' >/dev/null 2>&1 </dev/null &
             until [ -s /run/{name}.pid ]; do sleep 0.1; done"
        ),
    );
    // With the last descriptor of its server the file system answers errors. Its mount goes with the namespace, or here.
    let unmount = if process == "1" { format!("umount -l {folder}") } else { String::new() };
    Undo::in_node("node-2", &format!("kill -9 $(cat /run/{name}.pid); rm -f /run/{name}.pid; {unmount}"))
}

#[test]
fn volumes_on_hung_file_systems() {
    slow_down_agents();
    make_volumes();
    let _volumes = Volumes;
    in_node(
        "node-2",
        "for v in hung nested z-last; do docker volume create $v >/dev/null; done; mkdir -p /var/lib/docker/volumes/nested/_data/inner",
    );
    let _others = Undo::in_node("node-2", "docker volume rm hung nested z-last");
    let (agent, volumes) = (pid("node-2", "^/volumeviz agent"), "/var/lib/docker/volumes");
    let hung = hang("hung", &agent, &format!("{volumes}/hung/_data"));
    let nested = hang("nested", "1", &format!("{volumes}/nested/_data/inner"));
    for folder in [format!("/proc/{agent}/root{volumes}/hung/_data"), format!("{volumes}/nested/_data/inner")] {
        assert!(try_in_node("node-2", &format!("timeout -s KILL 3 ls {folder}")).is_err(), "{folder} hangs");
    }
    let limits = json!({"volumeTimeoutSeconds": 10, "parallelVolumes": 1});
    let scan = Scan::new("volume-hung", &json!({"volumeSelector": {"excludeNames": ["b-big"]}, "limits": limits}));
    let since = Instant::now();
    let status = scan.complete(120);
    took("the run beside a hung volume", since);
    let results = "SELECT string_agg(v.name || ' ' || r.completeness || ' ' || coalesce(r.reason, '-'), ', ' ORDER BY v.name) FROM scan_results r
        JOIN volumes v ON v.id = r.volume_id JOIN scan_jobs j ON j.id = r.scan_job_id WHERE run_id = (SELECT max(id) FROM scan_runs)";
    assert_eq!(sql(results), "a-small Complete -, hung Unknown VolumeTimeout, nested Complete -, z-last Complete -");
    assert_eq!((&status["lastRun"]["result"], attempts().as_str()), (&json!("Succeeded"), "1"), "{status}");
    invariants_hold(3);
    // The walk that hangs is not started a second time.
    let again = Scan::new("volume-still-hung", &json!({"volumeSelector": {"names": ["hung", "z-last"]}}));
    again.complete(60);
    assert_eq!(sql(results), "hung Unknown DeviceHung, z-last Complete -");
    hung.now();
    nested.now();
    kubectl(&format!("delete pod -n volumeviz {}", pod("agent", "node-2")));
    kubectl("rollout status -n volumeviz daemonset/volumeviz-agent --timeout=120s");
    Scan::new("volume-well", &json!({"volumeSelector": {"names": ["hung", "nested"]}})).complete(60);
    assert_eq!(sql(results), "hung Complete -, nested Complete -");
}
