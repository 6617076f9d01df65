//! Making faults, seeing that they bite, and undoing them however the test ends.

#![allow(unreachable_pub, reason = "a module of a test program")]

use super::*;

/// Undoes a fault when dropped: a test that fails leaves a cluster that works.
#[must_use]
pub struct Undo(Option<Box<dyn FnOnce()>>);

impl Undo {
    /// `undo` must not panic: it may run while a test fails.
    pub fn new(undo: impl FnOnce() + 'static) -> Self {
        Self(Some(Box::new(undo)))
    }

    /// A shell command inside a node.
    pub fn in_node(node: &str, script: &str) -> Self {
        let (node, script) = (node.to_owned(), script.to_owned());
        Self::new(move || tell("undo", try_in_node(&node, &script)))
    }

    /// A kubectl command.
    pub fn kubectl(arguments: &str) -> Self {
        let arguments = arguments.to_owned();
        Self::new(move || tell("undo", try_kubectl(&arguments)))
    }

    /// A statement in the database.
    pub fn sql(statement: &str) -> Self {
        let statement = statement.to_owned();
        Self::new(move || tell("undo", try_sql(&statement)))
    }

    /// Now.
    pub fn now(self) {
        drop(self);
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Some(undo) = self.0.take() {
            undo();
        }
    }
}

pub fn try_kubectl(arguments: &str) -> Result<String, String> {
    try_run("kubectl", &arguments.split_whitespace().collect::<Vec<_>>())
}

/// What may fail while a fault is undone is only told.
pub fn tell(what: &str, result: Result<String, String>) {
    if let Err(error) = result {
        eprintln!("{what}: {error}");
    }
}

/// Stops a process with SIGSTOP until the value is dropped.
pub fn pause(node: &str, pid: &str) -> Undo {
    let undo = Undo::in_node(node, &format!("kill -CONT {pid}"));
    in_node(node, &format!("kill -STOP {pid}"));
    wait(5, "the process to be stopped", || {
        (in_node(node, &format!("cut -d' ' -f3 /proc/{pid}/stat")) == "T").then_some(())
    });
    undo
}

/// Drops packets that a rule of the node's FORWARD chain matches, until the value is dropped.
pub fn drop_packets(node: &str, rules: &[&str]) -> Undo {
    let each = |verb: &str| {
        let lines: Vec<String> = rules.iter().map(|rule| format!("iptables {verb} FORWARD {rule} -j DROP")).collect();
        lines.join("; ")
    };
    let undo = Undo::in_node(node, &each("-D"));
    in_node(node, &each("-I"));
    undo
}

/// Figures of a pod's `/metrics`, summed over their labels.
pub fn metric(pod: &str, port: u16, name: &str) -> f64 {
    sum(&kubectl(&format!("get --raw /api/v1/namespaces/volumeviz/pods/{pod}:{port}/proxy/metrics")), name)
}

