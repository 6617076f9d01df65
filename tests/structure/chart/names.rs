//! Names and labels by which the code, the chart's objects and Kubernetes find each other.

use serde_json::{Value, json};

use super::{BUNDLED, Rendered, list, parsed, pod_of, set, template_as};

const RENAMED: [&str; 4] = [
    "fullnameOverride=disks",
    "nameOverride=sizes",
    "commonLabels.team=storage",
    "commonLabels.app\\.kubernetes\\.io/part-of=storage",
];

/// Labels of the pods that an object makes.
fn labels(object: &Value) -> Option<&Value> {
    match object["kind"].as_str()? {
        "Pod" => object.pointer("/metadata/labels"),
        "CronJob" => object.pointer("/spec/jobTemplate/spec/template/metadata/labels"),
        _ => object.pointer("/spec/template/metadata/labels"),
    }
}

#[test]
fn the_controller_finds_its_agents() {
    for values in [&[][..], &RENAMED] {
        let rendered = Rendered::with(values);
        let name = rendered.variable("controller", "VOLUMEVIZ_AGENT_DAEMONSET");
        let agents = rendered.object("DaemonSet", name).unwrap_or_else(|| panic!("no DaemonSet {name}"));
        for part in rendered.variable("controller", "VOLUMEVIZ_AGENT_SELECTOR").split(',') {
            let (key, value) = part.split_once('=').unwrap();
            assert_eq!(labels(agents).unwrap()[key], value);
            let others = rendered.1.iter().filter(|object| object["kind"] != "DaemonSet").filter_map(labels);
            if key == "app.kubernetes.io/component" {
                assert!(others.into_iter().all(|labels| labels[key] != value), "others than agents are {value}");
            }
        }
    }
}

#[test]
fn every_selector_selects_the_pods_of_its_object_and_labels_are_common() {
    let rendered = Rendered::with(&[&RENAMED[..], &BUNDLED].concat());
    let selects = |selector: &Value, labels: &Value| selector.as_object().unwrap().iter().all(|(k, v)| &labels[k] == v);
    let mut found = 0;
    for object in &rendered.1 {
        let jobs = object.pointer("/spec/jobTemplate/metadata/labels");
        for labels in [object.pointer("/metadata/labels"), labels(object), jobs].into_iter().flatten() {
            for label in ["team", "app.kubernetes.io/part-of"] {
                assert_eq!(labels[label], "storage", "{} {}", object["kind"], object["metadata"]["name"]);
            }
        }
        assert_eq!(jobs.is_some(), object["kind"] == "CronJob");
        let Some(selector) = object.pointer("/spec/selector/matchLabels") else { continue };
        let Some(labels) = labels(object) else { continue };
        assert!(selects(selector, labels), "{selector}: {labels}");
        found += 1;
    }
    assert_eq!(found, 3, "Deployment, DaemonSet and StatefulSet");
    let service = rendered.object("Service", "disks-controller").unwrap();
    let controller = labels(rendered.object("Deployment", "disks-controller").unwrap()).unwrap();
    assert!(selects(&service["spec"]["selector"], controller));
}

#[test]
fn everything_that_is_referred_to_by_name_is_there() {
    let rendered = Rendered::with(&RENAMED);
    for object in &rendered.1 {
        let Some(pod) = pod_of(object) else { continue };
        if let Some(account) = pod["serviceAccountName"].as_str() {
            assert!(rendered.object("ServiceAccount", account).is_some(), "{account}");
        }
        for map in list(&pod["volumes"]).iter().filter_map(|volume| volume["configMap"]["name"].as_str()) {
            assert!(rendered.object("ConfigMap", map).is_some(), "{map}");
        }
    }
    for secret in ["VOLUMEVIZ_AGENT_TLS_SECRET", "VOLUMEVIZ_CONTROLLER_TLS_SECRET"] {
        let name = rendered.variable("controller", secret);
        let object = rendered.object("Secret", name).unwrap_or_else(|| panic!("no Secret {name}"));
        assert_eq!((&object["type"], &object["data"]), (&json!("Opaque"), &Value::Null), "the controller's to fill");
    }
}

