//! The status that follows from what was judged: pure, and within its size whatever the cluster.

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::Invalid;
use super::conditions::statements;
use super::observe::{Observed, Read};
use super::outage::{self, Verdict};
use super::plan;
use crate::controller::health::DatabaseHealth;
use crate::controller::notify::{Apart, Problem};
use crate::crd::conditions::{MAX_MESSAGE_CHARS, MAX_NODE_CHARS, build, shorten, to_seconds};
use crate::crd::{AlertCounts, AlertState, EvaluatedRun, FiringSubject, LISTED, VolumeAlert, VolumeAlertStatus};
use crate::domain::alert::notification::Subject;
use crate::domain::alert::{NoData, Standing};
use crate::store::notifications::Summary;

/// The largest status that is written, as JSON.
pub const MAX_BYTES: usize = 16 * 1024;
const MAX_WORST_CHARS: usize = 128;
const MAX_NAME_CHARS: usize = 255;

/// What one pass came to.
#[derive(Debug, Clone)]
pub struct Judged {
    /// By the controller's clock.
    pub now: Timestamp,
    /// Why the spec cannot be used.
    pub invalid: Option<Invalid>,
    /// Why a receiver cannot be told.
    pub problem: Option<Problem>,
    /// The database.
    pub database: Option<DatabaseHealth>,
    /// Nothing is told now.
    pub silenced: bool,
    /// What was found; absent while the database cannot be used.
    pub found: Option<Found>,
    /// How telling people stands.
    pub delivery: Option<Delivery>,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Subjects by what was found of them.
    pub counts: AlertCounts,
    /// What fires, worst first.
    pub firing: Vec<Subject>,
    /// When the first of what is pending became so.
    pub pending_since: Option<DateTime<Utc>>,
    /// The first subjects without a figure, by name.
    pub without_figure: Vec<String>,
    /// How many VolumeScans are selected.
    pub scans: usize,
    /// Names in the spec that no VolumeScan has.
    pub unknown_scans: Vec<String>,
    /// The newest run it is from.
    pub run: Option<EvaluatedRun>,
}

/// How telling people stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// When a receiver was last told something.
    pub last: Option<Timestamp>,
    /// Notifications that wait and were tried in vain.
    pub failing: i64,
    /// Notifications that were given up since one was delivered.
    pub given_up: i64,
    /// Why the last try failed.
    pub error: Option<String>,
}

impl Judged {
    /// A spec that cannot be used.
    pub fn invalid(invalid: Invalid) -> Self {
        Self {
            now: Timestamp::now(),
            invalid: Some(invalid),
            problem: None,
            database: None,
            silenced: false,
            found: None,
            delivery: None,
        }
    }

    /// What scans found, held against the rule.
    pub fn results(observed: &Observed, problem: Option<Problem>, silenced: bool) -> Self {
        Self {
            now: observed.now,
            invalid: None,
            problem,
            database: Some(observed.database.clone()),
            silenced,
            found: observed.read.as_ref().map(found),
            delivery: observed.read.as_ref().map(|read| delivery(&read.deliveries)),
        }
    }

    /// The database itself, held against the rule.
    pub fn database(
        verdict: Verdict,
        health: &DatabaseHealth,
        now: Timestamp,
        (apart, deliveries): (Apart, Option<Summary>),
        problem: Option<Problem>,
        silenced: bool,
    ) -> Self {
        let standing = verdict.outage.map(|outage| outage.standing);
        let fires = standing == Some(Standing::Firing);
        let found = Found {
            counts: AlertCounts {
                evaluated: 1,
                firing: i64::from(fires),
                pending: i64::from(standing == Some(Standing::Pending)),
                no_data: 0,
                not_followed: 0,
            },
            firing: verdict
                .outage
                .filter(|_| fires)
                .map(|outage| outage::subject(outage, health))
                .into_iter()
                .collect(),
            pending_since: verdict.outage.filter(|_| !fires).map(|outage| outage.since),
            ..Found::default()
        };
        let stored = deliveries.as_ref().map(delivery).unwrap_or_default();
        let delivery = Delivery {
            last: stored.last.max(apart.delivered_at.map(to_kubernetes)),
            failing: stored.failing + i64::from(apart.last_error.is_some()),
            error: apart.last_error.or(stored.error),
            given_up: stored.given_up,
        };
        let database = Some(health.clone());
        Self { now, invalid: None, problem, database, silenced, found: Some(found), delivery: Some(delivery) }
    }

    /// When the first of what is pending became so.
    pub fn pending_since(&self) -> Option<DateTime<Utc>> {
        self.found.as_ref()?.pending_since
    }
}

