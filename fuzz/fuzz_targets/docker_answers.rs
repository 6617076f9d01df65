//! What the Docker Engine answers, which bounds next to nothing: `{"info": …, "volumes": …, "containers": …}`.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use volumeviz::agent::docker::{
    Inventory, MAX_DESTINATION, MAX_KEY, MAX_LABELS, MAX_LABELS_BYTES, MAX_NAME, MAX_PATH, MAX_VALUE,
};
use volumeviz::domain::contract::{InventoryContainer, InventoryVolume};

fuzz_target!(|json: &[u8]| {
    let Ok(said) = serde_json::from_slice::<Value>(json) else { return };
    let said = |what: &str| said.get(what).unwrap_or(&Value::Null).to_string();
    let [info, volumes, containers] = ["info", "volumes", "containers"].map(said);
    let decoded = Inventory::decode(info.as_bytes(), volumes.as_bytes(), containers.as_bytes());
    let Ok(Inventory { engine, volumes, containers }) = decoded else { return };
    fits(&engine.id, MAX_NAME);
    fits(&engine.version, MAX_NAME);
    fits(&engine.data_root, MAX_PATH);
    assert!(volumes.is_sorted_by(|a, b| a.name <= b.name));
    for listed in &volumes {
        volume(listed);
    }
    for listed in &containers {
        container(listed);
    }
    let stored = serde_json::to_value(&volumes).unwrap();
    assert_eq!(serde_json::from_value::<Vec<InventoryVolume>>(stored).unwrap(), volumes);
});

/// What is stored is bounded, and PostgreSQL takes it: it refuses the character NUL.
fn fits(text: &str, most: usize) {
    assert!(text.len() <= most, "{} bytes, at most {most}: {text:?}", text.len());
    assert!(!text.contains('\0'), "{text:?}");
}

fn volume(volume: &InventoryVolume) {
    fits(&volume.name, MAX_NAME);
    fits(&volume.driver, MAX_NAME);
    fits(&volume.mountpoint, MAX_PATH);
    fits(&volume.scope, MAX_NAME);
    fits(volume.created_at.as_deref().unwrap_or_default(), MAX_NAME);
    assert!(!volume.selected);
    labels(&volume.labels);
    labels(&volume.options);
}

fn container(container: &InventoryContainer) {
    fits(&container.container_id, MAX_NAME);
    fits(&container.name, MAX_NAME);
    fits(&container.image, MAX_NAME);
    fits(&container.state, MAX_NAME);
    labels(&container.labels);
    for mount in &container.mounts {
        fits(&mount.volume, MAX_NAME);
        fits(&mount.destination, MAX_DESTINATION);
        assert!(!mount.volume.is_empty(), "a bind mount is none of a volume");
    }
}

fn labels(labels: &BTreeMap<String, String>) {
    // One more tells how many were left out.
    assert!(labels.len() <= MAX_LABELS + 1);
    let bytes: usize = labels.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert!(bytes <= MAX_LABELS_BYTES + MAX_KEY, "{bytes} bytes of labels");
    for (key, value) in labels {
        fits(key, MAX_KEY);
        fits(value, MAX_VALUE);
    }
}