#[test]
fn the_agents_certificate_is_the_one_that_the_controller_makes() {
    let rendered = Rendered::with(&RENAMED);
    let secret = rendered.variable("controller", "VOLUMEVIZ_AGENT_TLS_SECRET");
    assert_eq!(rendered.files("agent", secret), ["ca.crt", "tls.crt", "tls.key"]);
    let folder = rendered.variable("agent", "VOLUMEVIZ_TICKETS_TLS_DIRECTORY");
    let (agent, pod) = &rendered.0["agent"];
    let mount = list(&agent["volumeMounts"]).iter().find(|mount| mount["mountPath"] == folder).unwrap();
    let volume = list(&pod["volumes"]).iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    assert_eq!(volume["secret"]["secretName"], secret);
    assert_ne!(volume["secret"]["optional"], true, "the pod waits for it");
    let names = ["VOLUMEVIZ_AGENT_TLS_SECRET", "VOLUMEVIZ_CONTROLLER_TLS_SECRET"];
    let names = names.map(|name| rendered.variable("controller", name));
    let [rule, _] = rendered.rules("disks-controller", "secrets")[..] else { panic!("two rules about Secrets") };
    assert_eq!((&rule["verbs"], &rule["resourceNames"]), (&json!(["get", "update"]), &json!(names)));
}

/// They cannot be changed: an upgrade with other labels would be refused.
#[test]
fn claims_of_the_database_have_no_labels_of_the_values() {
    let claims = |values: &[&str]| {
        let rendered = Rendered::with(&[&BUNDLED[..], values].concat());
        rendered.object("StatefulSet", "volumeviz-database").unwrap()["spec"]["volumeClaimTemplates"].clone()
    };
    assert_eq!(claims(&["commonLabels.team=storage"]), claims(&[]));
}

/// Else a name of 40 characters would make objects that Kubernetes refuses.
#[test]
fn names_stay_short() {
    let long = format!("fullnameOverride={}", "n".repeat(40));
    let rendered = Rendered::with(&[&long]);
    for object in &rendered.1 {
        let name = object["metadata"]["name"].as_str().unwrap();
        let room = if object["kind"] == "CronJob" { 52 } else { 63 };
        assert!(name.len() <= room, "{name}");
    }
}

/// Names of Services have none.
#[test]
fn a_release_may_have_dots_in_its_name() {
    let rendered = Rendered::of(parsed(&template_as("disks.example", &set(&[]))));
    assert!(rendered.object("Service", "disks-example-volumeviz-controller").is_some());
    assert_eq!(rendered.variable("controller", "VOLUMEVIZ_AGENT_DAEMONSET"), "disks-example-volumeviz-agent");
}

#[test]
fn labels_and_annotations_of_pods_are_the_values() {
    let mut values = Vec::new();
    for component in ["controller", "agent"] {
        values.push(format!("{component}.podLabels.color=blue"));
        values.push(format!("{component}.podAnnotations.note={component}"));
        values.push(format!("{component}.serviceAccount.annotations.role={component}"));
    }
    let rendered = Rendered::with(&values.iter().map(String::as_str).collect::<Vec<_>>());
    for (kind, component) in [("Deployment", "controller"), ("DaemonSet", "agent")] {
        let name = format!("volumeviz-{component}");
        let metadata = &rendered.object(kind, &name).unwrap()["spec"]["template"]["metadata"];
        assert_eq!(
            (&metadata["labels"]["color"], &metadata["annotations"]["note"]),
            (&json!("blue"), &json!(component))
        );
        let account = &rendered.object("ServiceAccount", &name).unwrap()["metadata"]["annotations"];
        assert_eq!(account["role"], component);
    }
}
