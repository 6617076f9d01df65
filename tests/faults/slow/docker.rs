//! Docker Engines that restart, hang or go, and a volume whose file system hangs.

use super::super::*;

/// Stops the engine of a node until the value is dropped; it was seen to be away.
fn engine_stopped(node: &'static str) -> Undo {
    assert!(try_in_node(node, "timeout 5 docker version").is_ok());
    let back = Undo::new(move || tell("undo", try_cluster(&["docker-start", node])));
    cluster(&["docker-stop", node]);
    assert!(try_in_node(node, "timeout 5 docker version").is_err());
    back
}

/// A walk goes on without the engine; a job that has yet to list its volumes waits for it.
#[test]
fn docker_restarted_in_the_middle() {
    let mid = mid_scan("docker-restarted", &json!({}));
    let started = restarts("agent");
    let stopped = engine_stopped("node-2");
    assert_eq!(mid.run.of_node_2("status"), "running", "it is in the middle of it");
    stopped.now();
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);

    let stopped = engine_stopped("node-2");
    let scan = Scan::new("docker-stopped", &json!({"measurement": {"mode": "Inventory"}}));
    let run = Run::active(&scan, try_sql);
    wait(30, "only node-2 to be at work", || {
        let others = scan.status()["activeRun"]["nodes"]["succeeded"] == 2;
        (others && run.of_node_2("status") == "running").then_some(())
    });
    stays(5, "node-2's job waits for the engine", || run.of_node_2("status, attempt"));
    stopped.now();
    let since = Instant::now();
    assert_eq!(scan.complete(60)["lastRun"]["result"], "Succeeded");
    took("end of a job that waited for the engine", since);
    run.invariants_hold(3);
    assert_eq!((run.attempts(), restarts("agent")), ("1".to_owned(), started));
}

/// Takes the engine of a node away, and what it kept its volumes in, until the value is dropped.
fn engine_gone(node: &'static str) -> Undo {
    let stopped = engine_stopped(node);
    let volumes = "/var/lib/docker/volumes";
    let back = Undo::new(move || {
        tell("undo", try_in_node(node, &format!("[ ! -e {volumes}-away ] || mv {volumes}-away {volumes}")));
        stopped.now();
    });
    in_node(node, &format!("mv {volumes} {volumes}-away; rm -f /run/docker.sock"));
    back
}

#[test]
fn docker_gone_from_every_node() {
    let well = Scan::new("engines-well", &json!({})).complete(60);
    assert_eq!(well["agents"]["withoutDocker"], 0);
    let started = restarts("agent");
    let away = ["node-1", "node-2", "node-3"].map(engine_gone);
    let since = Instant::now();
    let scan = Scan::new("no-engine", &json!({}));
    let status = scan.until(60, "Failed", ("True", "NoDockerEngine"));
    took("NoDockerEngine in status", since);
    assert_eq!((&status["totals"], &status["agents"]["withoutDocker"]), (&Value::Null, &json!(3)));
    Run::last(&status).invariants_hold(0);
    let pods =
        kubectl("get pods -n volumeviz -l app.kubernetes.io/component=agent -o jsonpath={.items[*].status.phase}");
    assert_eq!(pods, "Running Running Running");
    away.into_iter().for_each(Undo::now);
    let since = Instant::now();
    let back = Scan::new("engines-back", &json!({}));
    let status = back.complete(60);
    took("a run after the engines' return", since);
    assert_eq!((&status["lastRun"]["result"], &status["agents"]["withoutDocker"]), (&json!("Succeeded"), &json!(0)));
    status_is_right(&back);
    Run::last(&status).invariants_hold(3);
    assert_eq!(restarts("agent"), started);
}

/// The agents' data root is not the engines': what cannot be seen is no success, and what needs no sizes is.
#[test]
fn docker_keeps_its_volumes_elsewhere_than_the_chart_says() {
    let _volumes = Volumes;
    make_volumes();
    let all_at_once = "agent.updateStrategy.rollingUpdate.maxUnavailable=100%";
    let rolled = |set: &[&str]| {
        install(&[&["--set", all_at_once, "--wait", "--timeout", "3m"], set].concat()).unwrap();
        kubectl("rollout status -n volumeviz daemonset/volumeviz-agent --timeout=2m");
    };
    rolled(&["--set", "agent.docker.dataRoot=/srv"]);
    let since = Instant::now();
    let status = Scan::new("elsewhere", &json!({})).complete(60);
    took("DataRootMismatch in status", since);
    let failed = &status["failedNodes"][0];
    assert_eq!((&failed["node"], &failed["reason"]), (&json!("node-2"), &json!("DataRootMismatch")), "{status}");
    assert_eq!(failed["message"], "Docker keeps its volumes in /var/lib/docker, and the agent is given /srv");
    assert_eq!(
        Scan::new("only-listed", &json!({"measurement": {"mode": "Inventory"}})).complete(60)["lastRun"]["result"],
        "Succeeded"
    );
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
    Run::last(&status).invariants_hold(2);
    hung.now();
    status_is_right(&scan);
    let status = Scan::new("docker-well", &json!({})).complete(90);
    assert_eq!(status["lastRun"]["result"], "Succeeded");
    Run::last(&status).invariants_hold(3);
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
    let _volumes = Volumes;
    make_volumes();
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
    let (run, results) = (Run::last(&status), "v.name, r.completeness, coalesce(r.reason, '-')");
    assert_eq!(
        run.results(results),
        "a-small Complete -, hung Unknown VolumeTimeout, nested Complete -, z-last Complete -"
    );
    assert_eq!((&status["lastRun"]["result"], run.attempts().as_str()), (&json!("Succeeded"), "1"), "{status}");
    run.invariants_hold(3);
    // The walk that hangs is not started a second time.
    let again = Scan::new("volume-still-hung", &json!({"volumeSelector": {"names": ["hung", "z-last"]}}));
    let run = Run::last(&again.complete(60));
    assert_eq!(run.results(results), "hung Unknown DeviceHung, z-last Complete -");
    hung.now();
    nested.now();
    kubectl(&format!("delete pod -n volumeviz {}", pod("agent", "node-2")));
    kubectl("rollout status -n volumeviz daemonset/volumeviz-agent --timeout=120s");
    status_is_right(&again);
    let well = Scan::new("volume-well", &json!({"volumeSelector": {"names": ["hung", "nested"]}}));
    let run = Run::last(&well.complete(60));
    assert_eq!(run.results(results), "hung Complete -, nested Complete -");
    run.invariants_hold(3);
}
