//! The leading controller stands still, or cannot reach the API server.

use std::time::Instant;

use super::super::*;

fn runs_of(scan: &Scan) -> String {
    let uid = scan.read()["metadata"]["uid"].as_str().unwrap().to_owned();
    sql(&format!("SELECT count(*) FROM scan_runs WHERE scan_uid = '{uid}'"))
}

/// The most attempts that a node of the last run had.
fn attempts_of(status: &Value) -> String {
    sql(&format!("SELECT max(attempt) FROM scan_jobs WHERE run_id = {}", status["lastRun"]["id"]))
}

/// Waits until another pod than `before` leads.
fn another_leads(before: &str) {
    wait(40, "another pod to lead", || (leader() != before).then_some(()));
}

/// Waits until the process that led is gone, and has said that it lost its lease. Its container may have to wait before it starts anew.
fn exits(node: &str, pod: &str, old: &str) {
    wait(15, "the old leader to exit", || (controller_pid(node, pod) != old).then_some(()));
    wait(15, "the old leader to say why", || {
        let log = |which: &str| {
            try_run("kubectl", &["logs", "-n", "volumeviz", pod, "-c", "controller", "--since=60s", which])
        };
        ["--previous", "--previous=false"]
            .into_iter()
            .any(|which| log(which).is_ok_and(|log| log.contains("lost leadership")))
            .then_some(())
    });
}

#[test]
fn leader_paused_past_its_lease() {
    let (scan, _volumes) = mid_scan("leader-paused", &json!({}));
    let (pod, since) = (leader(), Instant::now());
    let node = node_of(&pod);
    let old = controller_pid(&node, &pod);
    let paused = pause(&node, &old);
    let asked = Scan::new("asked-meanwhile", &json!({"measurement": {"mode": "Inventory"}}));
    another_leads(&pod);
    took("another leads", since);
    paused.now();
    exits(&node, &pod, &old);
    let status = scan.complete(150);
    assert_eq!((&status["lastRun"]["result"], attempts_of(&status).as_str()), (&json!("Succeeded"), "1"), "{status}");
    ends_well(&asked, 60, "1");
    assert_eq!((runs_of(&scan), runs_of(&asked)), ("1".to_owned(), "1".to_owned()));
}

#[test]
fn leader_cut_off_from_the_api_server() {
    let (scan, _volumes) = mid_scan("leader-cut-off", &json!({}));
    let (pod, since) = (leader(), Instant::now());
    let node = node_of(&pod);
    let old = controller_pid(&node, &pod);
    let address = kubectl(&format!("get pod -n volumeviz {pod} -o jsonpath={{.status.podIP}}"));
    let rule = format!("-s {address} -p tcp --dport 6443");
    let cut = drop_packets(&node, &[&rule]);
    exits(&node, &pod, &old);
    took("the leader's exit", since);
    assert_eq!(leader(), pod, "it is gone before another may lead");
    another_leads(&pod);
    took("another leads", since);
    let dropped = in_node(&node, "iptables -nvxL FORWARD | grep -m1 'dpt:6443' | awk '{print $1}'");
    assert_ne!(dropped, "0", "the rule dropped packets");
    cut.now();
    ends_well(&scan, 150, "1");
    assert_eq!(runs_of(&scan), "1");
}
