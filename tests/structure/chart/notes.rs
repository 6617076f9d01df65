//! What Helm says when it has installed.

use std::process::Command;

use super::{chart, set, tool};

/// What a cluster enforces by default, Helm cannot know; that a label says so, `tests/api` tries.
#[test]
fn a_namespace_that_may_forbid_agents_is_told_with_the_way_out() {
    let mut command = Command::new(tool("helm"));
    command.args(["install", "volumeviz", "--dry-run=client", "--namespace", "disks"]).arg(chart()).args(set(&[]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let (_, notes) = said.split_once("\nNOTES:\n").unwrap();
    assert!(notes.contains("PodsForbidden"), "{notes}");
    let command = "kubectl label namespace disks pod-security.kubernetes.io/enforce=privileged\n";
    assert!(notes.contains(command), "{notes}");
}
