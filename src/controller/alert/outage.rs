//! The rule `databaseDown`, which must work without the database: its state is in the status, what is told goes out from memory, and both are
//! written down when the database is back.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::jiff::Timestamp;

use super::tell::{self, Author, Telling};
use crate::controller::health::DatabaseHealth;
use crate::crd::{VolumeAlertSpec, VolumeAlertStatus};
use crate::domain::alert::judge::{self, Policy, Sample, judge};
use crate::domain::alert::notification::{Notification, Occasion, Receiver, Subject};
use crate::domain::alert::rule::Rule;
use crate::domain::alert::{NoData, Scope, Severity, Standing};

/// How the database stands by an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// Pending or Firing.
    pub standing: Standing,
    /// Since when it is that.
    pub since: DateTime<Utc>,
}

/// What is to be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What holds now.
    pub outage: Option<Outage>,
    /// What fired until now and is over.
    pub over: Option<Outage>,
}

/// Outages that receivers were told of, by the uid of the alert: should it be deleted, they hear of its end from here.
#[derive(Default)]
pub struct Outages(Mutex<HashMap<String, Told>>);

struct Told {
    name: String,
    severity: Severity,
    receivers: Vec<Receiver>,
    outage: Outage,
}

impl Outages {
    /// Remembers what receivers are told; `None`: nothing any more.
    pub(super) fn set(&self, author: &Author<'_>, outage: Option<Outage>) {
        let told = outage.map(|outage| Told {
            name: author.name.to_owned(),
            severity: author.severity,
            receivers: author.receivers.to_vec(),
            outage,
        });
        match told {
            Some(told) => drop(self.told().insert(author.uid.to_owned(), told)),
            None => drop(self.told().remove(author.uid)),
        }
    }

    /// Whether receivers were told of one of this alert.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.told().contains_key(uid)
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.told().is_empty()
    }

    /// Takes those whose alert is not among these, and says what is to be told of their end.
    pub(super) fn take_gone(&self, live_uids: &[String], now: Timestamp) -> Vec<(Receiver, Notification)> {
        let gone: Vec<(String, Told)> = self.told().extract_if(|uid, _| !live_uids.contains(uid)).collect();
        let told = gone.iter().flat_map(|(uid, told)| {
            let author = Author {
                name: &told.name,
                uid,
                rule: Rule::DatabaseDown.name(),
                threshold: Rule::DatabaseDown.threshold(),
                scope: Scope::Cluster,
                severity: told.severity,
                receivers: &told.receivers,
            };
            over(&author, told.outage, "the VolumeAlert was deleted", now)
        });
        told.collect()
    }

    fn told(&self) -> MutexGuard<'_, HashMap<String, Told>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What follows from the last probe and from what the status says.
pub(super) fn verdict(
    spec: &VolumeAlertSpec,
    status: Option<&VolumeAlertStatus>,
    health: &DatabaseHealth,
    now: Timestamp,
) -> Verdict {
    let now = from_kubernetes(now);
    let before = status.and_then(before);
    let sample = match &health.problem {
        _ if spec.suspend => Sample::Gone,
        Some(_) => Sample::Exactly(1.0),
        None => Sample::Exactly(0.0),
    };
    let policy = Policy {
        limit: Rule::DatabaseDown.limit(None),
        hold: TimeDelta::seconds(spec.for_seconds.into()),
        // The last probe always says something.
        no_data: NoData::Keep,
    };
    let open =
        before.map(|outage| judge::Open { standing: outage.standing, since: outage.since, for_want_of_data: false });
    let outage = judge(open, sample, &policy, now).map(|standing| Outage {
        standing,
        since: before.filter(|before| before.standing == standing).map_or(now, |before| before.since),
    });
    let over = before.filter(|before| before.standing == Standing::Firing && outage.is_none());
    Verdict { outage, over }
}

/// What the status says; kept there, since there is nowhere else.
pub(super) fn before(status: &VolumeAlertStatus) -> Option<Outage> {
    let counts = status.counts.filter(|_| status.rule.as_deref() == Some(Rule::DatabaseDown.name()))?;
    if let Some(firing) = status.firing.first().filter(|_| counts.firing > 0) {
        return Some(Outage { standing: Standing::Firing, since: from_kubernetes(firing.since.0) });
    }
    let since = status.state_since.as_ref().filter(|_| counts.pending > 0)?;
    Some(Outage { standing: Standing::Pending, since: from_kubernetes(since.0) })
}

/// What is told while it fires, by receiver: the same ids again and again until a period of a reminder is over.
pub(super) fn firing(
    author: &Author<'_>,
    outage: Outage,
    health: &DatabaseHealth,
    now: Timestamp,
) -> Vec<(Receiver, Notification)> {
    let now = from_kubernetes(now);
    let subjects = [subject(outage, health)];
    let began = outage.since.timestamp().to_string();
    let told = author.receivers.iter().flat_map(|receiver| {
        let begins = Telling { occasion: Occasion::Firing, key: &began, now };
        let every = receiver.repeat_every_seconds.map(|every| i64::from(every.max(1)));
        let periods = every.map(|every| (now - outage.since).num_seconds() / every).filter(|periods| *periods > 0);
        let reminder = periods.map(|periods| {
            let key = format!("{began}/{periods}");
            tell::notification(author, receiver, Telling { occasion: Occasion::Reminder, key: &key, now }, &subjects)
        });
        let told = std::iter::once(tell::notification(author, receiver, begins, &subjects)).chain(reminder);
        told.map(|notification| (receiver.clone(), notification)).collect::<Vec<_>>()
    });
    told.collect()
}

/// What is told when it is over; the message says why.
pub(super) fn over(
    author: &Author<'_>,
    outage: Outage,
    message: &str,
    now: Timestamp,
) -> Vec<(Receiver, Notification)> {
    let now = from_kubernetes(now);
    let subjects = [Subject { resolved_at: Some(now), ..cluster(outage, message.to_owned()) }];
    let key = outage.since.timestamp().to_string();
    let telling = Telling { occasion: Occasion::Resolved, key: &key, now };
    let receivers = author.receivers.iter().filter(|receiver| receiver.send_resolved);
    receivers.map(|receiver| (receiver.clone(), tell::notification(author, receiver, telling, &subjects))).collect()
}

/// The cluster, as people are told of it.
pub(super) fn subject(outage: Outage, health: &DatabaseHealth) -> Subject {
    let told = Rule::DatabaseDown.tell(1.0, false);
    let message = match &health.problem {
        Some(problem) => format!("{told} ({})", problem.reason),
        None => told,
    };
    cluster(outage, message)
}

fn cluster(outage: Outage, message: String) -> Subject {
    Subject {
        node: None,
        volume: None,
        value: Some(1.0),
        threshold: Rule::DatabaseDown.threshold(),
        message,
        since: outage.since,
        resolved_at: None,
    }
}

/// Kubernetes' times as the database has them.
pub(super) fn from_kubernetes(time: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp(time.as_second(), 0).unwrap_or(DateTime::UNIX_EPOCH)
}
