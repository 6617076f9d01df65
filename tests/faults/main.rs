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

#[path = "../kit/bouncer.rs"]
mod bouncer;
mod fault;
#[path = "../kit/mod.rs"]
mod kit;
mod mid_scan;
#[path = "../kit/port.rs"]
mod port;
mod slow;

use std::time::Instant;

use bouncer::Bouncer;
use fault::*;
use kit::*;
use mid_scan::*;
use serde_json::{Value, json};

#[test]
fn agent_killed_in_the_middle() {
    let mid = mid_scan("agent-killed", &json!({}));
    let (ticket, started) = (mid.run.ticket(), restarts("agent"));
    let agent = pid("node-2", "^/volumeviz agent");
    let since = Instant::now();
    in_node("node-2", &format!("kill -9 {agent}"));
    wait(30, "the kubelet to start it anew", || (restarts("agent") != started).then_some(()));
    mid.status_is_right();
    wait(60, "a new ticket", || (mid.run.ticket() != ticket).then_some(()));
    took("new ticket", since);
    mid.ends_well(150, 2, Job::Resumed);
}

#[test]
fn agent_told_to_stop_in_the_middle() {
    let mid = mid_scan("agent-stopped", &json!({}));
    let (ticket, agent) = (mid.run.ticket(), pod("agent", "node-2"));
    let since = Instant::now();
    kubectl(&format!("delete pod -n volumeviz {agent} --wait=false"));
    wait(30, "the job to be handed back", || (mid.run.ticket() != ticket).then_some(()));
    took("the job handed back", since);
    gone(&format!("pod -n volumeviz {agent}"));
    mid.status_is_right();
    mid.ends_well(90, 1, Job::Resumed);
}

#[test]
fn scan_deleted_in_the_middle() {
    let mid = mid_scan("scan-deleted", &json!({}));
    let agent = pod("agent", "node-2");
    let stopped = || metric(&agent, 8081, "volumeviz_agent_fenced_total");
    let before = stopped();
    kubectl("delete volumescan scan-deleted --timeout=10s");
    let since = Instant::now();
    wait(15, "the agent to stop", || (stopped() > before).then_some(()));
    took("the agent's stop", since);
    assert_eq!(mid.run.of_node_2("status"), "cancelled");
    assert_eq!(mid.run.result(), "Cancelled");
    stays(3, "nothing is written for the agent", || mid.run.results("v.name, r.id"));
    let next = Scan::new(
        "after-deleted",
        &json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "node-2"}}, "measurement": {"mode": "Inventory"}}),
    );
    Run::last(&next.complete(30)).invariants_hold(1);
}

#[test]
fn leading_controller_killed_in_the_middle() {
    let mid = mid_scan("leader-killed", &json!({}));
    let (before, pod) = (holder(), leader());
    let node = node_of(&pod);
    let controller = controller_pid(&node, &pod);
    let since = Instant::now();
    in_node(&node, &format!("kill -9 {controller}"));
    another_leads(&before, since);
    mid.status_is_right();
    mid.ends_well(120, 1, Job::WentOn);
}

#[test]
fn postgres_stopped_before_a_scan() {
    let earlier = Scan::new("earlier", &json!({}));
    let figures = earlier.complete(60)["totals"].clone();
    let since = Instant::now();
    let back = database_away();
    let told = database_loss_is_told(&earlier, &["Unreachable"], since);
    assert_eq!(told["totals"], figures, "the last good results stay");
    let scan = Scan::new("without-postgres", &json!({}));
    let status = scan.until(15, "DatabaseReady", ("False", "Unreachable"));
    assert_eq!(condition(&status, "Ready").1, "DatabaseNotReady");
    kubectl("delete volumescan earlier --timeout=10s");
    back.now();
    status_is_right(&scan);
    Run::last(&scan.complete(60)).invariants_hold(3);
}
