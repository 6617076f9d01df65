//! What receivers are told of an alert: pure, with ids that are the same whenever the same is told.

use chrono::{DateTime, SecondsFormat, Utc};
use uuid::Uuid;

use crate::crd::VolumeAlertSpec;
use crate::domain::alert::notification::{Channel, MAX_SUBJECTS, Notification, Occasion, Receiver, Subject, text};
use crate::domain::alert::rule::{self, Rule};
use crate::domain::alert::{Scope, Severity};
use crate::store::alerts::{Alert, Open};

/// Under which all ids of notifications are made (RFC 9562, version 5).
const IDS: Uuid = Uuid::from_u128(0x5b0d_9a53_7e7c_4ed1_9a86_0d4f_30c1_7b52);

/// In whose name people are told.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// Name of the VolumeAlert.
    pub name: &'a str,
    /// Its `metadata.uid`.
    pub uid: &'a str,
    /// The name of its rule.
    pub rule: &'a str,
    /// The rule's limit.
    pub threshold: f64,
    /// Its scope.
    pub scope: Scope,
    /// How much it matters.
    pub severity: Severity,
    /// Who is told.
    pub receivers: &'a [Receiver],
}

impl<'a> Author<'a> {
    /// Of a VolumeAlert that has this rule.
    pub fn new(name: &'a str, uid: &'a str, spec: &VolumeAlertSpec, rule: Rule, receivers: &'a [Receiver]) -> Self {
        let VolumeAlertSpec { scope, severity, .. } = *spec;
        Self { name, uid, rule: rule.name(), threshold: rule.threshold(), scope, severity, receivers }
    }

    /// The same when the rule is, or was, `databaseDown`.
    pub fn of_outage(&self) -> Self {
        Self {
            rule: Rule::DatabaseDown.name(),
            threshold: Rule::DatabaseDown.threshold(),
            scope: Scope::Cluster,
            ..*self
        }
    }

    /// Whether this state was judged by the same; the limit may be another.
    pub fn judged(&self, open: &Open) -> bool {
        (open.rule.as_str(), open.scope, open.severity) == (self.rule, self.scope, self.severity)
    }

    /// The same as it was when this state was judged.
    pub fn of<'b>(&self, open: &'b Open) -> Author<'b>
    where
        'a: 'b,
    {
        let Open { rule, threshold, scope, severity, .. } = open;
        Author { rule, threshold: *threshold, scope: *scope, severity: *severity, ..*self }
    }

    /// What all rows of the alert have in common.
    pub fn row(&self) -> Alert<'a> {
        Alert {
            uid: self.uid,
            name: self.name,
            rule: self.rule,
            scope: self.scope.as_str(),
            severity: self.severity,
            threshold: self.threshold,
            receivers: self.receivers,
        }
    }
}

/// What is told, apart from its subjects.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'a> {
    /// What happened.
    pub occasion: Occasion,
    /// Tells this notification from others of the same alert, receiver and occasion.
    pub key: &'a str,
    /// When this was decided.
    pub now: DateTime<Utc>,
}

/// What begins to fire and what is over, for every receiver. Alertmanager is told of each subject, others of the worst.
pub fn notifications(
    author: &Author<'_>,
    firing: &[Subject],
    over: &[Subject],
    now: DateTime<Utc>,
) -> Vec<(Receiver, Notification)> {
    let key = now.to_rfc3339_opts(SecondsFormat::Micros, true);
    let telling = |occasion| Telling { occasion, key: &key, now };
    let told = author.receivers.iter().flat_map(|receiver| {
        let over = if receiver.send_resolved { over } else { &[] };
        let ended = parts(author, receiver, telling(Occasion::Resolved), over);
        let begun = parts(author, receiver, telling(Occasion::Firing), firing);
        ended.into_iter().chain(begun).map(|notification| (receiver.clone(), notification)).collect::<Vec<_>>()
    });
    told.collect()
}

/// What still fires; `last` is when this receiver was told before.
pub fn reminder(
    author: &Author<'_>,
    receiver: &Receiver,
    still: &[Subject],
    last: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Notification {
    let key = last.to_rfc3339_opts(SecondsFormat::Micros, true);
    notification(author, receiver, Telling { occasion: Occasion::Reminder, key: &key, now }, still)
}

/// All that fires, for a receiver that forgets what is not told again.
pub fn still_firing(
    author: &Author<'_>,
    receiver: &Receiver,
    firing: &[Subject],
    now: DateTime<Utc>,
) -> Vec<Notification> {
    parts(author, receiver, Telling { occasion: Occasion::Firing, key: "still", now }, firing)
}

fn parts(author: &Author<'_>, receiver: &Receiver, telling: Telling<'_>, subjects: &[Subject]) -> Vec<Notification> {
    if subjects.is_empty() {
        return Vec::new();
    }
    if receiver.channel != Channel::Alertmanager {
        return vec![notification(author, receiver, telling, subjects)];
    }
    let parts = subjects.chunks(MAX_SUBJECTS).enumerate().map(|(i, part)| {
        let key = format!("{}/{i}", telling.key);
        notification(author, receiver, Telling { key: &key, ..telling }, part)
    });
    parts.collect()
}

/// One notification; of more subjects than it holds it lists the first.
pub fn notification(
    author: &Author<'_>,
    receiver: &Receiver,
    telling: Telling<'_>,
    subjects: &[Subject],
) -> Notification {
    let Telling { occasion, key, now } = telling;
    let Author { uid, rule, scope, severity, .. } = author;
    let of = format!("{uid}/{rule}/{}/{}", scope.as_str(), severity.as_str());
    let id = format!("{of}/{}/{}/{key}", receiver.name, occasion.as_str());
    let listed = &subjects[..subjects.len().min(MAX_SUBJECTS)];
    Notification {
        version: "1".to_owned(),
        id: Uuid::new_v5(&IDS, id.as_bytes()),
        event: occasion,
        alert: author.name.to_owned(),
        alert_uid: author.uid.to_owned(),
        severity: author.severity,
        rule: author.rule.to_owned(),
        scope: author.scope,
        unit: rule::unit(author.rule).to_owned(),
        text: text(author.severity, author.name, occasion, subjects),
        time: now,
        subjects: listed.to_vec(),
        subjects_omitted: subjects.len() - listed.len(),
    }
}
