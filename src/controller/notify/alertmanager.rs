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
use super::template::Filled;
use super::webhook;
use crate::domain::alert::Severity;
use crate::domain::alert::notification::{Notification, Occasion, Subject};
use crate::domain::text::showable;

const PATH: &str = "api/v2/alerts";
/// How long Alertmanager keeps an alert that it is not told of again: so long may this installation be away.
const KEEP: TimeDelta = TimeDelta::hours(1);
/// By how much the clocks of the database, of this process and of Alertmanager may differ.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::seconds(60);

/// An alert as Alertmanager takes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alert<'a> {
    labels: BTreeMap<&'static str, &'a str>,
    annotations: BTreeMap<&'static str, String>,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
}

/// Whether a destination asks for nothing that only a webhook has.
pub fn check(destination: &Destination) -> Result<(), Error> {
    match destination.templates.body {
        Some(_) => Err(destination.invalid(BODY, Invalid::NotForAlertmanager)),
        None => Ok(()),
    }
}

/// The POST that tells a notification, with headers by what the destination's templates make of it.
pub fn post(
    destination: &Destination,
    notification: &Notification,
    filled: &Filled,
    now: DateTime<Utc>,
) -> Result<Post, Error> {
    let mut headers = webhook::headers(destination, filled)?;
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
    // Labels say which alert it is, as they are; annotations are read by people.
    let annotations = [
        ("summary", Some(format!("{}: {}", notification.alert, subject.name()))),
        ("description", Some(format!("{}: {}", subject.name(), subject.message))),
        ("value", subject.value.map(|value| format!("{value} {}", notification.unit).trim_end().to_owned())),
    ];
    let (starts_at, ends_at) = times(notification.event, subject, now);
    Alert {
        labels: labels.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        annotations: annotations.into_iter().filter_map(|(name, text)| Some((name, showable(&text?)))).collect(),
        starts_at,
        ends_at,
    }
}

/// `startsAt` and `endsAt`. An end that Alertmanager's clock has not reached yet would not be one, and one before its beginning is refused:
/// it goes back by as much as clocks may differ, and the beginning with it.
fn times(occasion: Occasion, subject: &Subject, now: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
    match occasion {
        Occasion::Firing | Occasion::Reminder => (subject.since, now + KEEP),
        Occasion::Resolved => {
            let ends_at = subject.resolved_at.unwrap_or(now).min(now) - CLOCKS_DIFFER;
            (subject.since.min(ends_at), ends_at)
        }
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
    fn what_is_over_is_so_by_every_clock_and_ends_after_it_began() {
        let at = |second: i64| DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap();
        let subject = |since, resolved| Subject {
            since: at(since),
            resolved_at: Some(at(resolved)),
            ..sample::full().subjects.remove(0)
        };
        let over = |since, resolved| times(Occasion::Resolved, &subject(since, resolved), at(1000));
        assert_eq!(over(0, 900), (at(0), at(840)));
        assert_eq!(over(0, 1010), (at(0), at(940)), "the database's clock goes before");
        assert_eq!(over(890, 900), (at(840), at(840)), "it fired for a moment");
        let unknown = Subject { resolved_at: None, ..subject(0, 0) };
        assert_eq!(times(Occasion::Resolved, &unknown, at(1000)), (at(0), at(940)));
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
