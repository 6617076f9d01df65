//! The installation as Helm sees it: tested, upgraded and rolled back while it works, removed.

use super::*;

#[test]
fn helm_test_passes_and_leaves_nothing() {
    let told = run("helm", &["test", "volumeviz", "-n", "volumeviz", "--timeout", "3m"]);
    assert!(told.contains("Succeeded"), "{told}");
    let kinds = "pods,serviceaccounts,clusterroles,clusterrolebindings";
    let left = kubectl(&format!("get {kinds} -n volumeviz -l app.kubernetes.io/instance=volumeviz -o name"));
    assert!(!left.contains("volumeviz-test"), "{left}");
    assert_eq!(kubectl("get volumescans -o name"), "");
}

/// `helm test` says what is wrong, not only that something is.
#[test]
fn helm_test_fails_with_the_reason() {
    install(&["--set", "tests.timeout=10s", "--wait", "--timeout", "3m"]).unwrap();
    scale("deployment/volumeviz-controller", 0);
    try_run("helm", &["test", "volumeviz", "-n", "volumeviz", "--timeout", "1m"]).expect_err("it needs a controller");
    let logs = kubectl("logs -n volumeviz volumeviz-test");
    scale("deployment/volumeviz-controller", 2);
    kubectl("delete pod -n volumeviz volumeviz-test");
    install(&["--wait", "--timeout", "3m"]).unwrap();
    assert!(logs.contains("VolumeScan volumeviz-test did not end within 10s"), "{logs}");
    assert!(logs.contains("does a controller run?") || logs.contains("Pending"), "{logs}");
    assert_eq!(kubectl("get volumescans -o name"), "", "the scan is deleted whatever comes of it");
}

/// The chart as of another version, whose pods are all replaced.
fn another_version() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/volumeviz");
    run("cp", &["-r", chart, folder.path().to_str().unwrap()]);
    let meta = folder.path().join("volumeviz/Chart.yaml");
    let text = fs::read_to_string(&meta).unwrap().replace("\nversion: 0.1.0", "\nversion: 0.1.1");
    assert!(text.contains("\nversion: 0.1.1"));
    fs::write(meta, text).unwrap();
    folder
}

/// Volumes with a result of a scan's runs: `node|id`.
fn final_volumes(scan: &str) -> BTreeSet<String> {
    let volumes = sql(&format!(
        "SELECT j.node, r.volume_id FROM scan_results r JOIN scan_jobs j ON j.id = r.scan_job_id
         JOIN scan_runs s ON s.id = j.run_id WHERE s.scan_name = '{scan}'"
    ));
    volumes.lines().map(str::to_owned).collect()
}

/// Of 12 volumes a node, each a directory with 500 files. An attempt counts from 0 when another agent takes it up.
fn nothing_was_measured_again(scan: &str, early: &BTreeSet<String>) {
    let all = final_volumes(scan);
    assert!(all.len() == 36 && early.is_subset(&all), "what was final stays: {early:?} {all:?}");
    let looked_at = sql(&format!(
        "SELECT node, progress ->> 'entries' FROM scan_jobs JOIN scan_runs ON scan_runs.id = run_id WHERE scan_name = '{scan}'"
    ));
    let looked_at: Vec<_> = looked_at.lines().filter_map(|line| line.split_once('|')).collect();
    assert_eq!(looked_at.len(), 3, "{looked_at:?}");
    for (node, entries) in looked_at {
        let early = early.iter().filter(|volume| volume.starts_with(&format!("{node}|"))).count();
        let entries: usize = entries.parse().unwrap();
        assert!(entries <= (12 - early) * 501, "{node}: {early} volumes were final, {entries} entries looked at after");
    }
}

#[test]
fn an_upgrade_and_a_rollback_while_a_scan_runs_lose_nothing() {
    for node in ["node-1", "node-2", "node-3"] {
        in_node(
            node,
            "for n in $(seq 12); do docker volume create work-$n >/dev/null; cd /var/lib/docker/volumes/work-$n/_data; seq 500 | xargs touch; done",
        );
    }
    // Slow enough to last through both.
    let spec =
        json!({"volumeSelector": {"names": ["work-*"]}, "limits": {"entriesPerSecond": 100, "parallelVolumes": 1}});
    let scan = Scan::new("through", &spec);
    let early = wait(60, "volumes to be final", || Some(final_volumes("through")).filter(|finals| finals.len() > 2));
    let revision = || run("helm", &["history", "volumeviz", "-n", "volumeviz", "--max", "1", "-o", "json"]);
    let before = revision();
    let database = || kubectl("get pod -n volumeviz volumeviz-database-0 -o jsonpath={.metadata.uid}");
    let same = database();
    let chart = another_version();
    let path = chart.path().join("volumeviz");
    run(
        "helm",
        &[
            "upgrade",
            "volumeviz",
            path.to_str().unwrap(),
            "-n",
            "volumeviz",
            "--reset-then-reuse-values",
            "--set",
            "image.tag=dev",
            "--wait",
            "--timeout",
            "4m",
        ],
    );
    assert_ne!(revision(), before);
    let upgraded = get("daemonset volumeviz-agent -n volumeviz");
    assert_eq!(upgraded["spec"]["template"]["metadata"]["labels"]["helm.sh/chart"], "volumeviz-0.1.1");
    run("helm", &["rollback", "volumeviz", "-n", "volumeviz", "--wait", "--timeout", "4m"]);
    assert_eq!(database(), same, "what does not change is not restarted");
    let status = scan.complete(180);
    assert_eq!(status["lastRun"]["result"], "Succeeded", "{status}");
    assert_eq!(status["totals"]["measured"], 36, "{status}");
    let run_id = &status["lastRun"]["id"];
    nothing_was_measured_again("through", &early);
    assert_eq!(
        sql(&format!("SELECT max(attempt) FROM scan_jobs WHERE run_id = {run_id}")),
        "1",
        "no attempt is lost to an upgrade"
    );
    for node in ["node-1", "node-2", "node-3"] {
        in_node(node, "docker volume ls --quiet | grep ^work- | xargs docker volume rm >/dev/null");
    }
}
