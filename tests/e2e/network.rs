//! The chart's NetworkPolicies, in a network that enforces them.

use super::*;

const ENFORCER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/network-policies.yaml");

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// Has new connections of pods judged. It does so by itself where the kernel has nftables' queue, which not each has that these tests run on.
const ASK: &str = "
    iptables -t mangle -N POLICIES
    iptables -t mangle -A POLICIES -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
    iptables -t mangle -A POLICIES -m owner --uid-owner 0 -j RETURN
    iptables -t mangle -A POLICIES -s 10.244.0.0/16 -j NFQUEUE --queue-num 100
    iptables -t mangle -A POLICIES -d 10.244.0.0/16 -j NFQUEUE --queue-num 100
    iptables -t mangle -A POSTROUTING -j POLICIES";

/// What enforces NetworkPolicies on every node, and a pod that is nobody's; both go with this value.
struct Enforced;

impl Enforced {
    fn start() -> Self {
        let images = std::env::var("IMAGES").unwrap();
        cluster(&["load", &format!("{images}/network-policies.tar")]);
        let stranger = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger", "namespace": "default"},
            "spec": {"nodeName": "node-2", "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "stranger", "image": "localhost/pause:1", "imagePullPolicy": "Never"}]}});
        apply(&stranger).unwrap();
        run("kubectl", &["apply", "-f", ENFORCER]);
        let this = Self;
        kubectl("rollout status -n kube-system daemonset/network-policies --timeout=60s");
        kubectl("wait pod/stranger --for=condition=Ready --timeout=60s");
        for node in NODES {
            in_node(node, ASK);
        }
        this
    }
}

impl Drop for Enforced {
    fn drop(&mut self) {
        drop(try_run("kubectl", &["delete", "pod", "stranger"]));
        drop(try_run("kubectl", &["delete", "-f", ENFORCER]));
        for node in NODES {
            drop(try_in_node(
                node,
                "iptables -t mangle -D POSTROUTING -j POLICIES; iptables -t mangle -F POLICIES; iptables -t mangle -X POLICIES",
            ));
            drop(try_in_node(node, "nft delete table inet kube-network-policies"));
        }
    }
}

/// Whether a pod, given as `kubectl exec` has it, gets a connection.
fn connects(from: &str, address: &str, port: u16) -> bool {
    try_run(
        "sh",
        &["-c", &format!("kubectl exec {from} -- /bin/busybox timeout 2 /bin/busybox nc {address} {port} </dev/null")],
    )
    .is_ok()
}

fn address(pod: &str) -> String {
    kubectl(&format!("get pod -n volumeviz {pod} -o jsonpath={{.status.podIP}}"))
}

#[test]
fn policies_keep_strangers_out_and_let_the_product_work() {
    let _enforced = Enforced::start();
    let (stranger, database) = ("-n default stranger", "-n volumeviz volumeviz-database-0");
    let agents = ["node-1", "node-2"].map(|node| address(&pod("agent", node)));
    let mut doors = vec![(stranger, address("volumeviz-database-0"), 5432), (database, agents[0].clone(), 8443)];
    doors.push((
        database,
        kubectl("get endpoints -n default kubernetes -o jsonpath={.subsets[0].addresses[0].ip}"),
        6443,
    ));
    for agent in &agents {
        doors.extend([(stranger, agent.clone(), 8443), (stranger, agent.clone(), 8081)]);
    }
    let open = || doors.iter().filter(|(from, to, port)| connects(from, to, *port)).count();
    wait(30, "every door to be open without policies", || (open() == doors.len()).then_some(()));

    let to_prometheus = "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus";
    let all_at_once = "agent.updateStrategy.rollingUpdate.maxUnavailable=100%";
    let policies = format!("networkPolicy.enabled=true,{to_prometheus},{all_at_once}");
    let backups = "backup.enabled=true,backup.persistence.storageClass=local";
    install(&["--set", &policies, "--set", backups, "--wait", "--timeout", "3m"]).unwrap();
    wait(30, "every door to be closed", || (open() == 0).then_some(()));

    // What is connected stays so: all have to find each other anew.
    kubectl(
        "rollout restart -n volumeviz deployment/volumeviz-controller daemonset/volumeviz-agent statefulset/volumeviz-database",
    );
    for workload in ["statefulset/volumeviz-database", "deployment/volumeviz-controller", "daemonset/volumeviz-agent"] {
        kubectl(&format!("rollout status -n volumeviz {workload} --timeout=120s"));
    }
    let status = Scan::new("behind-policies", &json!({})).complete(120);
    assert_eq!(
        (&status["lastRun"]["result"], &status["lastRun"]["nodes"]["succeeded"]),
        (&json!("Succeeded"), &json!(3))
    );
    run("helm", &["test", "volumeviz", "-n", "volumeviz", "--timeout", "3m"]);
    kubectl("create job -n volumeviz behind-policies --from=cronjob/volumeviz-backup");
    kubectl("wait -n volumeviz job/behind-policies --for=condition=Complete --timeout=90s");
    kubectl("delete job -n volumeviz behind-policies");
    install(&["--wait", "--timeout", "3m"]).unwrap();
}
