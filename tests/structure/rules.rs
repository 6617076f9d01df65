//! The chart's alerts about VolumeViz itself look at metrics that there are, and say what to do.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::chart::objects;
use crate::metrics::{agents, controllers, maintenances};

fn rules(values: &[&str]) -> Vec<Value> {
    objects(values).into_iter().filter(|object| object["kind"] == "PrometheusRule").collect()
}

fn alerts() -> Vec<Value> {
    let [rule]: [Value; 1] = rules(&["prometheusRule.enabled=true"]).try_into().unwrap();
    rule["spec"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

/// The names of our metrics in an expression; histograms' without their endings.
pub(crate) fn metrics(expr: &str) -> impl Iterator<Item = &str> {
    let words = expr.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| word.starts_with("volumeviz_"));
    words.map(|word| word.strip_suffix("_bucket").unwrap_or(word))
}

#[test]
fn there_are_none_unless_asked_for() {
    assert_eq!(rules(&[]), Vec::<Value>::new());
    let asked = rules(&["prometheusRule.enabled=true", "prometheusRule.labels.release=prometheus"]);
    assert_eq!(asked[0]["metadata"]["labels"]["release"], "prometheus");
}

#[tokio::test]
async fn alerts_look_at_metrics_that_there_are() {
    let told = &(&controllers() | &agents()) | &maintenances();
    for alert in alerts() {
        let expr = alert["expr"].as_str().unwrap();
        assert!(metrics(expr).next().is_some(), "{expr}");
        let unknown: Vec<&str> = metrics(expr).filter(|name| !told.contains(*name)).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {expr}");
    }
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
        let patience = text("/for").strip_suffix('m').and_then(|minutes| minutes.parse::<u32>().ok());
        assert!(patience.is_some_and(|minutes| minutes > 0), "{alert}");
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
