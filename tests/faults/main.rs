//! The product while things break: each test first sees that its fault bites, takes it away, and sees the end that the documentation promises.
//!
//! Run by `tests/with-cluster`, one test after the other. Those in `slow` wait for minutes by design: `make test-faults` runs them, `make test`
//! does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod fault;
#[path = "../kit/mod.rs"]
mod kit;
mod slow;

use fault::*;
use kit::*;
use serde_json::{Value, json};

/// Gives agents so little of a processor that measuring [`BIG`] takes many seconds.
const SLOW: &str = "30m";
/// Entries of the big volume on node-2.
const BIG: u32 = 300_000;

/// The volumes of [`mid_scan`], which go with their test: slow agents would need long for them in the next one.
struct Volumes;

impl Drop for Volumes {
    fn drop(&mut self) {
        drop(try_in_node("node-2", &format!("mv {IN_USE} {KEPT}; docker volume rm a-small b-big")));
    }
}

/// A scan that is measuring the big volume on node-2; small ones before it are final already.
fn mid_scan(name: &str, spec: &Value) -> (Scan, Volumes) {
    slow_down_agents();
    all_is_well();
    make_volumes();
    let volumes = Volumes;
    let scan = Scan::new(name, spec);
    wait(60, "node-2 to be in the middle of the big volume", || {
        let done = sql("SELECT count(*) FROM scan_results JOIN scan_jobs ON scan_jobs.id = scan_job_id
            WHERE run_id = (SELECT max(id) FROM scan_runs) AND status = 'running' AND node = 'node-2'");
        (done == "1").then_some(())
    });
    (scan, volumes)
}

/// The files of the big volume, made once: where they are between tests, and in one.
const KEPT: &str = "/var/lib/docker/big";
const IN_USE: &str = "/var/lib/docker/volumes/b-big/_data/big";

fn make_volumes() {
    in_node(
        "node-2",
        &format!(
            "docker volume create a-small >/dev/null; docker volume create b-big >/dev/null
             [ -e {KEPT} ] || [ -e {IN_USE} ] || {{ mkdir -p {KEPT}-new; cd {KEPT}-new; seq 1 {BIG} | xargs touch; mv {KEPT}-new {KEPT}; }}
             [ -e {IN_USE} ] || mv {KEPT} {IN_USE}"
        ),
    );
}

/// Once for all tests.
fn slow_down_agents() {
    let limit = "get daemonset -n volumeviz volumeviz-agent -o jsonpath={.spec.template.spec.containers[0].resources.limits.cpu}";
    if kubectl(limit) != SLOW {
        let all_at_once = "agent.updateStrategy.rollingUpdate.maxUnavailable=100%";
        let limit = format!("agent.resources.limits.cpu={SLOW},{all_at_once}");
        install(&["--set", &limit, "--wait", "--timeout", "3m"]).unwrap();
    }
}

/// What an earlier fault took down is back: a container that failed twice waits before it is started again.
fn all_is_well() {
    for workload in ["deployment/volumeviz-controller", "daemonset/volumeviz-agent", "statefulset/volumeviz-database"] {
        kubectl(&format!("rollout status -n volumeviz {workload} --timeout=180s"));
    }
}

/// What holds after every fault: one success a node, no volume twice, and results that agree with what was measured.
fn invariants_hold(nodes: u32) {
    let run = "run_id = (SELECT max(id) FROM scan_runs)";
    assert_eq!(
        sql(&format!("SELECT count(*), count(DISTINCT node) FROM scan_jobs WHERE {run} AND status = 'succeeded'")),
        format!("{nodes}|{nodes}")
    );
    let twice = "SELECT count(*) FROM (SELECT 1 FROM scan_results GROUP BY scan_job_id, volume_id HAVING count(*) > 1) AS twice";
    assert_eq!(sql(twice), "0");
    let sizes =
        "SELECT count(*) FROM (SELECT 1 FROM volume_sizes GROUP BY scan_result_id HAVING count(*) > 1) AS twice";
    assert_eq!(sql(sizes), "0");
}

fn attempts() -> String {
    sql("SELECT max(attempt) FROM scan_jobs WHERE run_id = (SELECT max(id) FROM scan_runs)")
}

/// When each volume of the last run was measured.
fn measured() -> String {
    sql("SELECT v.volume_id, r.measured_at FROM scan_results r JOIN volumes v ON v.id = r.volume_id
        JOIN scan_jobs j ON j.id = r.scan_job_id WHERE run_id = (SELECT max(id) FROM scan_runs) AND v.name = 'a-small'")
}

#[test]
fn agent_killed_in_the_middle() {
    let (scan, _volumes) = mid_scan("agent-killed", &json!({}));
    let before = measured();
    let agent = pid("node-2", "^/volumeviz agent");
    in_node("node-2", &format!("kill -9 {agent}"));
    let status = scan.complete(150);
    assert_eq!(status["lastRun"]["result"], "Succeeded");
    assert_eq!(attempts(), "2", "the kill took the first attempt");
    assert_eq!(measured(), before, "a finished volume was measured again");
    invariants_hold(3);
}

#[test]
fn agent_told_to_stop_in_the_middle() {
    let (scan, _volumes) = mid_scan("agent-stopped", &json!({}));
    let before = measured();
    kubectl(&format!("delete pod -n volumeviz {} --wait=false", pod("agent", "node-2")));
    let status = scan.complete(90);
    assert_eq!(
        (status["lastRun"]["result"].as_str(), attempts().as_str()),
        (Some("Succeeded"), "1"),
        "a job handed back costs no attempt"
    );
    assert_eq!(measured(), before, "a finished volume was measured again");
    invariants_hold(3);
}

#[test]
fn scan_deleted_in_the_middle() {
    let (scan, _volumes) = mid_scan("scan-deleted", &json!({}));
    let agent = pod("agent", "node-2");
    let stopped = || metric(&agent, 8081, "volumeviz_agent_fenced_total");
    let (before, since) = (stopped(), std::time::Instant::now());
    kubectl("delete volumescan scan-deleted --timeout=10s");
    wait(20, "the run to be cancelled", || {
        let state = "SELECT result, (SELECT string_agg(DISTINCT status, ' ') FROM scan_jobs WHERE run_id = scan_runs.id AND node = 'node-2')
            FROM scan_runs ORDER BY id DESC LIMIT 1";
        (sql(state) == "Cancelled|cancelled").then_some(())
    });
    // The sweep's 5 s and a heartbeat's 10 s, and this test's own steps.
    wait(17_u64.saturating_sub(since.elapsed().as_secs()), "the agent to stop", || (stopped() > before).then_some(()));
    took("the agent's stop", since);
    drop(scan);
    let next = Scan::new(
        "after-deleted",
        &json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "node-2"}}, "measurement": {"mode": "Inventory"}}),
    );
    next.complete(30);
}

