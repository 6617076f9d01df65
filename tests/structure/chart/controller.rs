//! What the values make of the controller: its series of volumes, its receivers, its replicas.

use clap::Parser;
use serde_json::{Value, json};

use super::Rendered;

/// The binary takes what the chart gives it.
#[test]
fn the_series_of_volumes_are_as_many_as_asked_for() {
    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        series: volumeviz::controller::contents::VolumeSeries,
    }
    let given = |values: &[&str]| {
        let rendered = Rendered::with(values);
        let options = ["top", "all", "max"].map(|name| {
            let variable = format!("VOLUMEVIZ_METRICS_{}_VOLUMES", name.to_uppercase());
            format!("--metrics-{name}-volumes={}", rendered.variable("controller", &variable))
        });
        let series = Options::try_parse_from(std::iter::once("volumeviz".to_owned()).chain(options)).unwrap().series;
        (series.top, series.all, series.max)
    };
    assert_eq!(given(&[]), (20, false, 5000));
    let values = ["metrics.volumes.top=3", "metrics.volumes.all=true", "metrics.volumes.max=1000000"];
    assert_eq!(given(&values), (3, true, 1_000_000));
}

#[test]
fn receivers_are_allowed_and_their_secrets_readable_as_the_values_say() {
    let plain = Rendered::with(&[]);
    for unset in ["VOLUMEVIZ_ALERTMANAGER_URL", "VOLUMEVIZ_NOTIFY_ALLOW"] {
        assert_eq!(plain.variable("controller", unset), "", "{unset}");
    }
    let [_, rule] = plain.rules("volumeviz-controller", "secrets")[..] else { panic!("two rules about Secrets") };
    assert_eq!((&rule["verbs"], &rule["resourceNames"]), (&json!(["get"]), &Value::Null));
    let chosen = Rendered::with(&[
        "alerts.alertmanagerUrl=http://alertmanager.monitoring.svc:9093",
        "alerts.allow={hooks.example.internal:8080,[fd00::5]:80}",
        "alerts.secretNames={chat,pager}",
    ]);
    let set = ["VOLUMEVIZ_ALERTMANAGER_URL", "VOLUMEVIZ_NOTIFY_ALLOW"].map(|name| chosen.variable("controller", name));
    assert_eq!(set, ["http://alertmanager.monitoring.svc:9093", "hooks.example.internal:8080,[fd00::5]:80"]);
    let [_, rule] = chosen.rules("volumeviz-controller", "secrets")[..] else { panic!("two rules about Secrets") };
    assert_eq!((&rule["verbs"], &rule["resourceNames"]), (&json!(["get"]), &json!(["chat", "pager"])));
}

/// Events about cluster-scoped objects live in the namespace default.
#[test]
fn events_about_alerts_may_be_written() {
    let rendered = Rendered::with(&[]);
    let [rule] = rendered.rules("volumeviz-events", "events")[..] else { panic!("one rule about Events") };
    assert!(rule["verbs"].as_array().unwrap().contains(&json!("create")), "{rule}");
    assert_eq!(rule["apiGroups"], json!(["events.k8s.io"]));
}

#[test]
fn a_drain_takes_one_replica_at_a_time_unless_there_is_one_only() {
    let budget =
        |values: &[&str]| Rendered::with(values).object("PodDisruptionBudget", "volumeviz-controller").cloned();
    let spec = budget(&[]).unwrap()["spec"].clone();
    let expected = (&json!(1), &json!("AlwaysAllow"));
    assert_eq!((&spec["maxUnavailable"], &spec["unhealthyPodEvictionPolicy"]), expected);
    let rendered = Rendered::with(&[]);
    let pods = &rendered.object("Deployment", "volumeviz-controller").unwrap()["spec"]["selector"];
    assert_eq!(&spec["selector"], pods);
    assert_eq!(budget(&["controller.replicas=1"]), None);
    assert_eq!(budget(&["controller.podDisruptionBudget.enabled=false"]), None);
}

#[test]
fn replicas_are_apart_unless_the_values_say_where() {
    let spread = "controller.topologySpreadConstraints[0]";
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let values = [
        format!("controller.affinity.nodeAffinity.{required}.nodeSelectorTerms[0].matchExpressions[0].key=zone"),
        format!("{spread}.topologyKey=zone"),
        format!("{spread}.maxSkew=1"),
        format!("{spread}.whenUnsatisfiable=ScheduleAnyway"),
    ];
    let pod = |values: &[&str]| Rendered::with(values).pod("controller").clone();
    let plain = pod(&[]);
    assert!(plain["affinity"]["podAntiAffinity"].is_object(), "{}", plain["affinity"]);
    let chosen = pod(&values.each_ref().map(String::as_str));
    assert!(chosen["affinity"]["nodeAffinity"][required].is_object(), "{}", chosen["affinity"]);
    assert_eq!(chosen["affinity"]["podAntiAffinity"], plain["affinity"]["podAntiAffinity"], "that is another matter");
    let constraint = &chosen["topologySpreadConstraints"][0];
    assert_eq!(constraint["topologyKey"], "zone");
    assert_eq!(constraint["labelSelector"]["matchLabels"]["app.kubernetes.io/component"], "controller");
    let apart = pod(&[&format!("controller.affinity.podAntiAffinity.{required}[0].topologyKey=zone")]);
    assert_eq!(apart["affinity"], json!({"podAntiAffinity": {required: [{"topologyKey": "zone"}]}}));
}

#[test]
fn pods_are_given_time_to_end_and_few_versions_are_kept() {
    let rendered = Rendered::with(&[
        "controller.terminationGracePeriodSeconds=7",
        "agent.terminationGracePeriodSeconds=8",
        "revisionHistoryLimit=9",
    ]);
    for (kind, name, seconds) in [("Deployment", "volumeviz-controller", 7), ("DaemonSet", "volumeviz-agent", 8)] {
        let spec = &rendered.object(kind, name).unwrap()["spec"];
        assert_eq!(spec["template"]["spec"]["terminationGracePeriodSeconds"], seconds, "{kind}");
        assert_eq!(spec["revisionHistoryLimit"], 9, "{kind}");
    }
}
