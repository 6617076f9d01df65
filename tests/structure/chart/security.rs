//! What each pod may, and what it can reach of its node.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{BUNDLED, Rendered, list, pod_of};

const ALL: [&str; 5] = ["agent", "backup", "check-installation", "controller", "docker-proxy"];

fn rendered() -> Rendered {
    let rendered = Rendered::with(&["agent.docker.socketDirectory=/sockets"]);
    let names: Vec<&str> = rendered.0.keys().map(String::as_str).collect();
    assert_eq!(names, [&ALL[..], &["maintain"]].concat());
    rendered
}

/// Volumes of a container's pod that it mounts, with the mounts.
fn mounts<'a>(rendered: &'a Rendered, container: &str) -> Vec<(&'a Value, &'a Value)> {
    let (container, pod) = &rendered.0[container];
    let volume = |mount: &Value| list(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]);
    let mounts = list(&container["volumeMounts"]).iter();
    mounts.map(|mount| (mount, volume(mount).unwrap_or_else(|| panic!("{mount} has no volume")))).collect()
}

#[test]
fn every_mount_has_its_volume_and_every_volume_its_mount() {
    let rendered = rendered();
    let mut used = BTreeSet::new();
    for name in rendered.0.keys() {
        for (_, volume) in mounts(&rendered, name) {
            used.insert(volume.to_string());
        }
    }
    for volume in rendered.1.iter().filter_map(pod_of).flat_map(|pod| list(&pod["volumes"])) {
        assert!(used.contains(&volume.to_string()), "nothing mounts {volume}");
    }
}

#[test]
fn the_node_is_seen_by_the_agents_pod_alone_and_changed_by_nobody() {
    let rendered = rendered();
    let mut found = Vec::new();
    for name in rendered.0.keys() {
        for (mount, volume) in mounts(&rendered, name) {
            let Some(path) = volume["hostPath"]["path"].as_str() else { continue };
            assert_eq!((&mount["readOnly"], &mount["subPath"]), (&json!(true), &Value::Null), "{name}: {mount}");
            // What containers mount below the data root is to be seen; of the sockets nothing below is written.
            let below = if name == "agent" {
                ("mountPropagation", "HostToContainer")
            } else {
                ("recursiveReadOnly", "IfPossible")
            };
            assert_eq!(mount[below.0], below.1, "{name}: {mount}");
            found.push((name.as_str(), path));
        }
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_ne!(rendered.pod(name)[field], true, "{name}: {field}");
        }
    }
    assert_eq!(found, [("agent", "/var/lib/docker"), ("docker-proxy", "/sockets")]);
}

#[test]
fn the_agent_asks_docker_through_the_proxy() {
    let rendered = rendered();
    assert_eq!(rendered.variable("docker-proxy", "VOLUMEVIZ_DOCKER_SOCKET"), "/host/socket/docker.sock");
    let socket = rendered.variable("agent", "VOLUMEVIZ_DOCKER_SOCKET");
    assert_eq!(socket, rendered.variable("docker-proxy", "VOLUMEVIZ_DOCKER_PROXY_SOCKET"));
    let shared = |container| {
        let all = mounts(&rendered, container);
        let found = all.into_iter().find(|(mount, _)| socket.starts_with(mount["mountPath"].as_str().unwrap()));
        found.map(|(mount, volume)| (mount["readOnly"] == true, volume["emptyDir"].clone())).unwrap()
    };
    let folder = json!({"sizeLimit": "1Mi"});
    assert_eq!((shared("agent"), shared("docker-proxy")), ((true, folder.clone()), (false, folder)));
    let variables = list(&rendered.0["docker-proxy"].0["env"]);
    assert!(!variables.iter().any(|variable| variable["name"].as_str().unwrap().starts_with("DB_")), "{variables:?}");
}

#[test]
fn one_container_has_one_capability_and_the_others_none() {
    for (name, (container, _)) in &rendered().0 {
        let context = &container["securityContext"];
        let added = if name == "agent" { json!(["DAC_READ_SEARCH"]) } else { Value::Null };
        assert_eq!(
            (&context["capabilities"]["drop"], &context["capabilities"]["add"]),
            (&json!(["ALL"]), &added),
            "{name}"
        );
        assert_ne!(context["privileged"], true, "{name}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        let root = ["agent", "docker-proxy"].contains(&name.as_str());
        assert_eq!((context["runAsUser"] == 0, context["runAsNonRoot"] == true), (root, !root), "{name}");
    }
}

#[test]
fn a_token_of_kubernetes_is_where_it_is_needed() {
    let rendered = rendered();
    let is_token = |source: &Value| source.get("serviceAccountToken").is_some();
    for name in rendered.0.keys() {
        assert_eq!(rendered.pod(name)["automountServiceAccountToken"], false, "all containers would have it: {name}");
        let mut mounted = mounts(&rendered, name);
        mounted.retain(|(_, volume)| list(&volume["projected"]["sources"]).iter().any(is_token));
        if !["controller", "check-installation"].contains(&name.as_str()) {
            assert!(mounted.is_empty(), "{name}: {mounted:?}");
            continue;
        }
        let [(mount, volume)] = mounted[..] else { panic!("{name}: {mounted:?}") };
        let place = json!("/var/run/secrets/kubernetes.io/serviceaccount");
        assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&place, &json!(true)), "where clients look: {name}");
        let files = ["/0/serviceAccountToken/path", "/1/configMap/items/0/path", "/2/downwardAPI/items/0/path"];
        let files = files.map(|file| volume["projected"]["sources"].pointer(file).unwrap());
        assert_eq!(files, ["token", "ca.crt", "namespace"], "{name}");
    }
}