#[test]
fn leading_controller_killed_in_the_middle() {
    let (scan, _volumes) = mid_scan("leader-killed", &json!({}));
    let pod = leader();
    let node = node_of(&pod);
    let controller = controller_pid(&node, &pod);
    let holder = || kubectl("get lease -n volumeviz volumeviz-controller -o jsonpath={.spec.holderIdentity}");
    let before = holder();
    in_node(&node, &format!("kill -9 {controller}"));
    let status = scan.complete(120);
    assert_ne!(holder(), before, "another process leads");
    assert_eq!((status["lastRun"]["result"].as_str(), attempts().as_str()), (Some("Succeeded"), "1"));
    invariants_hold(3);
}

#[test]
fn postgres_stopped_before_a_scan() {
    let earlier = Scan::new("earlier", &json!({}));
    let figures = earlier.complete(60)["totals"].clone();
    scale("statefulset/volumeviz-database", 0);
    let scan = Scan::new("without-postgres", &json!({}));
    let status = scan.until(15, "DatabaseReady", ("False", "Unreachable"));
    assert_eq!(condition(&status, "Ready").1, "DatabaseNotReady");
    let earlier_now = earlier.until(15, "DatabaseReady", ("False", "Unreachable"));
    assert_eq!(earlier_now["totals"], figures, "the last good results stay");
    kubectl("delete volumescan earlier --timeout=10s");
    scale("statefulset/volumeviz-database", 1);
    scan.complete(60);
    invariants_hold(3);
}
