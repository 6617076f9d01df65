use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn volumes(answer: &Value) -> Vec<InventoryVolume> {
    serde_json::from_value::<Volumes>(answer.clone()).unwrap().volumes.0
}

fn volume(listed: &Value) -> InventoryVolume {
    volumes(&json!({"Volumes": [listed], "Warnings": null})).remove(0)
}

fn containers(listed: &Value) -> Result<Vec<InventoryContainer>, String> {
    serde_json::from_value::<Containers>(listed.clone()).map(|kept| kept.0).map_err(|error| error.to_string())
}

#[test]
fn volumes_that_docker_named_are_anonymous() {
    let kind = |name: &str, labels: Value| volume(&json!({"Name": name, "Labels": labels})).kind;
    assert_eq!(kind(&"0123456789abcdef".repeat(4), Value::Null), VolumeKind::Anonymous);
    assert_eq!(kind("short", json!({ANONYMOUS_LABEL: ""})), VolumeKind::Anonymous);
    assert_eq!(kind(&"0123456789ABCDEF".repeat(4), Value::Null), VolumeKind::Named);
    assert_eq!(kind("db-data", json!({})), VolumeKind::Named);
    let mut many: serde_json::Map<_, _> = (0..1000).map(|n| (format!("a{n:04}"), json!(""))).collect();
    many.insert(ANONYMOUS_LABEL.to_owned(), json!(""));
    assert_eq!(kind("short", many.into()), VolumeKind::Anonymous, "also by a label that is left out");
}

#[test]
fn what_docker_says_is_bounded_and_what_is_cut_is_flagged() {
    let long = "x".repeat(1 << 20);
    let labels: serde_json::Map<_, _> =
        (0..1000).map(|n| (format!("{n:04}{}", &long[..400]), json!(long[..5000]))).collect();
    let listed = volume(
        &json!({"Name": long, "Driver": long, "Mountpoint": long, "Labels": labels, "Options": {"device": long}}),
    );
    assert_eq!((listed.name.len(), listed.driver.len(), listed.mountpoint.len()), (MAX_NAME, MAX_NAME, MAX_PATH));
    assert!(listed.name.contains("[cut, 1048576 bytes, "), "{}", listed.name);
    assert_eq!(listed.options["device"].len(), MAX_VALUE);
    assert_eq!((listed.labels.len(), listed.labels[LEFT_OUT_LABEL].as_str()), (4, "997"));
    for (key, value) in listed.labels.iter().filter(|(key, _)| key.as_str() != LEFT_OUT_LABEL) {
        assert_eq!((key.len(), value.len()), (MAX_KEY, MAX_VALUE));
        assert!(key.as_str() < "0003" && key.contains("[cut, ") && value.contains("[cut, "), "the first by key");
    }
    let mounted = json!({"Type": "volume", "Name": long, "Destination": long});
    let listed = json!([{"Id": long, "Names": [format!("/{long}"), "/other"], "Image": long, "Mounts": [mounted]}]);
    let listed = containers(&listed).unwrap().remove(0);
    assert_eq!([listed.container_id.len(), listed.name.len() + 1, listed.image.len()], [MAX_NAME; 3]);
    assert_eq!((listed.mounts[0].volume.len(), listed.mounts[0].destination.len()), (MAX_NAME, MAX_DESTINATION));
}

#[test]
fn of_many_labels_the_first_by_key_are_kept_whatever_their_order() {
    let few: Vec<_> = (0..1000).map(|n| (format!("{n:04}"), String::new())).collect();
    // One that does not fit, and after it such as would.
    let sizes = [vec![3000; 5], vec![4000], vec![10; 14]].concat();
    let big: Vec<_> = sizes.iter().enumerate().map(|(n, size)| (format!("{n:04}"), "x".repeat(*size))).collect();
    for (labels, kept) in [(few, MAX_LABELS), (big, 5)] {
        for order in [labels.clone(), labels.iter().rev().cloned().collect(), [&labels[7..], &labels[..7]].concat()] {
            let object =
                order.iter().map(|(key, value)| format!("{}:{}", json!(key), json!(value))).collect::<Vec<_>>();
            let listed: Labels = serde_json::from_str(&format!("{{{}}}", object.join(","))).unwrap();
            let mut expected: BTreeMap<_, _> = labels[..kept].iter().cloned().collect();
            expected.insert(LEFT_OUT_LABEL.to_owned(), (labels.len() - kept).to_string());
            assert_eq!(BTreeMap::from(listed), expected);
        }
    }
}

#[test]
fn more_than_is_kept_is_an_error_that_says_so() {
    let tiny: serde_json::Map<_, _> = (0..MAX_LABELS).map(|n| (format!("{n}"), json!(""))).collect();
    let listed: Vec<Value> =
        (0..2500).map(|n| json!({"Name": n.to_string(), "Labels": tiny, "Options": tiny})).collect();
    let refused = serde_json::from_value::<Volumes>(json!({"Volumes": listed})).unwrap_err().to_string();
    assert!(refused.contains(&format!("take {MAX_KEPT} bytes of memory")), "{refused}");
    let mounts = vec![json!({"Name": "v"}); MAX_MOUNTS + 1];
    assert_eq!(
        containers(&json!([{"Id": "c", "Mounts": mounts}])),
        Err(format!("a container mounts more than {MAX_MOUNTS} volumes"))
    );
}

#[test]
fn binds_are_no_volumes_and_what_is_absent_is_empty() {
    let mounts = json!([{"Type": "bind", "Source": "/x", "Destination": "/y"}, {"Name": "v", "Destination": "/z", "RW": false}, {"Name": "w"}]);
    let listed =
        containers(&json!([{"Id": "c", "Names": null, "Labels": null, "Mounts": mounts}, {"Names": ["/no-id"]}]))
            .unwrap();
    assert_eq!(listed.len(), 1);
    let mounts: Vec<_> =
        listed[0].mounts.iter().map(|m| (m.volume.as_str(), m.destination.as_str(), m.read_write)).collect();
    assert_eq!(mounts, [("v", "/z", false), ("w", "", true)]);
    assert_eq!((listed[0].name.as_str(), listed[0].labels.len()), ("", 0));
    for none in [json!({}), json!({"Volumes": null}), json!({"Volumes": []})] {
        assert_eq!(volumes(&none), []);
    }
    let bare = volume(&json!({"Name": "v", "Labels": null, "Options": null, "CreatedAt": null}));
    assert_eq!((bare.name.as_str(), bare.created_at, bare.labels.len()), ("v", None, 0));
}

#[test]
fn nul_is_escaped() {
    let listed = volume(&json!({"Name": "a\0b", "Labels": {"k\0": "v\0"}}));
    assert_eq!((listed.name.as_str(), listed.labels["k\\u{0}"].as_str()), ("a\\u{0}b", "v\\u{0}"));
}

proptest! {
    /// What is counted is no less than the text that is held.
    #[test]
    fn a_volume_weighs_what_it_holds(name in "\\PC{0,600}", labels in prop::collection::btree_map("\\PC{0,20}", "\\PC{0,50}", 0..300)) {
        let listed = volume(&json!({"Name": name, "Labels": labels}));
        let held = listed.labels.iter().map(|(key, value)| key.len() + value.len() + 48).sum::<usize>() + listed.name.len();
        prop_assert!(listed.weight() >= held + size_of::<InventoryVolume>());
        prop_assert!(listed.labels.len() <= MAX_LABELS + 1 && listed.name.len() <= MAX_NAME);
    }
}
