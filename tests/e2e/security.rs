//! What each part may do, seen from outside; and that no secret is told anywhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

/// Capabilities of a process, by `linux/capability.h`.
const CAP_DAC_READ_SEARCH: &str = "0000000000000004";
const NONE: &str = "0000000000000000";

fn value<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim()
}

/// Beside a running container, whose file system is mounted, writable, below Docker's data root.
#[test]
fn agents_and_proxies_can_do_no_more_than_they_must() {
    in_node("node-1", "docker run --detach --name beside busybox sleep 1000 >/dev/null");
    for (subcommand, capabilities) in [("agent", CAP_DAC_READ_SEARCH), ("docker-proxy", NONE)] {
        let pid = pid("node-1", &format!("^/volumeviz {subcommand}$"));
        for thread in in_node("node-1", &format!("ls /proc/{pid}/task")).lines() {
            let status = in_node("node-1", &format!("cat /proc/{pid}/task/{thread}/status"));
            for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
                let expected = if matches!(set, "CapInh" | "CapAmb") { NONE } else { capabilities };
                assert_eq!(value(&status, set), expected, "{subcommand}: {set}");
            }
            // The runtime's filter, and our own on top of it: it was tried before it was logged.
            let told = ["NoNewPrivs", "Seccomp", "Seccomp_filters"].map(|name| value(&status, name));
            assert_eq!(told, ["1", "2", "2"], "{subcommand}");
        }
        let logs = kubectl(&format!("logs -n volumeviz {} -c {subcommand}", pod("agent", "node-1")));
        assert!(logs.contains("system calls are refused; writing is forbidden by Landlock"), "{logs}");
        let sockets = in_node(
            "node-1",
            &format!(
                "find /proc/{pid}/root/ -xdev -name docker.sock; find /proc/{pid}/root/host /proc/{pid}/root/run -name docker.sock 2>/dev/null || true"
            ),
        );
        assert_eq!(sockets.contains("/host/socket/docker.sock"), subcommand == "docker-proxy", "{sockets}");
        assert!(sockets.contains("/run/volumeviz/docker.sock"), "{sockets}");
    }
    in_node("node-1", "docker rm --force beside >/dev/null");
}

/// Docker's engine, asked at the socket that agents have.
#[test]
fn docker_cannot_be_changed_through_the_proxy() {
    let uid = kubectl(&format!("get pod -n volumeviz {} -o jsonpath={{.metadata.uid}}", pod("agent", "node-1")));
    let directory = std::env::var("CLUSTER_DIR").unwrap();
    let inside =
        format!("{directory}/node-1/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/docker-proxy/docker.sock");
    // The name of a socket has at most 107 bytes.
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("docker.sock");
    std::os::unix::fs::symlink(inside, &socket).unwrap();
    let ask = |method: &str, path: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    in_node("node-1", "docker volume create kept >/dev/null");
    let listed = ask("GET", "/volumes");
    assert!(listed.starts_with("HTTP/1.1 200") && listed.contains("\"kept\""), "{listed}");
    for (method, path) in [
        ("POST", "/volumes/create"),
        ("DELETE", "/volumes/kept"),
        ("GET", "/volumes/kept"),
        ("POST", "/containers/create"),
        ("GET", "/containers/json"),
        ("GET", "/system/df"),
        ("POST", "/v1.41/volumes/prune"),
        ("GET", "/_ping"),
    ] {
        let refused = ask(method, path);
        assert!(refused.starts_with("HTTP/1.1 403"), "{method} {path}: {refused}");
    }
    let volumes = in_node("node-1", "docker volume ls --quiet");
    assert!(volumes.contains("kept"), "{volumes}");
    in_node("node-1", "docker volume rm kept >/dev/null");
}

