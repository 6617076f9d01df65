//! Bad input is refused with a message that names the field.

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, Status};
use kube::{Api, Client, Resource};
use serde_json::{Value, json};
use volumeviz::crd::{VolumeScan, VolumeScanSpec};

fn scans(client: &Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<VolumeScan>(&()))
}

fn scan(name: &str, spec: &Value) -> DynamicObject {
    let mut object = DynamicObject::new(name, &ApiResource::erase::<VolumeScan>(&()));
    object.data = json!({"spec": spec});
    object
}

async fn create(client: &Client, object: &DynamicObject) -> Result<DynamicObject, Box<Status>> {
    match scans(client).create(&PostParams::default(), object).await {
        Ok(object) => Ok(object),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn bad_input_is_refused_by_field() {
    let client = super::client().await;
    let cases = [
        (json!({"measurement": {"mode": "Guess"}}), "spec.measurement.mode"),
        (json!({"limits": {"maxParallelNodes": -1}}), "spec.limits.maxParallelNodes"),
        (json!({"limits": {"volumeTimeoutSeconds": 1}}), "spec.limits.volumeTimeoutSeconds"),
        (
            json!({"limits": {"volumeTimeoutSeconds": 700, "nodeTimeoutSeconds": 650}}),
            "spec.limits.volumeTimeoutSeconds",
        ),
        (json!({"limits": {"nodeTimeoutSeconds": 8000}}), "spec.limits.nodeTimeoutSeconds"),
        (json!({"nodeSelector": {"disk": "ssd"}}), "spec.nodeSelector"),
        (json!({"nodeSelector": {}}), "spec.nodeSelector"),
        (
            json!({"nodeSelector": {"matchExpressions": [{"key": "disk", "operator": "In"}]}}),
            "spec.nodeSelector.matchExpressions[0]",
        ),
        (json!({"volumeSelector": {"kinds": ["Nameless"]}}), "spec.volumeSelector.kinds[0]"),
        (json!({"volumeSelector": {"names": [""]}}), "spec.volumeSelector.names[0]"),
        (json!({"volumeSelector": {"names": ["a", "a"]}}), "spec.volumeSelector.names[1]"),
        (json!({"volumeSelector": {"labels": {"app": "db"}}}), "spec.volumeSelector.labels"),
        (json!({"limits": {"maxParallelNodes": 0}}), "spec.limits.maxParallelNodes"),
        (json!({"limits": {"maxParallelNodes": "0%"}}), "spec.limits.maxParallelNodes"),
        (json!({"limits": {"maxParallelNodes": "101%"}}), "spec.limits.maxParallelNodes"),
        (json!({"limits": {"maxParallelNodes": "5"}}), "spec.limits.maxParallelNodes"),
        (json!({"limits": {"entriesPerSecond": 99}}), "spec.limits.entriesPerSecond"),
        (json!({"limits": {"minIntervalSeconds": -1}}), "spec.limits.minIntervalSeconds"),
        (json!({"volumeSelector": {"usage": ["Used"]}}), "spec.volumeSelector.usage[0]"),
        (json!({"trigger": ""}), "spec.trigger"),
        (json!({"cancelRunID": 0}), "spec.cancelRunID"),
        (json!({"schedule": "@daily and so on"}), "spec.schedule"),
        (json!({"schedule": "0 3 * * * *"}), "spec.schedule"),
        (json!({"schedule": "30 25 * * *"}), "spec.schedule"),
        (json!({"timeZone": "Europe/Berlin"}), "spec.timeZone"),
        (json!({"schedule": "0 3 * * *", "ttlSecondsAfterFinished": 60}), "spec.ttlSecondsAfterFinished"),
        (json!({"concurrencyPolicy": "Allow"}), "spec.concurrencyPolicy"),
        (json!({"startingDeadlineSeconds": 0}), "spec.startingDeadlineSeconds"),
        (json!({"maxAttempts": 6}), "spec.maxAttempts"),
        (json!({"unusedAfterDays": 0}), "spec.unusedAfterDays"),
        (json!({"runHistoryLimit": 0}), "spec.runHistoryLimit"),
        (json!({"trigger": "x".repeat(129)}), "spec.trigger"),
    ];
    for (spec, field) in cases {
        let refused = create(&client, &scan("refused", &spec)).await.expect_err(&spec.to_string());
        assert!(refused.is_invalid() && refused.message.contains(field), "{spec}: {}", refused.message);
    }
    let long = "n".repeat(64);
    let refused = create(&client, &scan(&long, &json!({}))).await.expect_err("a name of 64 characters");
    assert!(refused.message.contains("metadata.name"), "{}", refused.message);
}

#[tokio::test]
async fn an_empty_spec_is_defaulted_and_ready_unknown() {
    let client = super::client().await;
    let created = create(&client, &scan("defaulted", &json!({}))).await.unwrap();
    let limits = &created.data["spec"]["limits"];
    assert_eq!(created.data["spec"]["measurement"]["mode"], "Walk");
    let expected = json!({"maxParallelNodes": 20, "minIntervalSeconds": 0, "parallelVolumes": 1, "volumeTimeoutSeconds": 600, "nodeTimeoutSeconds": 3600, "runTimeoutSeconds": 7200});
    assert_eq!(*limits, expected);
    let spec: VolumeScanSpec = serde_json::from_value(created.data["spec"].clone()).unwrap();
    assert_eq!(spec, VolumeScanSpec::default(), "the API server and the code take the same for an empty spec");
    let read = scans(&client).get("defaulted").await.unwrap();
    let condition = &read.data["status"]["conditions"][0];
    assert_eq!((condition["type"].as_str(), condition["status"].as_str()), (Some("Ready"), Some("Unknown")));
    scans(&client).delete("defaulted", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn of_a_scan_without_schedule_only_what_steers_it_can_be_changed() {
    let client = super::client().await;
    let spec = json!({"nodeSelector": {"matchLabels": {"disk": "ssd"}}, "volumeSelector": {"names": ["db-*"]}});
    create(&client, &scan("fixed", &spec)).await.unwrap();
    let edit = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        scans(&client).patch("fixed", &PatchParams::default(), &patch).await
    };
    for spec in [
        json!({"trigger": "again"}),
        json!({"cancelRunID": 7}),
        json!({"suspend": true}),
        json!({"ttlSecondsAfterFinished": 5}),
    ] {
        edit(spec.clone()).await.unwrap_or_else(|error| panic!("{spec}: {error}"));
    }
    let refused = [
        (json!({"limits": {"parallelVolumes": 2}}), "limits"),
        (json!({"measurement": {"mode": "Inventory"}}), "measurement"),
        (json!({"nodeSelector": null}), "nodeSelector"),
        (json!({"volumeSelector": {"names": ["web-*"]}}), "volumeSelector"),
        (json!({"maxAttempts": 1}), "maxAttempts"),
        (json!({"unusedAfterDays": 1}), "unusedAfterDays"),
        (json!({"runHistoryLimit": 1}), "runHistoryLimit"),
        (json!({"concurrencyPolicy": "Replace"}), "concurrencyPolicy"),
        (json!({"startingDeadlineSeconds": 1}), "startingDeadlineSeconds"),
        (json!({"schedule": "0 3 * * *"}), "schedule"),
    ];
    for (spec, field) in refused {
        let Err(kube::Error::Api(status)) = edit(spec.clone()).await else { panic!("{spec} was accepted") };
        assert!(status.message.contains(field) && status.message.contains("another scan"), "{}", status.message);
    }
    scans(&client).delete("fixed", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn a_scan_with_a_schedule_can_be_edited_but_keeps_having_one() {
    let client = super::client().await;
    let spec = json!({"schedule": "0 3 * * *", "timeZone": "Europe/Berlin", "limits": {"maxParallelNodes": "25%"}});
    create(&client, &scan("nightly", &spec)).await.unwrap();
    let edit = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        scans(&client).patch("nightly", &PatchParams::default(), &patch).await
    };
    let spec = json!({"schedule": "*/5 1-3 * * MON-FRI", "timeZone": null, "limits": {"maxParallelNodes": 3}, "volumeSelector": {"usage": ["Unused"]}});
    edit(spec).await.expect("an edit");
    let edited = edit(json!({"limits": {"maxParallelNodes": null}})).await.expect("null is the default");
    assert_eq!(edited.data["spec"]["limits"]["maxParallelNodes"], 20);
    let Err(kube::Error::Api(status)) = edit(json!({"schedule": null})).await else { panic!("it was accepted") };
    assert!(status.message.contains("schedule cannot be"), "{}", status.message);
    scans(&client).delete("nightly", &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn every_example_is_accepted_as_it_stands() {
    let client = super::client().await;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let examples = super::examples("VolumeScan");
    assert!(examples.len() >= 3);
    for (path, object) in examples {
        let created = scans(&client).create(&dry_run, &object).await;
        let created = created.unwrap_or_else(|error| panic!("{path}: {error}"));
        let spec: VolumeScanSpec = serde_json::from_value(created.data["spec"].clone()).unwrap();
        for (field, value) in object.data["spec"].as_object().unwrap() {
            assert!(serde_json::to_value(&spec).unwrap()[field] != Value::Null, "{path}: {field}: {value} was dropped");
        }
    }
}

#[test]
fn the_resource_is_what_the_documentation_says() {
    assert_eq!(VolumeScan::api_version(&()), "volumeviz.io/v1alpha1");
    assert_eq!(VolumeScan::plural(&()), "volumescans");
}
