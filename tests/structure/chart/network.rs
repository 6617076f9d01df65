//! Who may talk to whom, and who scrapes what.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{BUNDLED, Rendered, list, parsed, template_with_file};

const ON: &str = "networkPolicy.enabled=true";

/// What a rule lets through: components (`*` where it names none) and ports.
fn lets(rule: &Value, peers: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let component =
        |peer: &Value| peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"].as_str().map(str::to_owned);
    let mut from: BTreeSet<String> = list(&rule[peers]).iter().map(|peer| component(peer).unwrap()).collect();
    if from.is_empty() {
        from.insert("*".to_owned());
    }
    let ports =
        list(&rule["ports"]).iter().map(|port| format!("{}/{}", port["protocol"].as_str().unwrap(), port["port"]));
    (from, ports.collect())
}

/// All that a component's policy lets through, as `components: ports`.
fn passes(rendered: &Rendered, component: &str, direction: &str, peers: &str) -> Vec<String> {
    let policy = rendered.object("NetworkPolicy", &format!("volumeviz-{component}")).unwrap();
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]), "{component}");
    assert_eq!(policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"], component);
    let join = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>().join(" ");
    let rules = list(&policy["spec"][direction]).iter().map(|rule| lets(rule, peers));
    rules.map(|(from, ports)| format!("{}: {}", join(from), join(ports))).collect()
}

#[test]
fn there_is_no_policy_unless_asked_for() {
    assert!(Rendered::with(&[]).1.iter().all(|object| object["kind"] != "NetworkPolicy"));
}

#[test]
fn each_component_is_talked_to_by_those_who_need_it() {
    let rendered = Rendered::with(&[&BUNDLED[..], &[ON]].concat());
    let ingress = |component| passes(&rendered, component, "ingress", "from");
    assert_eq!(ingress("agent"), ["controller: TCP/8443", "*: TCP/8081"]);
    assert_eq!(ingress("controller"), ["*: TCP/8080", "*: TCP/8082"]);
    assert_eq!(ingress("database"), ["agent backup controller test: TCP/5432"]);
    assert_eq!((ingress("backup"), ingress("test")), (vec![], vec![]));
}

#[test]
fn each_component_talks_to_those_whom_it_needs() {
    let rendered = Rendered::with(&[&BUNDLED[..], &[ON]].concat());
    let egress = |component| passes(&rendered, component, "egress", "to");
    let (dns, database, api) = ("*: TCP/53 UDP/53", "database: TCP/5432", "*: TCP/443 TCP/6443");
    assert_eq!(egress("agent"), [dns, database]);
    assert_eq!(egress("backup"), [dns, database]);
    assert_eq!(egress("test"), [dns, database, api]);
    assert_eq!(egress("controller"), [dns, database, api, "agent: TCP/8443", "*: TCP/null"]);
    assert_eq!(egress("database"), [""; 0]);
    let fewer = Rendered::of(parsed(&template_with_file("networkPolicy: {enabled: true, controllerEgress: []}")));
    assert_eq!(passes(&fewer, "controller", "egress", "to").last().unwrap(), "agent: TCP/8443");
}

#[test]
fn a_database_of_ones_own_is_reached_at_its_ports() {
    let rendered = Rendered::with(&[
        ON,
        "database.external.port=6432",
        "database.external.direct.host=server.example.com",
        "database.external.direct.port=5433",
    ]);
    let database = |component| passes(&rendered, component, "egress", "to")[1].clone();
    assert_eq!((database("agent"), database("test")), ("*: TCP/6432".to_owned(), "*: TCP/6432".to_owned()));
    assert_eq!(database("controller"), "*: TCP/5433 TCP/6432", "maintain is in its pod");
    assert_eq!(database("backup"), "*: TCP/5433");
    assert!(rendered.object("NetworkPolicy", "volumeviz-database").is_none());
}

#[test]
fn readers_of_metrics_and_of_the_api_can_be_named() {
    let namespace = |name| format!("namespaceSelector.matchLabels.name={name}");
    let values = [
        format!("networkPolicy.metricsFrom[0].{}", namespace("monitoring")),
        format!("networkPolicy.apiFrom[0].{}", namespace("people")),
    ];
    let rendered = Rendered::with(&[ON, &values[0], &values[1]]);
    let from = |component: &str, port: u16| {
        let policy = rendered.object("NetworkPolicy", &format!("volumeviz-{component}")).unwrap();
        let rules = list(&policy["spec"]["ingress"]);
        let rule = rules.iter().find(|rule| rule["ports"][0]["port"] == port).unwrap();
        rule["from"][0]["namespaceSelector"]["matchLabels"]["name"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        (from("agent", 8081), from("controller", 8082), from("controller", 8080)),
        ("monitoring".to_owned(), "monitoring".to_owned(), "people".to_owned())
    );
}

/// A monitor finds a port by its name, and pods by their labels.
#[test]
fn monitors_find_the_ports_of_all_processes() {
    let rendered = Rendered::with(&[
        "serviceMonitor.enabled=true",
        "podMonitor.enabled=true",
        "podMonitor.labels.release=prometheus",
    ]);
    let service = rendered.object("Service", "volumeviz-controller").unwrap();
    let monitor = rendered.object("ServiceMonitor", "volumeviz-controller").unwrap();
    for (label, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&service["metadata"]["labels"][label], value);
    }
    assert_eq!(service["spec"]["ports"][0]["name"], monitor["spec"]["endpoints"][0]["port"]);
    for (monitor, kind, container) in [("agent", "DaemonSet", "agent"), ("maintain", "Deployment", "maintain")] {
        let monitor = rendered.object("PodMonitor", &format!("volumeviz-{monitor}")).unwrap();
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
        let pods = rendered.1.iter().find(|object| object["kind"] == kind).unwrap();
        assert_eq!(monitor["spec"]["selector"]["matchLabels"], pods["spec"]["selector"]["matchLabels"]);
        let ports = list(&rendered.0[container].0["ports"]);
        assert!(ports.iter().any(|port| port["name"] == monitor["spec"]["podMetricsEndpoints"][0]["port"]));
    }
    assert!(Rendered::with(&[]).1.iter().all(|object| object["apiVersion"] != "monitoring.coreos.com/v1"));
}

#[test]
fn rights_of_people_are_added_to_kubernetes_roles_unless_told_otherwise() {
    let added = |values: &[&str], role: &str| -> Vec<String> {
        let rendered = Rendered::with(values);
        let role = rendered.object("ClusterRole", &format!("volumeviz-{role}")).unwrap();
        let labels = role["metadata"]["labels"].as_object().unwrap().keys();
        labels
            .filter_map(|label| label.strip_prefix("rbac.authorization.k8s.io/aggregate-to-"))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(added(&[], "view"), ["admin", "edit", "view"]);
    assert_eq!(added(&[], "edit"), ["admin", "edit"]);
    for role in ["view", "edit", "reader"] {
        assert_eq!(added(&["rbac.aggregateClusterRoles=false"], role), [""; 0]);
    }
}
