//! What `docs/notifications.md` shows is what the code makes.

use std::fs;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use volumeviz::domain::alert::notification::{Notification, Occasion, Subject, text};
use volumeviz::domain::alert::rule::{Rule, unit};
use volumeviz::domain::alert::{Scope, Severity};

/// The notification of the example.
fn example() -> Notification {
    let rule = Rule::SizeAbove { bytes: 40 << 20 };
    let time: DateTime<Utc> = "2026-03-01T03:30:12Z".parse().unwrap();
    let subject = Subject {
        node: Some("node-1".to_owned()),
        volume: Some("shop-db".to_owned()),
        value: Some(f64::from(48 << 20)),
        threshold: rule.threshold(),
        message: rule.tell(f64::from(48 << 20), false),
        since: time,
        resolved_at: None,
    };
    Notification {
        version: "1".to_owned(),
        id: "6f1c1c1e-6c5a-4f0e-9a53-0c6f8f5b7a10".parse().unwrap(),
        event: Occasion::Firing,
        alert: "big-volumes".to_owned(),
        alert_uid: "8b0c6a52-2c1d-4a43-9d8e-5a3a2f7d1e90".to_owned(),
        severity: Severity::Warning,
        rule: rule.name().to_owned(),
        scope: Scope::Volume,
        unit: unit(rule.name()).to_owned(),
        text: text(
            Severity::Warning,
            "big-volumes",
            Occasion::Firing,
            &[subject.clone(), subject.clone(), subject.clone()],
        ),
        time,
        subjects: vec![subject],
        subjects_omitted: 2,
    }
}

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/notifications.md")).unwrap()
}

#[test]
fn the_documented_json_is_the_one_that_is_sent() {
    let document = document();
    let (_, example_on) = document.split_once("<!-- example -->\n```json\n").unwrap();
    let (shown, _) = example_on.split_once("```").unwrap();
    assert_eq!(serde_json::to_string_pretty(&example()).unwrap().trim(), shown.trim());
}

#[test]
fn every_field_is_documented() {
    let document = document();
    let over = Subject { resolved_at: Some(example().time), ..example().subjects[0].clone() };
    let full = json!(Notification { subjects: vec![over], ..example() });
    for field in full.as_object().unwrap().keys() {
        assert!(document.contains(&format!("`{field}`")), "{field}");
    }
    for field in full["subjects"][0].as_object().map(serde_json::Map::<String, Value>::keys).unwrap() {
        let named = [format!("`subjects[].{field}`"), format!("`.{field}`")];
        assert!(named.iter().any(|name| document.contains(name)), "{field}");
    }
}