/// A figure of what `/metrics` tells, summed over its labels.
pub fn sum(metrics: &str, name: &str) -> f64 {
    let of_name = metrics.lines().filter(|line| line.split([' ', '{']).next() == Some(name));
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Restarts of all containers of a component, by pod.
pub fn restarts(component: &str) -> String {
    kubectl(&format!(
        "get pods -n volumeviz -l app.kubernetes.io/component={component} \
         -o jsonpath={{range.items[*]}}{{.metadata.name}}{{..restartCount}}{{end}}"
    ))
}

/// Waits until objects are no more.
pub fn gone(what: &str) {
    wait(60, &format!("{what} to be gone"), || {
        kubectl(&format!("get {what} --ignore-not-found -o name")).is_empty().then_some(())
    });
}

/// The process that leads: its pod's name, and what makes it another than the one before in that pod.
pub fn holder() -> String {
    kubectl("get lease -n volumeviz volumeviz-controller -o jsonpath={.spec.holderIdentity}")
}

/// The pod that leads.
pub fn leader() -> String {
    holder().split('_').next().unwrap().to_owned()
}

/// Waits until another process leads than `before`, which it does within 20 s of the fault.
pub fn another_leads(before: &str, since: Instant) {
    wait(left(20, since), "another process to lead", || {
        let now = holder();
        (!now.is_empty() && now != before).then_some(())
    });
    took("another leads", since);
}

/// Whether the controller in a pod has said something since then (or in the 5 s before), in its present container or in the one before.
pub fn has_said(pod: &str, what: &str, since: Instant) -> bool {
    let since = format!("--since={}s", since.elapsed().as_secs() + 5);
    ["--previous", "--previous=false"].into_iter().any(|which| {
        try_run("kubectl", &["logs", "-n", "volumeviz", pod, "-c", "controller", &since, which])
            .is_ok_and(|log| log.contains(what))
    })
}

pub fn node_of(pod: &str) -> String {
    kubectl(&format!("get pod -n volumeviz {pod} -o jsonpath={{.spec.nodeName}}"))
}

/// Process id, inside its node, of the controller in a pod; empty when there is none.
pub fn controller_pid(node: &str, pod: &str) -> String {
    in_node(
        node,
        &format!(
            "for p in $(pgrep -f '^/volumeviz controller'); do tr '\\0' '\\n' </proc/$p/environ | grep -qx POD_NAME={pod} && echo $p; done; true"
        ),
    )
}

/// Takes the database away until the value is dropped.
pub fn database_away() -> Undo {
    let scale = |replicas: u32| format!("scale -n volumeviz statefulset/volumeviz-database --replicas={replicas}");
    let back = Undo::new(move || {
        tell("undo", try_kubectl(&scale(1)));
        tell("undo", try_kubectl("rollout status -n volumeviz statefulset/volumeviz-database --timeout=120s"));
    });
    kubectl(&scale(0));
    back
}

/// Cuts every connection to the database but this one, so that what is refused to new ones is met at once.
pub fn cut_connections() {
    sql(CUT_CONNECTIONS);
}

pub const CUT_CONNECTIONS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = 'volumeviz' AND pid <> pg_backend_pid()";

/// Waits until a status tells why the database cannot be used, which it does within 15 s of the fault.
pub fn database_loss_is_told(scan: &Scan, reasons: &[&str], since: Instant) -> Value {
    let told = wait(left(15, since), &format!("DatabaseReady to be {reasons:?}"), || {
        let status = scan.status();
        let (truth, reason) = condition(&status, "DatabaseReady");
        (truth == "False" && reasons.contains(&reason.as_str())).then_some(status)
    });
    took("database loss in status", since);
    told
}

/// Every connection of the leader's pool can be had again.
pub fn no_permit_is_lost() {
    let pod = leader();
    let in_use = "volumeviz_database_connections_in_use";
    wait(30, "the pool to be at rest", || (metric(&pod, 8080, in_use) < 2.0).then_some(()));
}

/// Whether a scan's status says that all is well on all three nodes, of the spec as it is now.
pub fn is_right(scan: &Value) -> bool {
    let status = &scan["status"];
    let agents = &status["agents"];
    condition(status, "DatabaseReady") == ("True".to_owned(), "Connected".to_owned())
        && condition(status, "AgentsReady").0 == "True"
        && agents["desired"] == 3
        && agents["ready"] == 3
        && status["observedGeneration"] == scan["metadata"]["generation"]
}

/// The fault is gone: within 60 s the status is right by itself.
pub fn status_is_right(scan: &Scan) {
    let since = Instant::now();
    wait(60, "the status to be right", || is_right(&scan.read()).then_some(()));
    took("status right after the fault", since);
}

/// What is left of a bound that counts from `since`, in seconds.
pub fn left(seconds: u64, since: Instant) -> u64 {
    seconds.saturating_sub(since.elapsed().as_secs())
}

/// Tells how long something took, for `docs/reliability.md`.
pub fn took(what: &str, since: Instant) {
    println!("    {what}: {:.1} s", since.elapsed().as_secs_f64());
}
