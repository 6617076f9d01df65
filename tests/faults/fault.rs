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
        Self::new(move || tell("undo", try_run("kubectl", &arguments.split_whitespace().collect::<Vec<_>>())))
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

fn tell(what: &str, result: Result<String, String>) {
    if let Err(error) = result {
        eprintln!("{what}: {error}");
    }
}

/// Stops a process with SIGSTOP until the value is dropped.
pub fn pause(node: &str, pid: &str) -> Undo {
    in_node(node, &format!("kill -STOP {pid}"));
    let undo = Undo::in_node(node, &format!("kill -CONT {pid}"));
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
    in_node(node, &each("-I"));
    Undo::in_node(node, &each("-D"))
}

/// Figures of a pod's `/metrics`, summed over their labels.
pub fn metric(pod: &str, port: u16, name: &str) -> f64 {
    let text = kubectl(&format!("get --raw /api/v1/namespaces/volumeviz/pods/{pod}:{port}/proxy/metrics"));
    let of_name = text.lines().filter(|line| line.split([' ', '{']).next() == Some(name));
    of_name.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Restarts of all containers of a component, by pod.
pub fn restarts(component: &str) -> String {
    kubectl(&format!(
        "get pods -n volumeviz -l app.kubernetes.io/component={component} \
         -o jsonpath={{range.items[*]}}{{.metadata.name}}{{..restartCount}}{{end}}"
    ))
}

/// The pod that leads.
pub fn leader() -> String {
    let holder = kubectl("get lease -n volumeviz volumeviz-controller -o jsonpath={.spec.holderIdentity}");
    holder.split('_').next().unwrap().to_owned()
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

/// What holds after every fault, once it is gone: the run succeeds with this many attempts at most, and its status stays as it is.
pub fn ends_well(scan: &Scan, seconds: u64, attempts_expected: &str) -> Value {
    let status = scan.complete(seconds);
    assert_eq!(
        (status["lastRun"]["result"].as_str(), attempts().as_str()),
        (Some("Succeeded"), attempts_expected),
        "{status}"
    );
    invariants_hold(3);
    let status = scan.until(60, "DatabaseReady", ("True", "Connected"));
    stays(5, "the status", || scan.status());
    status
}

/// Tells how long something took, for `docs/reliability.md`.
pub fn took(what: &str, since: std::time::Instant) {
    println!("    {what}: {:.1} s", since.elapsed().as_secs_f64());
}
