//! Names that want to do harm, through everything that tells them.

use std::collections::BTreeMap;

use chrono::DateTime;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::post::Post;
use super::secret::Destination;
use super::secret::tests::destination;
use super::template::Filled;
use super::{alertmanager, event, sample, webhook};
use crate::domain::alert::notification::{MAX_SUBJECTS, Notification, Subject, text};
use crate::domain::text::showable;
use crate::hostile::{TEXTS, harm};

const HEADERS: &str = "Title: {{ text }}\nX-Volume: {{ subjects[0].volume }}\nX-Json: {{ subjects|tojson }}";

/// One about a volume of this name, with as much else of the text as comes from elsewhere.
fn about(name: &str) -> Notification {
    let full = sample::full();
    let subject = Subject {
        node: Some(name.to_owned()),
        volume: Some(name.to_owned()),
        message: name.to_owned(),
        ..full.subjects[0].clone()
    };
    let subjects = vec![subject; 2];
    let text = text(full.severity, &full.alert, full.event, &subjects);
    Notification { text, subjects, ..full }
}

fn filled(destination: &Destination, notification: &Notification) -> Filled {
    destination.templates.fill_in(notification).unwrap()
}

/// An Alertmanager's POST.
fn alerts(entries: &[(&str, &str)], notification: &Notification) -> Post {
    let destination = destination(entries);
    alertmanager::post(&destination, notification, &filled(&destination, notification), DateTime::UNIX_EPOCH).unwrap()
}

/// Body and headers of a webhook.
fn told(entries: &[(&str, &str)], notification: &Notification) -> (String, BTreeMap<String, String>) {
    let destination = destination(entries);
    let post = webhook::post(&destination, notification, filled(&destination, notification)).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (post.body, post.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect())
}

#[test]
fn the_text_for_people_is_one_line_that_has_every_name_in_it() {
    for name in TEXTS {
        let notification = about(name);
        assert_eq!(harm(&notification.text), [""; 0]);
        assert!(
            notification.text.starts_with("[Warning] example: resolved: ")
                && notification.text.contains(&showable(name))
                && notification.text.ends_with("; and 1 more"),
            "{}",
            notification.text
        );
    }
}

#[test]
fn the_json_of_a_webhook_says_what_was_to_be_told() {
    for name in TEXTS {
        let (body, _) = told(&[], &about(name));
        assert_eq!(serde_json::from_str::<Notification>(&body).unwrap(), about(name));
    }
}

#[test]
fn no_name_is_a_template_or_breaks_out_of_one() {
    let source = r#"{"v": {{ subjects[0].volume|tojson }}, "all": {{ subjects|tojson }}, "{{ alert }}": {{ (alert ~ "\n" ~ subjects[0].volume)|tojson }}}"#;
    for name in TEXTS {
        let (body, _) = told(&[("body", source)], &about(name));
        let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert_eq!(
            (&body["v"], &body["all"][1]["volume"], &body["example"]),
            (&json!(name), &json!(name), &json!(format!("example\n{name}")))
        );
        let (plain, _) = told(&[("body", "{{ subjects[0].volume }}")], &about(name));
        assert_eq!(plain, *name, "as it is");
    }
}

#[test]
fn no_name_makes_a_header_of_its_own() {
    for name in TEXTS {
        let (_, headers) = told(&[("headers", HEADERS)], &about(name));
        let names: Vec<&String> = headers.keys().collect();
        assert_eq!(names, ["content-type", "idempotency-key", "title", "x-json", "x-volume"]);
        assert_eq!(headers.values().flat_map(|value| harm(value)).collect::<Vec<_>>(), [""; 0]);
        assert_eq!(alerts(&[("headers", HEADERS)], &about(name)).headers.len(), 4);
    }
}

#[test]
fn labels_of_alertmanager_are_as_they_are_and_annotations_for_people() {
    for name in TEXTS {
        let alerts: Value = serde_json::from_str(&alerts(&[], &about(name)).body).unwrap();
        assert_eq!((alerts.as_array().unwrap().len(), &alerts[0]["labels"]["volume"]), (2, &json!(name)));
        assert_eq!(crate::hostile::harm_in(&alerts[0]["annotations"]), [""; 0]);
    }
}

#[test]
fn an_event_is_one_harmless_line() {
    for name in TEXTS {
        let written = event::event("pod", &about(name), Timestamp::UNIX_EPOCH);
        assert_eq!(harm(&written.note.unwrap()), [""; 0]);
    }
}

/// The examples are what people begin with.
#[test]
fn the_examples_are_safe_whatever_a_volume_is_called() {
    for (example, is_json) in [
        (include_str!("../../../examples/notify-slack.yaml"), true),
        (include_str!("../../../examples/notify-ntfy.yaml"), false),
        (include_str!("../../../examples/notify-webhook.yaml"), true),
    ] {
        let secret: Value = serde_yaml::from_str(example).unwrap();
        let data = secret["stringData"].as_object().unwrap();
        let entries: Vec<(&str, &str)> = data
            .iter()
            .filter(|(key, _)| *key != "url")
            .map(|(key, value)| (key.as_str(), value.as_str().unwrap()))
            .collect();
        for name in TEXTS {
            let (body, headers) = told(&entries, &about(name));
            assert_eq!(headers.values().flat_map(|value| harm(value)).collect::<Vec<_>>(), [""; 0]);
            if !is_json {
                assert_eq!(harm(&body), [""; 0]);
                continue;
            }
            let body: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
            let text = body["text"].as_str().unwrap();
            assert!(!text.contains("<!channel>") || body.get("id").is_some(), "{text}");
        }
    }
}

/// The longest names there can be, of what takes most room, in as many subjects as there can be.
#[test]
fn the_worst_names_keep_nothing_from_being_told() {
    for character in ["\u{1}", "\"", "\u{202e}", "🌀"] {
        let worst = about(&character.repeat(512 / character.len()));
        let subjects = vec![worst.subjects[0].clone(); MAX_SUBJECTS];
        let text = text(worst.severity, &worst.alert, worst.event, &subjects);
        let worst = Notification { text, subjects, ..worst };
        let (body, headers) =
            told(&[("body", "{{ subjects|tojson }}"), ("headers", "Title: {{ subjects[0].volume }}")], &worst);
        assert!(!serde_json::from_str::<Vec<Subject>>(&body).unwrap().is_empty() && headers.contains_key("title"));
    }
}