/// What a user of these groups may do, as `kubectl auth can-i --list` tells it.
fn rights(user: &str, groups: &[String], namespace: &str) -> BTreeSet<String> {
    let mut asked = vec!["auth", "can-i", "--list", "--no-headers", "-n", namespace, "--as", user];
    asked.extend(["--as-group", "system:authenticated"]);
    asked.extend(groups.iter().flat_map(|group| ["--as-group", group]));
    let lines = run("kubectl", &asked);
    lines.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What `kubectl auth can-i --list` tells of each account, without what every account may.
#[test]
fn rights_in_kubernetes_are_exactly_these() {
    let mut told = String::new();
    for (account, namespace) in [
        ("volumeviz-controller", "volumeviz"),
        ("volumeviz-controller", "default"),
        ("volumeviz-controller", "kube-system"),
        ("volumeviz-agent", "volumeviz"),
        ("volumeviz-database", "volumeviz"),
        ("volumeviz-backup", "volumeviz"),
        ("default", "volumeviz"),
    ] {
        let rights = |home: &str, account: &str| {
            let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{home}")];
            rights(&format!("system:serviceaccount:{home}:{account}"), &groups, namespace)
        };
        writeln!(told, "# {account} in {namespace}").unwrap();
        for line in rights("volumeviz", account).difference(&rights("elsewhere", "nobody")) {
            writeln!(told, "{line}").unwrap();
        }
    }
    // People, by the roles that every cluster has.
    for role in ["view", "edit"] {
        let binding = format!("test-{role}");
        kubectl(&format!("create clusterrolebinding {binding} --clusterrole={role} --user={binding}"));
        let rights = rights(&binding, &[], "default");
        kubectl(&format!("delete clusterrolebinding {binding}"));
        writeln!(told, "# {role}, of VolumeViz").unwrap();
        for line in rights.iter().filter(|line| line.contains("volumeviz")) {
            writeln!(told, "{line}").unwrap();
        }
    }
    let expected = include_str!("rights.txt");
    assert!(told == expected, "tests/e2e/rights.txt is to be:\n{told}");
}

/// The owner's login of the database and the rights in Kubernetes are never in one process.
#[test]
fn of_a_controllers_containers_one_has_a_token() {
    let token = "root/var/run/secrets/kubernetes.io/serviceaccount/token";
    for (subcommand, expected) in [("controller", 2), ("maintain", 0)] {
        let look = format!(
            "for p in $(pgrep -f '^/volumeviz {subcommand}'); do echo seen; ls /proc/$p/{token} 2>/dev/null || true; done"
        );
        let told: String = ["node-1", "node-2", "node-3"].map(|node| in_node(node, &look) + "\n").concat();
        assert_eq!(told.matches("seen").count(), 2, "{subcommand}: {told}");
        assert_eq!(told.matches(token).count(), expected, "{subcommand}: {told}");
    }
}

/// Secrets of the installation that must not be seen: passwords, keys, tokens, a receiver's address and header.
fn canaries() -> BTreeSet<String> {
    let secrets = get("secrets -n volumeviz");
    let mut canaries = BTreeSet::new();
    for secret in secrets["items"].as_array().unwrap() {
        let helms_own = secret["type"].as_str().unwrap().starts_with("helm.sh/");
        for (key, value) in secret["data"].as_object().into_iter().flatten() {
            let is_public = matches!(key.as_str(), "username" | "ca.crt" | "tls.crt");
            if is_public || helms_own {
                continue;
            }
            let value = String::from_utf8(base64(value.as_str().unwrap())).unwrap();
            // Of a key, each line that is not its frame.
            canaries
                .extend(value.lines().filter(|line| line.len() >= 8 && !line.starts_with("-----")).map(str::to_owned));
        }
    }
    let tokens = "find /var/lib/kubelet/pods/*/volumes/kubernetes.io~projected -name token -exec cat {} \\; -exec echo \\; 2>/dev/null || true";
    for node in ["node-1", "node-2", "node-3"] {
        canaries.extend(in_node(node, tokens).lines().filter(|line| line.len() > 20).map(str::to_owned));
    }
    canaries
}

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

/// Everything that the installation shows to whoever may look: logs at the most talkative level, objects, Events, metrics, the database.
fn shown() -> Vec<(String, String)> {
    let mut shown = Vec::new();
    for pod in get("pods -n volumeviz")["items"].as_array().unwrap() {
        let name = pod["metadata"]["name"].as_str().unwrap();
        for container in pod["spec"]["containers"].as_array().unwrap() {
            let container = container["name"].as_str().unwrap();
            for which in ["", "--previous"] {
                let log = try_run("sh", &["-c", &format!("kubectl logs -n volumeviz {name} -c {container} {which}")]);
                assert!(log.is_ok() || !which.is_empty(), "{name}/{container}: {log:?}");
                shown.extend(log.ok().map(|log| (format!("log {which} of {name}/{container}"), log)));
            }
        }
        for port in ["8080", "8081", "8082"] {
            for path in ["metrics", "readyz?verbose"] {
                let url = format!("/api/v1/namespaces/volumeviz/pods/{name}:{port}/proxy/{path}");
                shown.extend(try_run("kubectl", &["get", "--raw", &url]).ok().map(|text| (url, text)));
            }
        }
    }
    for what in [
        "volumescans,volumealerts",
        "events -A",
        "configmaps,pods,deployments,daemonsets,statefulsets,leases -n volumeviz",
    ] {
        shown.push((what.to_owned(), kubectl(&format!("get {what} -o yaml"))));
    }
    let metrics = shown.iter().filter(|(place, _)| place.ends_with("/metrics")).count();
    assert_eq!(metrics, 3 + 2 * 2, "those of three agents, and of two controllers with maintain");
    shown.push(("notes".to_owned(), run("helm", &["get", "notes", "volumeviz", "-n", "volumeviz"])));
    let dump = [
        "exec",
        "-n",
        "volumeviz",
        "volumeviz-database-0",
        "--",
        "pg_dump",
        "-U",
        "postgres",
        "--data-only",
        "volumeviz",
    ];
    shown.push(("database".to_owned(), run("kubectl", &dump)));
    shown
}

#[test]
fn no_secret_is_told_anywhere_however_much_is_logged() {
    let receiver = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "canary", "namespace": "volumeviz", "labels": {"volumeviz.io/notify": "true"}},
        "stringData": {"url": "https://canary-host.invalid/canary-path?token=canary-query", "headers": "Authorization: Bearer canary-header\n"},
    });
    apply(&receiver).unwrap();
    install(&["--set", "log.filter=trace", "--wait", "--timeout", "3m"]).unwrap();
    for workload in ["deployment/volumeviz-controller", "daemonset/volumeviz-agent"] {
        kubectl(&format!("rollout restart -n volumeviz {workload}"));
        kubectl(&format!("rollout status -n volumeviz {workload} --timeout=120s"));
    }
    in_node(
        "node-1",
        "docker volume create big >/dev/null; dd if=/dev/zero of=/var/lib/docker/volumes/big/_data/x bs=1M count=2 2>/dev/null",
    );
    let scan = Scan::new("canary", &json!({}));
    scan.complete(60);
    let alert = json!({
        "apiVersion": "volumeviz.io/v1alpha1", "kind": "VolumeAlert", "metadata": {"name": "canary"},
        "spec": {"scope": "Volume", "rule": {"sizeAbove": {"bytes": 1 << 20}}, "forSeconds": 0,
            "notify": [{"name": "hook", "type": "Webhook", "secretName": "canary"}]},
    });
    apply(&alert).unwrap();
    wait(60, "the receiver to be tried", || {
        let status = get("volumealert canary")["status"].clone();
        status["lastDeliveryError"].is_string().then_some(())
    });
    let shown = shown();
    let all: usize = shown.iter().map(|(_, text)| text.len()).sum();
    assert!(shown.len() > 20 && all > 1 << 19, "{} places, {all} bytes: was everything logged?", shown.len());
    let mut leaks = Vec::new();
    let canaries = canaries();
    assert!(canaries.len() > 20 && canaries.iter().any(|canary| canary.contains("canary-path")), "{}", canaries.len());
    let parts = ["canary-host", "canary-path", "canary-query", "canary-header"].map(str::to_owned);
    for canary in canaries.iter().chain(&parts) {
        for (place, text) in &shown {
            if let Some(line) = text.lines().find(|line| line.contains(canary.as_str())) {
                leaks.push(format!("{place}: {}", line.replace(canary.as_str(), "[the secret]")));
            }
        }
    }
    kubectl("delete volumealert canary");
    kubectl("delete secret canary -n volumeviz");
    in_node("node-1", "docker volume rm big >/dev/null");
    install(&["--wait", "--timeout", "3m"]).unwrap();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