/// So that what is bound to one, as a policy of OpenShift or a registry's password, is not everybody's.
#[test]
fn each_pod_has_an_account_of_its_own_without_a_token() {
    let rendered = Rendered::with(&BUNDLED);
    let pods = ["agent", "backup", "controller", "postgres", "check-installation"];
    let accounts = pods.map(|container| rendered.pod(container)["serviceAccountName"].as_str().unwrap());
    let expected = ["agent", "backup", "controller", "database", "test"].map(|name| format!("volumeviz-{name}"));
    assert_eq!(accounts, expected.each_ref().map(String::as_str));
    for account in accounts {
        assert_eq!(rendered.object("ServiceAccount", account).unwrap()["automountServiceAccountToken"], false);
    }
}

#[test]
fn every_pod_may_pull_from_a_private_registry() {
    let rendered =
        Rendered::with(&[&BUNDLED[..], &["imagePullSecrets[0]=ours", "imagePullSecrets[1].name=others"]].concat());
    assert!(rendered.0.contains_key("postgres"));
    for (container, (_, pod)) in &rendered.0 {
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "ours"}, {"name": "others"}]), "{container}");
    }
}

#[test]
fn selinux_options_are_the_agents_pods() {
    let rendered = Rendered::with(&["agent.seLinuxOptions.type=spc_t"]);
    assert_eq!(rendered.pod("agent")["securityContext"]["seLinuxOptions"], json!({"type": "spc_t"}));
    assert_eq!(rendered.pod("controller")["securityContext"]["seLinuxOptions"], Value::Null);
}

/// A mounted file of a ConfigMap is renewed in place, unless it is mounted by subPath; pods are not made anew.
#[test]
fn every_process_of_ours_reads_its_log_filter_from_a_file() {
    let rendered = Rendered::with(&["log.filter=debug"]);
    let map = rendered.object("ConfigMap", "volumeviz-log").unwrap();
    assert_eq!(map["data"], json!({"filter": "debug"}));
    for name in rendered.0.keys().filter(|name| *name != "backup") {
        let mounted = mounts(&rendered, name);
        let found = mounted.iter().find(|(_, volume)| volume["configMap"]["name"] == "volumeviz-log");
        let (mount, _) = found.unwrap_or_else(|| panic!("{name} has no log filter"));
        let file = format!("{}/filter", mount["mountPath"].as_str().unwrap());
        assert_eq!(rendered.variable(name, "VOLUMEVIZ_LOG_FILTER_FILE"), file, "{name}");
        assert_eq!((&mount["readOnly"], &mount["subPath"]), (&json!(true), &Value::Null), "{name}");
        assert_eq!(rendered.variable(name, "VOLUMEVIZ_LOG"), "", "{name}");
    }
    for kind in ["Deployment", "DaemonSet"] {
        let template = |filter| {
            let objects = Rendered::with(&[filter]).1;
            objects.into_iter().find(|object| object["kind"] == kind).unwrap()["spec"]["template"].clone()
        };
        assert_eq!(template("log.filter=debug"), template("log.filter=warn"), "{kind}");
    }
}

#[test]
fn helm_test_makes_its_rights_first_and_leaves_its_log_alone() {
    let rendered = rendered();
    let hooks: Vec<&Value> =
        rendered.1.iter().filter(|object| object["metadata"]["annotations"]["helm.sh/hook"] == "test").collect();
    let weight = |hook: &Value| -> i32 {
        hook["metadata"]["annotations"]["helm.sh/hook-weight"].as_str().unwrap().parse().unwrap()
    };
    let mut kinds: Vec<_> = hooks.iter().map(|hook| (weight(hook), hook["kind"].as_str().unwrap())).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, [(-2, "ClusterRole"), (-2, "ServiceAccount"), (-1, "ClusterRoleBinding"), (0, "Pod")]);
    for hook in hooks {
        let policy = hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"].as_str().unwrap();
        let when: Vec<&str> = policy.split(',').collect();
        assert!(when.contains(&"before-hook-creation") && when.contains(&"hook-succeeded"), "{policy}");
        assert_eq!(when.contains(&"hook-failed"), hook["kind"] != "Pod", "its log says why it failed: {policy}");
    }
    let rights =
        json!([{"apiGroups": ["volumeviz.io"], "resources": ["volumescans"], "verbs": ["get", "create", "delete"]}]);
    assert_eq!(rendered.object("ClusterRole", "volumeviz-test").unwrap()["rules"], rights);
    assert_eq!(rendered.variable("check-installation", "VOLUMEVIZ_CHECK_SCAN"), "volumeviz-test");
    assert_eq!(rendered.files("check-installation", "controller"), ["password"]);
}