fn found(read: &Read) -> Found {
    let open = &read.evaluation.open;
    let count = |standing: Standing| count(open.iter().filter(|open| open.standing == standing).count());
    let (firing, pending) = (count(Standing::Firing), count(Standing::Pending));
    let mut subjects: Vec<Subject> =
        open.iter().filter(|open| open.standing == Standing::Firing).map(plan::subject).collect();
    plan::worst_first(&mut subjects, read.rule.name());
    let pending_since = open.iter().filter(|open| open.standing == Standing::Pending).map(|open| open.created_at).min();
    let followed = i64::try_from(plan::FOLLOWED).unwrap_or(i64::MAX);
    let not_followed = if firing + pending < followed { 0 } else { (read.beyond - firing - pending).max(0) };
    let run = read.last_run.map(|(id, at)| EvaluatedRun { id, time: Time(to_kubernetes(at)) });
    Found {
        counts: AlertCounts { evaluated: read.evaluated, firing, pending, no_data: read.missing, not_followed },
        firing: subjects,
        pending_since,
        without_figure: read.without_figure.clone(),
        scans: read.scans,
        unknown_scans: read.unknown_scans.clone(),
        run,
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn delivery(summary: &Summary) -> Delivery {
    Delivery {
        last: summary.delivered_at.map(to_kubernetes),
        failing: summary.failing,
        given_up: summary.given_up,
        error: summary.last_error.clone().filter(|_| summary.failing > 0 || summary.given_up > 0),
    }
}

/// The whole next status. What cannot be known now (the database is away, the spec cannot be used) stays as it was.
pub fn next(alert: &VolumeAlert, judged: &Judged) -> VolumeAlertStatus {
    let before = alert.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.observed_generation = alert.metadata.generation;
    if let Ok(rule) = alert.spec.rule.rule() {
        status.rule = Some(rule.name().to_owned());
    }
    if let Some(found) = &judged.found {
        tell_found(&mut status, found);
    }
    if let Some(delivery) = &judged.delivery {
        let told = before.last_notification_time.as_ref().map(|told| told.0);
        status.last_notification_time = delivery.last.max(told).map(Time);
        status.last_delivery_error = delivery.error.as_deref().map(|error| shorten(error, MAX_MESSAGE_CHARS));
    }
    let state = state(alert, judged, &status);
    if before.state != Some(state) || before.state_since.is_none() {
        status.state_since = Some(Time(to_seconds(judged.now)));
    }
    status.state = Some(state);
    let statements = statements(alert, judged, &status);
    status.conditions = build(statements, &before.conditions, alert.metadata.generation, judged.now);
    fit(&mut status);
    status
}

fn tell_found(status: &mut VolumeAlertStatus, found: &Found) {
    status.counts = Some(found.counts);
    status.firing = found.firing.iter().take(LISTED).map(firing).collect();
    let omitted = found.firing.len().saturating_sub(status.firing.len());
    status.firing_omitted = Some(count(omitted)).filter(|omitted| *omitted > 0);
    status.worst =
        found.firing.first().map(|worst| shorten(&format!("{}: {}", worst.name(), worst.message), MAX_WORST_CHARS));
    if found.run.is_some() {
        status.last_evaluated_run.clone_from(&found.run);
    }
}

fn firing(subject: &Subject) -> FiringSubject {
    #[expect(clippy::cast_possible_truncation, reason = "saturates")]
    let value = subject.value.map(|value| value.floor() as i64);
    FiringSubject {
        node: subject.node.as_deref().map(|name| shorten(name, MAX_NODE_CHARS)),
        volume: subject.volume.as_deref().map(|name| shorten(name, MAX_NAME_CHARS)),
        value,
        since: Time(to_kubernetes(subject.since)),
        message: shorten(&subject.message, MAX_MESSAGE_CHARS),
    }
}

fn state(alert: &VolumeAlert, judged: &Judged, status: &VolumeAlertStatus) -> AlertState {
    if alert.spec.suspend {
        return AlertState::Suspended;
    }
    let counts = status.counts.unwrap_or_default();
    match counts {
        AlertCounts { firing: 1.., .. } | AlertCounts { pending: 1.., .. } if judged.silenced => AlertState::Silenced,
        AlertCounts { firing: 1.., .. } => AlertState::Firing,
        AlertCounts { pending: 1.., .. } => AlertState::Pending,
        _ if alert.spec.no_data == NoData::Ignore => AlertState::Inactive,
        _ if judged.found.is_none() && judged.invalid.is_none() => AlertState::NoData,
        AlertCounts { evaluated, no_data, .. } if no_data >= evaluated => AlertState::NoData,
        _ => AlertState::Inactive,
    }
}

/// Leaves out what fires least badly until the status fits; what was left out stays counted.
fn fit(status: &mut VolumeAlertStatus) {
    while serde_json::to_vec(status).map_or(0, |json| json.len()) > MAX_BYTES && status.firing.pop().is_some() {
        *status.firing_omitted.get_or_insert_default() += 1;
    }
}

fn to_kubernetes(time: DateTime<Utc>) -> Timestamp {
    Timestamp::from_second(time.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH)
}
