//! The product as its users have it: three real nodes with Docker Engines, a real PostgreSQL, installed by Helm.
//!
//! Run by `tests/with-cluster`, one test after the other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod alerts;
mod database;
#[path = "../kit/mod.rs"]
mod kit;
mod life;
mod network;
#[path = "../kit/port.rs"]
mod port;
mod release;
mod security;
#[path = "../kit/tool.rs"]
mod tool;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Child;

use kit::*;
use serde_json::{Value, json};

/// A program that is stopped with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Volumes of every kind that a walk could get wrong, on node-1 and node-2.
fn make_volumes() {
    in_node(
        "node-1",
        r#"
        docker volume create web >/dev/null; docker volume create idle >/dev/null; docker volume create hostile >/dev/null
        docker volume create --opt type=none --opt o=bind --opt device=/srv unmounted >/dev/null
        docker volume create --opt type=nfs --opt o=addr=127.0.0.1 --opt device=:/x remote >/dev/null
        docker run --detach --name web --volume web:/d busybox sh -c 'dd if=/dev/urandom of=/d/a bs=64k count=40; ln /d/a /d/b; mkdir -p /d/x/y; ln /d/a /d/x/y/c; echo done > /d/ready; sleep 100000' >/dev/null
        docker run --name stopped --volume idle:/d --volume /anonymous busybox sh -c 'truncate -s 1G /d/sparse; echo data > /d/tail' >/dev/null
        cd /var/lib/docker/volumes/hostile/_data
        ln -s /etc/passwd link; ln -s / root; mkfifo fifo; mknod null c 1 3; mkdir 'quote"$(id)'
        printf x > "$(printf 'new\nline')"; printf x > "$(printf 'caf\351')"; printf x > "quote\"'"
        until [ -e /var/lib/docker/volumes/web/_data/ready ]; do sleep 0.1; done
        "#,
    );
    in_node(
        "node-2",
        "docker volume create --label app=db web >/dev/null; cd /var/lib/docker/volumes/web/_data; seq 1 5000 | xargs touch",
    );
}

fn remove_volumes() {
    for node in ["node-1", "node-2"] {
        in_node(
            node,
            "docker ps --all --quiet | xargs -r docker rm --force --volumes >/dev/null; docker volume ls --quiet | xargs -r docker volume rm >/dev/null",
        );
    }
}

/// Rows of the last run of a scan: node/name → (completeness, reason, allocated bytes).
fn rows() -> BTreeMap<String, (String, String, String)> {
    let query = "SELECT v.volume_id, r.completeness, coalesce(r.reason, ''), coalesce(r.allocated_bytes::text, '') FROM scan_results r
        JOIN volumes v ON v.id = r.volume_id JOIN scan_jobs j ON j.id = r.scan_job_id WHERE j.run_id = (SELECT max(id) FROM scan_runs)";
    let line = |line: &str| {
        let cells: Vec<&str> = line.split('|').collect();
        (cells[0].to_owned(), (cells[1].to_owned(), cells[2].to_owned(), cells[3].to_owned()))
    };
    sql(query).lines().map(line).collect()
}

