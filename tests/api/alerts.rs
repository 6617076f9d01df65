//! What the API server makes of VolumeAlerts: bad rules are refused with the field named, examples are taken.

use kube::api::{DeleteParams, DynamicObject, PostParams};
use kube::core::{ApiResource, Status};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use volumeviz::crd::{VolumeAlert, VolumeAlertSpec};
use volumeviz::domain::alert::rule::NAMES;

fn alerts(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<VolumeAlert>(&()))
}

async fn create(client: &Client, name: &str, spec: &Value) -> Result<DynamicObject, Box<Status>> {
    let mut object = DynamicObject::new(name, &ApiResource::erase::<VolumeAlert>(&()));
    object.data = json!({"spec": spec});
    match alerts(client).create(&PostParams::default(), &object).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "given as json!")]
fn spec(scope: &str, rule: Value, more: Value) -> Value {
    let mut spec = json!({"scope": scope, "rule": rule});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

fn size(more: Value) -> Value {
    spec("Volume", json!({"sizeAbove": {"bytes": 100}}), more)
}

async fn refused<const N: usize>(cases: [(Value, &str); N]) {
    let client = super::client().await;
    for (spec, field) in cases {
        let refused = create(&client, "refused", &spec).await.expect_err(&spec.to_string());
        assert!(refused.is_invalid() && refused.message.contains(field), "{spec}: {}", refused.message);
    }
}

#[tokio::test]
async fn bad_rules_are_refused_by_field() {
    let cases = [
        (json!({"rule": {"sizeAbove": {"bytes": 1}}}), "spec.scope"),
        (json!({"scope": "Volume"}), "spec.rule"),
        (spec("Volume", json!({}), json!({})), "spec.rule"),
        (spec("Volume", json!({"sizeAbove": {"bytes": 1}, "filesAbove": {"files": 1}}), json!({})), "spec.rule"),
        (spec("Volume", json!({"sizeAbove": {"bytes": -1}}), json!({})), "spec.rule.sizeAbove.bytes"),
        (spec("Volume", json!({"sizeAbove": {}}), json!({})), "spec.rule.sizeAbove.bytes"),
        (
            spec("Volume", json!({"percentOfCapacityAbove": {"percent": 101}}), json!({})),
            "spec.rule.percentOfCapacityAbove.percent",
        ),
        (spec("Volume", json!({"growthAbove": {"bytesPerDay": 0}}), json!({})), "spec.rule.growthAbove.bytesPerDay"),
        (spec("Volume", json!({"fullWithin": {"days": 0}}), json!({})), "spec.rule.fullWithin.days"),
        (spec("Cluster", json!({"scanOlderThan": {"seconds": 59}}), json!({})), "spec.rule.scanOlderThan.seconds"),
        (spec("Node", json!({"percentOfCapacityAbove": {"percent": 5}}), json!({})), "spec.scope"),
        (spec("Cluster", json!({"fullWithin": {"days": 5}}), json!({})), "spec.scope"),
        (spec("Node", json!({"unusedLongerThan": {"days": 5}}), json!({})), "spec.scope"),
        (spec("Volume", json!({"candidateBytesAbove": {"bytes": 5}}), json!({})), "spec.scope"),
        (spec("Volume", json!({"scanOlderThan": {"seconds": 60}}), json!({})), "spec.scope"),
        (spec("Node", json!({"failedNodesAbove": {"nodes": 5}}), json!({})), "spec.scope"),
        (spec("Node", json!({"databaseDown": {}}), json!({})), "spec.scope"),
        (spec("Cluster", json!({"databaseDown": {}}), json!({"scanSelector": {"names": ["a"]}})), "spec.scanSelector"),
        (spec("Cluster", json!({"databaseDown": {}}), json!({"clearBelow": 0})), "spec.clearBelow"),
        (spec("Volume", json!({"fullWithin": {"days": 5}}), json!({"clearBelow": 3})), "spec.clearBelow"),
        (
            spec("Cluster", json!({"failedNodesAbove": {"nodes": 5}}), json!({"volumeSelector": {}})),
            "spec.volumeSelector",
        ),
        (spec("Node", json!({"scanOlderThan": {"seconds": 60}}), json!({"minBytes": 5})), "spec.minBytes"),
    ];
    refused(cases).await;
}

#[tokio::test]
async fn bad_fields_of_alerts_are_refused() {
    let cases = [
        (size(json!({"clearBelow": 101})), "spec.clearBelow"),
        (size(json!({"forSeconds": -1})), "spec.forSeconds"),
        (size(json!({"noData": "Zero"})), "spec.noData"),
        (size(json!({"severity": "critical"})), "spec.severity"),
        (size(json!({"silenceUntil": "tomorrow"})), "spec.silenceUntil"),
        (size(json!({"scanSelector": {}})), "spec.scanSelector"),
        (size(json!({"volumeSelector": {"names": [""]}})), "spec.volumeSelector.names[0]"),
        (size(json!({"notify": []})), "spec.notify"),
        (size(json!({"notify": [{"name": "a", "type": "Mail"}]})), "spec.notify[0].type"),
        (size(json!({"notify": [{"name": "a", "type": "Webhook"}]})), "spec.notify[0].secretName"),
        (size(json!({"notify": [{"name": "a", "type": "Event", "secretName": "a"}]})), "spec.notify[0].secretName"),
        (size(json!({"notify": [{"name": "A b", "type": "Event"}]})), "spec.notify[0].name"),
        (
            size(json!({"notify": [{"name": "a", "type": "Event"}, {"name": "a", "type": "Alertmanager"}]})),
            "spec.notify[1]",
        ),
        (
            size(json!({"notify": [{"name": "a", "type": "Alertmanager", "repeatEverySeconds": 60}]})),
            "spec.notify[0].repeatEverySeconds",
        ),
        (
            size(json!({"notify": [{"name": "a", "type": "Event", "sendResolved": false}]})),
            "spec.notify[0].sendResolved",
        ),
        (
            size(json!({"notify": [{"name": "a", "type": "Webhook", "secretName": "a", "repeatEverySeconds": 59}]})),
            "spec.notify[0].repeatEverySeconds",
        ),
    ];
    refused(cases).await;
}

#[tokio::test]
async fn what_fires_cannot_end_above_its_limit() {
    let client = super::client().await;
    for rule in ["sizeAbove", "filesAbove", "growthAbove", "percentOfCapacityAbove", "unusedLongerThan"] {
        let limit = [("bytes", 5), ("files", 5), ("bytesPerDay", 5), ("percent", 5), ("days", 5)].into_iter();
        let unit = volumeviz::domain::alert::rule::unit(rule);
        let limit: Value =
            limit.filter(|(name, _)| *name == unit).map(|(name, value)| (name.to_owned(), json!(value))).collect();
        let refused = create(&client, "refused", &spec("Volume", json!({rule: limit}), json!({"clearBelow": 6}))).await;
        let message = refused.expect_err(rule).message;
        assert!(message.contains(&format!("clearBelow must not be above rule.{rule}.{unit}")), "{message}");
    }
}

#[tokio::test]
async fn an_alert_is_defaulted_and_ready_unknown() {
    let client = super::client().await;
    let created = create(&client, "defaulted", &size(json!({}))).await.unwrap();
    let spec: VolumeAlertSpec = serde_json::from_value(created.data["spec"].clone()).unwrap();
    let own: VolumeAlertSpec = serde_json::from_value(size(json!({}))).unwrap();
    assert_eq!(spec, own, "the API server and the code take the same for what is left out");
    let condition = &alerts(&client).get("defaulted").await.unwrap().data["status"]["conditions"][0];
    assert_eq!((condition["type"].as_str(), condition["status"].as_str()), (Some("Ready"), Some("Unknown")));
    alerts(&client).delete("defaulted", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn every_example_is_taken_and_there_is_one_for_each_rule() {
    let client = super::client().await;
    let mut rules = Vec::new();
    for (path, object) in super::examples("VolumeAlert") {
        let (name, spec) = (object.name_any(), &object.data["spec"]);
        create(&client, &name, spec).await.unwrap_or_else(|refused| panic!("{path}: {refused}"));
        rules.extend(spec["rule"].as_object().unwrap().keys().cloned());
        alerts(&client).delete(&name, &DeleteParams::default()).await.unwrap();
    }
    for name in NAMES {
        assert!(rules.iter().any(|rule| rule == name), "no example for {name}");
    }
}
