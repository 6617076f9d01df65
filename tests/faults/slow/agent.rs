//! Agents that stand still, run out of memory, or are replaced by an update.

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
    let back = Undo::new(move || {
        let replace = json!([{"op": "add", "path": field, "value": probe}]).to_string();
        tell("undo", patch(&replace));
    });
    patch(&json!([{"op": "remove", "path": field}]).to_string()).unwrap();
    back
}

/// The node's job was given a new ticket meanwhile: what the old process still knows is worth nothing.
#[test]
fn agent_paused_past_its_lease() {
    let _probe = without_liveness_probe();
    let mid = mid_scan("agent-paused", &json!({}));
    let agent = pod("agent", "node-2");
    let ticket = mid.run.ticket();
    let fenced = metric(&agent, 8081, "volumeviz_agent_fenced_total");
    let since = Instant::now();
    let paused = pause("node-2", &pid("node-2", "^/volumeviz agent"));
    wait(left(60, since), "the status to tell that the agent is away", || {
        (mid.scan.status()["agents"]["ready"] == 2).then_some(())
    });
    took("agent loss in status", since);
    wait(60, "a new ticket", || (mid.run.ticket() != ticket).then_some(()));
    took("new ticket", since);
    stays(left(60, since), "nothing is written for the agent", || mid.run.results("v.name, r.id"));
    paused.now();
    let since = Instant::now();
    wait(30, "the agent to learn that it is fenced", || {
        (metric(&agent, 8081, "volumeviz_agent_fenced_total") > fenced).then_some(())
    });
    took("the old process fenced", since);
    mid.status_is_right();
    mid.ends_well(150, 2, Job::Resumed);
}

/// A process in the agent's memory cgroup takes all that is left of it, and the agent is what the kernel kills.
#[test]
fn agent_out_of_memory() {
    let mid = mid_scan("agent-oom", &json!({}));
    let (ticket, agent) = (mid.run.ticket(), pid("node-2", "^/volumeviz agent"));
    let since = Instant::now();
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
    mid.status_is_right();
    wait(60, "a new ticket", || (mid.run.ticket() != ticket).then_some(()));
    took("new ticket", since);
    mid.ends_well(150, 2, Job::Resumed);
}

#[test]
fn agents_rolled_by_an_update() {
    let mid = mid_scan("agents-rolled", &json!({}));
    let (ticket, agent) = (mid.run.ticket(), pod("agent", "node-2"));
    let since = Instant::now();
    kubectl(&format!("rollout restart -n volumeviz {DAEMONSET}"));
    wait(60, "the job to be handed back", || (mid.run.ticket() != ticket).then_some(()));
    took("the job handed back", since);
    kubectl(&format!("rollout status -n volumeviz {DAEMONSET} --timeout=120s"));
    assert_ne!(pod("agent", "node-2"), agent);
    mid.status_is_right();
    mid.ends_well(150, 1, Job::Resumed);
}
