//! The leading controller stands still, or cannot reach the API server.

use super::super::*;

fn runs_of(scan: &Scan) -> String {
    let uid = scan.read()["metadata"]["uid"].as_str().unwrap().to_owned();
    sql(&format!("SELECT count(*) FROM scan_runs WHERE scan_uid = '{uid}'"))
}

/// Waits until the process that led is gone, and has said that it lost its lease. Its container may have to wait before it starts anew.
fn exits(node: &str, pod: &str, old: &str, since: Instant) {
    wait(15, "the old leader to exit", || (controller_pid(node, pod) != old).then_some(()));
    took("the old leader's exit", since);
    wait(15, "the old leader to say why", || has_said(pod, "lost leadership", since).then_some(()));
}

#[test]
fn leader_paused_past_its_lease() {
    let mid = mid_scan("leader-paused", &json!({}));
    let (before, pod) = (holder(), leader());
    let node = node_of(&pod);
    let old = controller_pid(&node, &pod);
    let since = Instant::now();
    let paused = pause(&node, &old);
    let asked = Scan::new("asked-meanwhile", &json!({"measurement": {"mode": "Inventory"}}));
    another_leads(&before, since);
    paused.now();
    exits(&node, &pod, &old, Instant::now());
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);
    let other = Run::last(&asked.complete(60));
    other.invariants_hold(3);
    assert_eq!(other.attempts(), "1");
    assert_eq!((runs_of(&mid.scan), runs_of(&asked)), ("1".to_owned(), "1".to_owned()));
}

#[test]
fn leader_cut_off_from_the_api_server() {
    let mid = mid_scan("leader-cut-off", &json!({}));
    let (before, pod) = (holder(), leader());
    let node = node_of(&pod);
    let old = controller_pid(&node, &pod);
    let address = kubectl(&format!("get pod -n volumeviz {pod} -o jsonpath={{.status.podIP}}"));
    let rule = format!("-s {address} -p tcp --dport 6443");
    let since = Instant::now();
    let cut = drop_packets(&node, &[&rule]);
    exits(&node, &pod, &old, since);
    another_leads(&before, since);
    let ended = "{.status.containerStatuses[?(@.name==\"controller\")].lastState.terminated.finishedAt}";
    let ended = wait(30, "the kubelet to tell when it ended", || {
        Some(kubectl(&format!("get pod -n volumeviz {pod} -o jsonpath={ended}"))).filter(|ended| !ended.is_empty())
    });
    let taken = kubectl("get lease -n volumeviz volumeviz-controller -o jsonpath={.spec.acquireTime}");
    assert!(taken[..19] >= ended[..19], "it is gone, at {ended}, before another leads, at {taken}");
    let dropped = in_node(&node, "iptables -nvxL FORWARD | grep -m1 'dpt:6443' | awk '{print $1}'");
    assert_ne!(dropped, "0", "the rule dropped packets");
    cut.now();
    mid.status_is_right();
    mid.ends_well(150, 1, Job::WentOn);
    assert_eq!(runs_of(&mid.scan), "1");
}