fn du(node: &str, path: &str) -> u64 {
    let line = in_node(node, &format!("du -sxB1 '{path}'"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_scan_finds_what_is_there() {
    make_volumes();
    let scan = Scan::new("everything", &json!({"measurement": {"topEntries": 3}}));
    kubectl("wait volumescan/everything --for=condition=Complete --timeout=60s");
    let status = scan.status();
    let rows = rows();
    let mut allocated = 0;
    for (id, (completeness, reason, bytes)) in &rows {
        let (node, name) = id.split_once('/').unwrap();
        match name {
            "unmounted" => {
                assert_eq!((completeness.as_str(), reason.as_str(), bytes.as_str()), ("Unknown", "NotMounted", ""));
            }
            "remote" => assert_eq!(
                (completeness.as_str(), reason.as_str(), bytes.as_str()),
                ("Unknown", "NetworkFilesystem", "")
            ),
            _ => {
                let size = du(node, &format!("/var/lib/docker/volumes/{name}/_data"));
                assert_eq!((completeness.as_str(), bytes.parse()), ("Complete", Ok(size)), "{id}");
                allocated += size;
            }
        }
    }
    let totals = &status["totals"];
    assert_eq!(rows.len(), 7, "{rows:?}");
    assert_eq!(totals["allocatedBytes"], json!(allocated));
    let expected = json!([7, 5, 0, 0, 2, 1, 1, 6]);
    let kinds = ["volumes", "measured", "partial", "failed", "unknown", "anonymous", "inUse", "unused"];
    assert_eq!(Value::from(kinds.map(|kind| totals[kind].clone()).to_vec()), expected, "{kinds:?}");
    let web = status["topVolumes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["name"] == "web" && v["node"] == "node-1")
        .unwrap()
        .clone();
    assert_eq!((&web["usedByRunning"], &web["usedByStopped"]), (&json!(1), &json!(0)));
    let entries = ["topFiles", "topDirectories"].iter().flat_map(|list| status[list].as_array().unwrap());
    // Names in `hostile` are none to give to a shell.
    for entry in entries.filter(|entry| entry["name"] != "hostile") {
        let [node, name, path] = ["node", "name", "path"].map(|key| entry[key].as_str().unwrap());
        let blocks = in_node(node, &format!("stat --format %b '/var/lib/docker/volumes/{name}/_data/{path}'"));
        let blocks: u64 = blocks.trim().parse().unwrap();
        let bytes = entry["allocatedBytes"].as_u64().unwrap();
        assert!(bytes == blocks * 512 || (bytes > blocks * 512 && path == "."), "{entry}");
    }
    let top = |list: &str| status[list][0]["allocatedBytes"].as_u64().unwrap();
    assert!(top("topFiles") > 0 && top("topDirectories") > top("topFiles"), "{status}");
    assert_eq!(status["agents"], json!({"desired": 3, "ready": 3, "withoutDocker": 0}));
    let line = kubectl("get volumescan everything --no-headers");
    assert!(line.contains("Succeeded") && line.contains("3/3") && line.contains("True"), "{line}");
    let events =
        kubectl("get events -n default --field-selector involvedObject.name=everything -o jsonpath={.items[*].reason}");
    assert!(events.contains("RunStarted") && events.contains("RunCompleted"), "{events}");
    drop(scan);
    selectors_choose();
    remove_volumes();
}

fn selectors_choose() {
    let volumes = |name: &str, spec: Value| {
        let scan = Scan::new(name, &spec);
        scan.complete(60);
        rows().into_keys().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        volumes("by-name", json!({"volumeSelector": {"names": ["w*", "idle"], "excludeNames": ["idle"]}})),
        "node-1/web node-2/web"
    );
    assert_eq!(
        volumes("by-label", json!({"volumeSelector": {"labels": {"matchLabels": {"app": "db"}}}})),
        "node-2/web"
    );
    let by_node = json!({"nodeSelector": {"matchLabels": {"kubernetes.io/hostname": "node-2"}}, "limits": {"maxParallelNodes": 1}});
    assert_eq!(volumes("by-node", by_node), "node-2/web");
    let anonymous = volumes("by-kind", json!({"volumeSelector": {"kinds": ["Anonymous"], "drivers": ["local"]}}));
    assert!(anonymous.starts_with("node-1/") && anonymous.len() == "node-1/".len() + 64, "{anonymous}");
    let scan = Scan::new("inventory", &json!({"measurement": {"mode": "Inventory"}}));
    let totals = scan.complete(60)["totals"].clone();
    assert_eq!((&totals["volumes"], &totals["unknown"], &totals["measured"]), (&json!(7), &json!(7), &json!(0)));
}

#[test]
fn a_new_trigger_runs_again_and_a_used_one_does_not() {
    let scan = Scan::new("again", &json!({"trigger": "one"}));
    let first = scan.complete(60)["lastRun"]["id"].clone();
    let trigger = |value: &str| {
        let patch = format!("{{\"spec\":{{\"trigger\":\"{value}\"}}}}");
        run("kubectl", &["patch", "volumescan", "again", "--type=merge", "-p", &patch]);
    };
    let handled = |value: &str| {
        wait(60, "the trigger to be handled", || {
            let status = scan.status();
            (status["lastHandledTrigger"] == *value && status["activeRun"].is_null()).then_some(status)
        })
    };
    trigger("two");
    let second = handled("two");
    assert_ne!(second["lastRun"]["id"], first);
    assert_eq!(second["history"].as_array().unwrap().len(), 2);
    trigger("one");
    assert_eq!(handled("one")["lastRun"]["id"], second["lastRun"]["id"], "a used trigger starts nothing");
    let events =
        kubectl("get events -n default --field-selector involvedObject.name=again -o jsonpath={.items[*].reason}");
    assert!(events.contains("TriggerAlreadyHandled"), "{events}");
}

#[test]
fn bad_input_is_refused_or_visible() {
    for (spec, field) in [
        (json!({"measurement": {"mode": "Guess"}}), "spec.measurement.mode"),
        (json!({"limits": {"volumeTimeoutSeconds": 1}}), "spec.limits.volumeTimeoutSeconds"),
        (json!({"nodeSelector": {"disk": "ssd"}}), "nodeSelector"),
    ] {
        let refused = apply(&manifest("refused", &spec)).expect_err("refused");
        assert!(refused.contains(field), "{refused}");
    }
    let scan = Scan::new("bad-glob", &json!({"volumeSelector": {"names": ["["]}}));
    let status = scan.until(15, "Stalled", ("True", "InvalidSelector"));
    assert!(status.to_string().contains("spec.volumeSelector.names[0]"), "{status}");
    let nowhere = Scan::new("nowhere", &json!({"nodeSelector": {"matchLabels": {"disk": "none"}}}));
    let status = nowhere.until(15, "Failed", ("True", "NoMatchingNodes"));
    assert_eq!(status["totals"], Value::Null, "nothing is not zero");
}

/// A chart that has a scan in it: Helm waits for it by its conditions.
#[test]
fn helm_waits_for_a_scan() {
    let chart = tempfile::tempdir().unwrap();
    fs::create_dir(chart.path().join("templates")).unwrap();
    fs::write(chart.path().join("Chart.yaml"), "apiVersion: v2\nname: scan\nversion: 0.0.1\n").unwrap();
    fs::write(chart.path().join("templates/scan.yaml"), manifest("by-helm", &json!({})).to_string()).unwrap();
    run("helm", &["install", "scan", chart.path().to_str().unwrap(), "--wait", "--timeout", "60s"]);
    let status = get("volumescan by-helm")["status"].clone();
    run("helm", &["uninstall", "scan"]);
    assert_eq!(condition(&status, "Complete").0, "True");
}

#[test]
fn at_rest_nothing_is_written_but_leases() {
    let scan = Scan::new("at-rest", &json!({}));
    scan.complete(60);
    let seen = wait(20, "the first writes", || Some(writes()).filter(|writes| !writes.is_empty()));
    assert!(
        seen.iter().any(|write| write.contains("volumescans/at-rest/status")),
        "the count sees status writes: {seen:?}"
    );
    stays(1, "settling", || ());
    let before = writes().len();
    stays(60, "a write at rest", || writes().split_off(before));
}

/// Every object of the cluster, but Events, that is in the installation's namespace or tells its name; of nodes the images do not count.
fn traces() -> BTreeSet<String> {
    let kinds = kubectl("api-resources --verbs=list -o name");
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
    let list = get(&format!("{} --all-namespaces", kinds.join(",")));
    let mut found = BTreeSet::new();
    for item in list["items"].as_array().unwrap() {
        let mut told = item.clone();
        told.as_object_mut().unwrap().remove("status");
        if told["metadata"]["namespace"] == "volumeviz" || told.to_string().contains("volumeviz") {
            found.insert(format!("{} {}", item["kind"].as_str().unwrap(), item["metadata"]["name"].as_str().unwrap()));
        }
    }
    found
}

/// What the README has people type after `heading`, up to the next one.
fn of_readme(heading: &str) -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, after) = readme.split_once(heading).unwrap();
    after.split("```").nth(1).unwrap().to_owned()
}

/// Leaves a cluster without the product: the last test by its name.
#[test]
fn uninstalling_keeps_what_is_said_and_nothing_else() {
    install(&["--set", "backup.enabled=true,backup.persistence.storageClass=local", "--wait"]).unwrap();
    let scan = Scan::new("kept", &json!({}));
    scan.complete(60);
    let runs = sql("SELECT count(*) FROM scan_runs");
    let password = || kubectl("get secret -n volumeviz volumeviz-database-controller -o jsonpath={.data.password}");
    let before = password();
    let told = run("sh", &["-euc", &of_readme("## Uninstall")]);
    assert!(told.contains("CustomResourceDefinition") && told.contains("volumescans.volumeviz.io"), "{told}");
    assert_eq!(scan.status()["state"], "Complete");
    let ended = || kubectl("get pods -n volumeviz -o name").is_empty().then_some(());
    wait(60, "the pods to end", ended);
    // The namespace with what Kubernetes puts into each, and the volumes of whoever runs the cluster.
    let given = [
        "Namespace volumeviz",
        "ConfigMap kube-root-ca.crt",
        "ServiceAccount default",
        "PersistentVolume backup",
        "PersistentVolume database",
    ];
    let kept = [
        "CustomResourceDefinition volumealerts.volumeviz.io",
        "CustomResourceDefinition volumescans.volumeviz.io",
        "APIService v1alpha1.volumeviz.io",
        "VolumeScan kept",
        "PersistentVolumeClaim data-volumeviz-database-0",
        "PersistentVolumeClaim volumeviz-backup",
        "Secret volumeviz-database-agent",
        "Secret volumeviz-database-controller",
        "Secret volumeviz-database-owner",
        "Secret volumeviz-database-superuser",
        "Secret volumeviz-database-tls",
        "Lease volumeviz-controller",
    ];
    let expected = given.iter().chain(&kept).map(|&object| object.to_owned()).collect();
    assert_eq!(traces(), expected);

    kubectl("delete volumescan kept --timeout=10s");
    install(&["--wait", "--timeout", "3m"]).unwrap();
    assert_eq!(password(), before);
    assert_eq!(sql("SELECT count(*) FROM scan_runs"), runs);
    Scan::new("after", &json!({})).complete(60);

    run("helm", &["uninstall", "volumeviz", "--namespace", "volumeviz", "--wait"]);
    run("sh", &["-euc", &of_readme("For good:")]);
    let left = ["PersistentVolume backup", "PersistentVolume database"].map(str::to_owned);
    assert_eq!(traces(), BTreeSet::from(left));
}
