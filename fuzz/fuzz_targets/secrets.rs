//! A receiver's Secret: URL, headers, body, authorities and the name of a volume, with lines of `===` between them.
//!
//! Templates are filled in here, and not by a process of their own as in the controller: so what only that process survives (values that hold
//! themselves, or many times the same) would end the fuzzing, and no dictionary has the words for it.

#![no_main]

use std::collections::BTreeMap;

use chrono::Utc;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use libfuzzer_sys::fuzz_target;
use volumeviz::controller::notify::post::Post;
use volumeviz::controller::notify::secret::{self, Destination, Error, LABEL, Origin};
use volumeviz::controller::notify::{alertmanager, sample, webhook};
use volumeviz::domain::alert::Scope;
use volumeviz::domain::alert::notification::{Notification, Subject};

const KEYS: [&str; 4] = ["url", "headers", "body", "ca.crt"];
/// Bytes of what a template makes.
const MOST: usize = 262_144;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = split(bytes, b"\n===\n").into_iter();
    let values = KEYS.iter().zip(parts.by_ref()).filter(|(_, value)| !value.is_empty());
    let data: BTreeMap<_, _> = values.map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec()))).collect();
    let volume = parts.next().map_or_else(|| "shop-db".to_owned(), |name| String::from_utf8_lossy(name).into_owned());
    let mut labelled = Secret { data: Some(data), ..Secret::default() };
    let origin = Origin::Secret("ns".to_owned(), "s".to_owned());
    assert!(secret::parse(&labelled, &origin).is_err(), "it is not labelled");
    labelled.metadata.labels = Some([(LABEL.0.to_owned(), LABEL.1.to_owned())].into());
    match secret::parse(&labelled, &origin) {
        Ok(destination) => fill_in(&destination, &volume),
        Err(kind) => keeps_quiet(&Error { origin, kind }),
    }
});

/// What a template makes goes where the Secret says, within its bounds, and a volume's name ends no line.
fn fill_in(destination: &Destination, volume: &str) {
    for notification in [notification(volume, 0), notification(volume, 3)] {
        let filled = match destination.templates.fill_in(&notification) {
            Ok(filled) => filled,
            Err(mistake) => {
                keeps_quiet(&destination.not_filled_in(mistake.into()));
                continue;
            }
        };
        let alerts = alertmanager::post(destination, &notification, &filled, Utc::now());
        for told in [webhook::post(destination, &notification, filled), alerts] {
            let Post { target, headers, body, .. } = match told {
                Ok(told) => told,
                Err(error) => {
                    keeps_quiet(&error);
                    continue;
                }
            };
            assert_eq!(target.endpoint(), destination.target.endpoint());
            assert!(body.len() <= MOST);
            assert!(headers.contains_key("content-type") && !headers.contains_key("host"));
            for value in headers.values().map(|value| value.as_bytes()) {
                assert!(value.len() <= 4 * 4096 && !value.iter().any(u8::is_ascii_control), "{value:?}");
            }
            assert!(
                !headers.contains_key("idempotency-key") || headers["idempotency-key"] == notification.id.to_string()
            );
        }
    }
}

/// Our own words are ASCII, so whatever else is told would be the Secret's.
fn keeps_quiet(error: &Error) {
    let told = format!("{error} {error:?}");
    assert!(told.is_ascii() && told.len() < 512, "{told}");
}

fn notification(volume: &str, subjects: usize) -> Notification {
    let mut told = sample::bare();
    let subject = Subject {
        node: Some("node-1".to_owned()),
        volume: Some(volume.to_owned()),
        value: Some(2.0),
        message: "2.00 GiB, limit 1.00 GiB".to_owned(),
        ..told.subjects.remove(0)
    };
    told.scope = Scope::Volume;
    told.text = format!("[Warning] example: node-1/{volume}: {}", subject.message);
    told.subjects = vec![subject; subjects];
    told
}

fn split<'a>(mut bytes: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(found) = bytes.windows(at.len()).position(|window| window == at) {
        parts.push(&bytes[..found]);
        bytes = &bytes[found + at.len()..];
    }
    parts.push(bytes);
    parts
}
