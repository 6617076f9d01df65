//! Notifications with which templates are tried before there is anything to tell: one with as much in it as there can be, one with as little.

use chrono::DateTime;
use uuid::Uuid;

use crate::domain::alert::notification::{MAX_SUBJECTS, Notification, Occasion, Subject};
use crate::domain::alert::{Scope, Severity};

/// Everything there, as many subjects as there can be.
pub fn full() -> Notification {
    let subject = Subject {
        node: Some("node-1".to_owned()),
        volume: Some("shop-db".to_owned()),
        value: Some(2.0),
        threshold: 1.0,
        message: "2.00 GiB, limit 1.00 GiB".to_owned(),
        since: DateTime::UNIX_EPOCH,
        resolved_at: Some(DateTime::UNIX_EPOCH),
    };
    Notification {
        event: Occasion::Resolved,
        scope: Scope::Volume,
        subjects: vec![subject; MAX_SUBJECTS],
        subjects_omitted: 1,
        ..bare()
    }
}

/// One subject, nothing there that can be absent.
pub fn bare() -> Notification {
    let subject = Subject {
        node: None,
        volume: None,
        value: None,
        threshold: 1.0,
        message: "no figure".to_owned(),
        since: DateTime::UNIX_EPOCH,
        resolved_at: None,
    };
    Notification {
        version: "1".to_owned(),
        id: Uuid::nil(),
        event: Occasion::Firing,
        alert: "example".to_owned(),
        alert_uid: "uid".to_owned(),
        severity: Severity::Warning,
        rule: "sizeAbove".to_owned(),
        scope: Scope::Cluster,
        unit: "bytes".to_owned(),
        text: "[Warning] example: cluster: no figure".to_owned(),
        time: DateTime::UNIX_EPOCH,
        subjects: vec![subject],
        subjects_omitted: 0,
    }
}
