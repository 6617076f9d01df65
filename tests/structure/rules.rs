//! The chart's alerts about VolumeViz itself say what to do, and follow the values. What they ask for is in `promql.rs`.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::chart::{chart, objects, set, template, tool};

fn rules(values: &[&str]) -> Vec<Value> {
    objects(values).into_iter().filter(|object| object["kind"] == "PrometheusRule").collect()
}

fn alerts() -> Vec<Value> {
    alerts_with(&[])
}

fn alerts_with(values: &[&str]) -> Vec<Value> {
    let [rule]: [Value; 1] = rules(&[&["prometheusRule.enabled=true"], values].concat()).try_into().unwrap();
    rule["spec"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

#[test]
fn there_are_none_unless_asked_for() {
    assert_eq!(rules(&[]), Vec::<Value>::new());
    let asked = rules(&["prometheusRule.enabled=true", "prometheusRule.labels.release=prometheus"]);
    assert_eq!(asked[0]["metadata"]["labels"]["release"], "prometheus");
}

#[test]
fn each_alert_says_how_bad_it_is_and_what_to_look_at() {
    let alerts = alerts();
    let names: BTreeSet<_> = alerts.iter().map(|alert| alert["alert"].as_str().unwrap()).collect();
    assert_eq!(names.len(), alerts.len(), "{names:?}");
    for alert in &alerts {
        let text = |path: &str| alert.pointer(path).and_then(Value::as_str).unwrap_or_default();
        assert!(["warning", "critical"].contains(&text("/labels/severity")), "{alert}");
        assert_eq!(text("/labels/namespace"), "default", "an AlertmanagerConfig sees its namespace alone: {alert}");
        let patience = text("/for").strip_suffix(['m', 'h']).and_then(|time| time.parse::<u32>().ok());
        assert!(patience.is_some_and(|time| time > 0), "{alert}");
        assert!(text("/annotations/summary").ends_with('.') && text("/annotations/description").len() > 80, "{alert}");
    }
}

#[test]
fn an_alert_names_its_page_where_there_is_one() {
    let base = "https://example.com/runbook";
    let [rule]: [Value; 1] =
        rules(&["prometheusRule.enabled=true", &format!("prometheusRule.runbookBaseUrl={base}")]).try_into().unwrap();
    for alert in rule["spec"]["groups"][0]["rules"].as_array().unwrap() {
        let page = format!("{base}#{}", alert["alert"].as_str().unwrap().to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], page);
    }
    assert!(alerts().iter().all(|alert| alert["annotations"]["runbook_url"] == Value::Null));
}

#[test]
fn alerts_can_be_left_out_labelled_and_be_worse_than_the_chart_thinks() {
    let chosen = alerts_with(&[
        "prometheusRule.disabled={VolumeVizTwoLead,VolumeVizBackupFails}",
        "prometheusRule.alertLabels.team=storage",
        "prometheusRule.severities.VolumeVizLeasesExpire=critical",
    ]);
    let severities = |alerts: &[Value]| -> BTreeSet<(String, String)> {
        let pair = |alert: &Value| {
            [&alert["alert"], &alert["labels"]["severity"]].map(|text| text.as_str().unwrap().to_owned())
        };
        alerts.iter().map(|alert| pair(alert).into()).collect()
    };
    let mut expected = severities(&alerts());
    expected.retain(|(alert, _)| !["VolumeVizTwoLead", "VolumeVizBackupFails"].contains(&alert.as_str()));
    assert!(expected.remove(&("VolumeVizLeasesExpire".to_owned(), "warning".to_owned())));
    expected.insert(("VolumeVizLeasesExpire".to_owned(), "critical".to_owned()));
    assert_eq!(severities(&chosen), expected);
    assert!(chosen.iter().all(|alert| alert["labels"]["team"] == "storage"));
    let all = alerts().iter().map(|alert| alert["alert"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(",");
    assert_eq!(alerts_with(&[&format!("prometheusRule.disabled={{{all}}}")]), Vec::<Value>::new());
}

/// What is not the name of an alert would be ignored for ever.
#[test]
fn the_schema_knows_the_alerts() {
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let names: Vec<_> = alerts().iter().map(|alert| alert["alert"].clone()).collect();
    assert_eq!(schema["definitions"]["ruleName"]["enum"], json!(names));
    let refused = template(&set(&["prometheusRule.disabled={VolumeVizTwoLeaders}"]));
    assert!(!refused.status.success());
}

#[test]
fn nobody_is_told_of_backups_that_are_not_wanted() {
    let of_backups =
        |alerts: Vec<Value>| alerts.iter().filter(|alert| alert["alert"] == "VolumeVizBackupFails").count();
    assert_eq!((of_backups(alerts()), of_backups(alerts_with(&["backup.enabled=false"]))), (1, 0));
}

#[test]
fn a_backup_has_an_hour_more_than_its_deadline() {
    for (seconds, hours) in [(1, "2h"), (3600, "2h"), (3601, "3h"), (90_000, "26h")] {
        let alerts = alerts_with(&[&format!("backup.activeDeadlineSeconds={seconds}")]);
        let alert = alerts.iter().find(|alert| alert["alert"] == "VolumeVizBackupFails").unwrap();
        assert_eq!(alert["for"], hours, "{seconds} s");
    }
}

/// A key that is there twice is an error to some who apply manifests.
#[test]
fn labels_of_a_value_go_before_common_ones() {
    let kinds = ["prometheusRule", "serviceMonitor", "podMonitor", "dashboards"];
    let labels = kinds.map(|kind| format!("{kind}.enabled=true,{kind}.labels.release=mine"));
    let values: Vec<&str> =
        ["commonLabels.release=common"].into_iter().chain(labels.iter().map(String::as_str)).collect();
    let output = template(&set(&values));
    let mut mine = 0;
    for document in serde_yaml::Deserializer::from_slice(&output.stdout) {
        let object = <serde_yaml::Value as serde::Deserialize>::deserialize(document).unwrap();
        mine += usize::from(object["metadata"]["labels"]["release"] == "mine");
    }
    assert_eq!(mine, 6, "one rule, three monitors and two dashboards");
}

#[test]
fn who_installs_is_told_which_alerts_never_fire() {
    let notes = |values: &[&str]| {
        let mut helm = Command::new(tool("helm"));
        helm.args(["install", "volumeviz"]).arg(chart()).arg("--dry-run=client").args(set(values));
        let output = helm.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().split_once("\nNOTES:").unwrap().1.to_owned()
    };
    let told = |values: &[&str]| {
        let notes = notes(values);
        ["serviceMonitor.enabled is false", "podMonitor.enabled is false"].map(|text| notes.contains(text))
    };
    assert_eq!(told(&[]), [false, false]);
    assert_eq!(told(&["prometheusRule.enabled=true"]), [true, true]);
    let both = ["prometheusRule.enabled=true", "serviceMonitor.enabled=true", "podMonitor.enabled=true"];
    assert_eq!((told(&both[..2]), told(&both)), ([false, true], [false, false]));
}
