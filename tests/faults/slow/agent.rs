//! Agents that stand still, run out of memory, or are replaced by an update.

use std::time::Instant;

use super::super::*;

const DAEMONSET: &str = "daemonset/volumeviz-agent";

/// Without it the kubelet would restart an agent that stands still before anybody could see what becomes of it.
fn without_liveness_probe() -> Undo {
    slow_down_agents();
    let patch = |patch: &str| {
        try_run("kubectl", &["patch", "-n", "volumeviz", DAEMONSET, "--type=json", "-p", patch])
            .and_then(|_| try_run("kubectl", &["rollout", "status", "-n", "volumeviz", DAEMONSET, "--timeout=120s"]))
    };
    let field = "/spec/template/spec/containers/0/livenessProbe";
    let probe =
        get(&format!("-n volumeviz {DAEMONSET}"))["spec"]["template"]["spec"]["containers"][0]["livenessProbe"].clone();
    patch(&json!([{"op": "remove", "path": field}]).to_string()).unwrap();
    Undo::new(move || drop(patch(&json!([{"op": "add", "path": field, "value": probe}]).to_string())))
}

/// The node's job was given a new ticket meanwhile: what the old process still knows is worth nothing.
#[test]
fn agent_paused_past_its_lease() {
    let _probe = without_liveness_probe();
    let (scan, _volumes) = mid_scan("agent-paused", &json!({}));
    let before = measured();
    let agent = pod("agent", "node-2");
    let old = sql("SELECT ticket FROM scan_jobs WHERE run_id = (SELECT max(id) FROM scan_runs) AND node = 'node-2'");
    let fenced = metric(&agent, 8081, "volumeviz_agent_fenced_total");
    let paused = pause("node-2", &pid("node-2", "^/volumeviz agent"));
    let since = Instant::now();
    wait(60, "the status to tell that the agent is away", || (scan.status()["agents"]["ready"] == 2).then_some(()));
    took("agent loss in status", since);
    wait(60, "a new ticket", || {
        let ticket = "SELECT ticket FROM scan_jobs WHERE run_id = (SELECT max(id) FROM scan_runs) AND node = 'node-2'";
        (sql(ticket) != old).then_some(())
    });
    took("new ticket", since);
    stays(60_u64.saturating_sub(since.elapsed().as_secs()), "nothing is written for the agent", measured);
    paused.now();
    wait(30, "the agent to learn that it is fenced", || {
        (metric(&agent, 8081, "volumeviz_agent_fenced_total") > fenced).then_some(())
    });
    ends_well(&scan, 150, "2");
    assert_eq!(measured(), before, "a finished volume was measured again");
}

/// A process in the agent's memory cgroup takes all that is left of it, and the agent is what the kernel kills.
#[test]
fn agent_out_of_memory() {
    let (scan, _volumes) = mid_scan("agent-oom", &json!({}));
    let before = measured();
    let agent = pid("node-2", "^/volumeviz agent");
    in_node(
        "node-2",
        &format!(
            "group=/sys/fs/cgroup/memory$(sed -n 's/.*:memory://p' /proc/{agent}/cgroup); echo 1000 > /proc/{agent}/oom_score_adj
             echo $(($(cat $group/memory.usage_in_bytes) + 8388608)) > $group/memory.limit_in_bytes
             sh -c \"echo \\$\\$ > $group/cgroup.procs; exec tail /dev/zero\" || true"
        ),
    );
    wait(30, "the agent to be told out of memory", || {
        let name = pod("agent", "node-2");
        let reason = "{.status.containerStatuses[0].lastState.terminated.reason}";
        (kubectl(&format!("get pod -n volumeviz {name} -o jsonpath={reason}")) == "OOMKilled").then_some(())
    });
    ends_well(&scan, 150, "2");
    assert_eq!(measured(), before, "a finished volume was measured again");
}

#[test]
fn agents_rolled_by_an_update() {
    let (scan, _volumes) = mid_scan("agents-rolled", &json!({}));
    let (before, agent) = (measured(), pod("agent", "node-2"));
    kubectl(&format!("rollout restart -n volumeviz {DAEMONSET}"));
    kubectl(&format!("rollout status -n volumeviz {DAEMONSET} --timeout=120s"));
    assert_ne!(pod("agent", "node-2"), agent);
    ends_well(&scan, 150, "1");
    assert_eq!(measured(), before, "a finished volume was measured again");
}
