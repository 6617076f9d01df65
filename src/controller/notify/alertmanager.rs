//! Alertmanager: alerts by its API v2, one a subject, all of a notification in one POST.
//!
//! Alertmanager takes alerts with the same labels for the same one, so telling it again changes nothing; and it forgets what it is not told
//! again before `endsAt`.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::post::Post;
use super::secret::{BODY, Destination, Error, Invalid};
use super::template::Fields;
use super::webhook;
use crate::domain::alert::Severity;
use crate::domain::alert::notification::{Notification, Occasion, Subject};

const PATH: &str = "api/v2/alerts";
/// How long Alertmanager keeps an alert that it is not told of again: so long may this installation be away.
const KEEP: TimeDelta = TimeDelta::hours(1);

/// An alert as Alertmanager takes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    labels: BTreeMap<&'static str, &'a str>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
}

/// The POST that tells a notification.
pub(super) fn post(destination: &Destination, notification: &Notification, now: DateTime<Utc>) -> Result<Post, Error> {
    if destination.has_body {
        return Err(destination.invalid(BODY, Invalid::NotForAlertmanager));
    }
    let mut headers = webhook::headers(destination, &Fields::from(notification))?;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = serde_json::json!(alerts(notification, now)).to_string();
    Ok(Post { target: destination.target.join(PATH), authorities: destination.authorities.clone(), headers, body })
}

fn alerts(notification: &Notification, now: DateTime<Utc>) -> Vec<Alert<'_>> {
    notification.subjects.iter().map(|subject| alert(notification, subject, now)).collect()
}

/// As Alertmanager's configurations have it.
const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

fn alert<'a>(notification: &'a Notification, subject: &'a Subject, now: DateTime<Utc>) -> Alert<'a> {
    let labels = [
        ("alertname", Some(notification.alert.as_str())),
        ("severity", Some(severity(notification.severity))),
        ("rule", Some(notification.rule.as_str())),
        ("scope", Some(notification.scope.as_str())),
        ("node", subject.node.as_deref()),
        ("volume", subject.volume.as_deref()),
        ("volumeviz_alert_uid", Some(notification.alert_uid.as_str())),
    ];
    let annotations = [
        ("summary", Some(format!("{}: {}", notification.alert, subject.name()))),
        ("description", Some(format!("{}: {}", subject.name(), subject.message))),
        ("value", subject.value.map(|value| format!("{value} {}", notification.unit).trim_end().to_owned())),
    ];
    Alert {
        labels: labels.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        annotations: annotations.into_iter().filter_map(|(name, text)| Some((name, text?))).collect(),
        starts_at: subject.since,
        ends_at: match notification.event {
            Occasion::Firing | Occasion::Reminder => now + KEEP,
            Occasion::Resolved => subject.resolved_at.unwrap_or(now),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sample;
    use super::*;

    #[test]
    fn an_alert_has_the_documented_labels_and_ends_in_an_hour_unless_told_again() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let firing = Notification { event: Occasion::Firing, ..sample::full() };
        let told = json!(alerts(&firing, now));
        assert_eq!(told.as_array().unwrap().len(), firing.subjects.len());
        assert_eq!(
            told[0],
            json!({
                "labels": {"alertname": "example", "severity": "warning", "rule": "sizeAbove", "scope": "Volume", "node": "node-1",
                           "volume": "shop-db", "volumeviz_alert_uid": "uid"},
                "annotations": {"summary": "example: node-1/shop-db", "description": "node-1/shop-db: 2.00 GiB, limit 1.00 GiB", "value": "2 bytes"},
                "startsAt": "1970-01-01T00:00:00Z",
                "endsAt": "2023-11-14T23:13:20Z",
            })
        );
    }

    #[test]
    fn what_is_over_ended_when_it_was_over() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        assert_eq!(json!(alerts(&sample::full(), now))[0]["endsAt"], "1970-01-01T00:00:00Z");
        let unknown = Notification { event: Occasion::Resolved, ..sample::bare() };
        assert_eq!(json!(alerts(&unknown, now))[0]["endsAt"], "2023-11-14T22:13:20Z");
    }

    #[test]
    fn what_is_absent_is_no_label() {
        let told = json!(alerts(&sample::bare(), DateTime::UNIX_EPOCH));
        assert_eq!(
            told[0]["labels"].as_object().unwrap().keys().collect::<Vec<_>>(),
            ["alertname", "rule", "scope", "severity", "volumeviz_alert_uid"]
        );
        assert_eq!(told[0]["annotations"]["value"], json!(null));
    }
}
