//! Status by table, also of an outage of the database.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{at, author, open, spec};
use crate::controller::alert::Invalid;
use crate::controller::alert::outage::{self, Outage, Verdict};
use crate::controller::alert::status::{self, Delivery, Found, Judged};
use crate::controller::alert::{plan, publish};
use crate::controller::health::{DatabaseHealth, DatabaseProblem};
use crate::controller::notify::Problem;
use crate::crd::{AlertCounts, AlertState, EvaluatedRun, VolumeAlert, VolumeAlertSpec, VolumeAlertStatus};
use crate::domain::alert::Standing;
use crate::domain::alert::notification::{Occasion, Subject};

fn alert(spec: VolumeAlertSpec) -> VolumeAlert {
    let mut alert = VolumeAlert::new("big", spec);
    alert.metadata.generation = Some(3);
    alert
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn found(counts: AlertCounts, firing: Vec<Subject>) -> Judged {
    let found = Found { counts, firing, without_figure: vec!["n1/nfs".to_owned()], ..Found::default() };
    Judged {
        now: now(),
        invalid: None,
        problem: None,
        database: Some(DatabaseHealth::reached_for(Duration::from_secs(60), now())),
        silenced: false,
        found: Some(found),
        delivery: Some(Delivery::default()),
    }
}

fn counts(evaluated: i64, firing: i64, pending: i64, no_data: i64) -> AlertCounts {
    AlertCounts { evaluated, firing, pending, no_data, not_followed: 0 }
}

fn condition(status: &VolumeAlertStatus, type_: &str) -> (String, String) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == type_).expect(type_);
    (condition.status.clone(), condition.reason.clone())
}

fn message(status: &VolumeAlertStatus, type_: &str) -> String {
    status.conditions.iter().find(|condition| condition.type_ == type_).expect(type_).message.clone()
}

fn says(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn states_follow_from_counts() {
    let state = |spec: Value, judged: &Judged| status::next(&alert(super::spec(spec)), judged).state.unwrap();
    for (counts, expected) in [
        (counts(3, 1, 1, 1), AlertState::Firing),
        (counts(3, 0, 1, 1), AlertState::Pending),
        (counts(3, 0, 0, 1), AlertState::Inactive),
        (counts(3, 0, 0, 3), AlertState::NoData),
        (counts(0, 0, 0, 0), AlertState::NoData),
    ] {
        assert_eq!(state(json!({}), &found(counts, vec![])), expected, "{counts:?}");
    }
    assert_eq!(state(json!({}), &Judged { silenced: true, ..found(counts(3, 1, 0, 0), vec![]) }), AlertState::Silenced);
    assert_eq!(state(json!({"noData": "Ignore"}), &found(counts(3, 0, 0, 3), vec![])), AlertState::Inactive);
    assert_eq!(state(json!({"suspend": true}), &found(counts(3, 1, 0, 0), vec![])), AlertState::Suspended);
}

#[test]
fn missing_figures_are_said_unless_they_do_not_matter() {
    let said = |spec: Value, counts| {
        condition(&status::next(&alert(super::spec(spec)), &found(counts, vec![])), "DataAvailable")
    };
    assert_eq!(said(json!({}), counts(3, 0, 0, 0)), says("True", "AllMeasured"));
    assert_eq!(said(json!({}), counts(3, 0, 0, 1)), says("False", "SomeWithoutFigure"));
    assert_eq!(said(json!({"noData": "Ignore"}), counts(3, 0, 0, 1)), says("True", "MissingIgnored"));
    assert_eq!(said(json!({}), counts(0, 0, 0, 0)), says("False", "NoSubjects"));
}

#[test]
fn why_figures_are_missing_is_said() {
    let run = Some(EvaluatedRun { id: 7, time: Time(now()) });
    let some = Found { scans: 1, run, without_figure: vec!["n1/db".to_owned()], ..Found::default() };
    let said = |scope: &str, found: Found| {
        let judged = Judged { found: Some(found), ..super::status::found(self::counts(0, 0, 0, 0), vec![]) };
        let alert = alert(super::spec(json!({"scope": scope})));
        message(&status::next(&alert, &judged), "DataAvailable")
    };
    let nodes = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for (scope, counts, found, expected) in [
        ("Volume", counts(0, 0, 0, 0), Found::default(), "no VolumeScan is selected"),
        (
            "Volume",
            counts(0, 0, 0, 0),
            Found { run: None, ..some.clone() },
            "no selected VolumeScan has ended a run yet",
        ),
        ("Node", counts(3, 0, 0, 3), Found { run: None, ..some.clone() }, "no selected VolumeScan has ended a run yet"),
        ("Volume", counts(0, 0, 0, 0), some.clone(), "no selected scan has results of anything that is selected"),
        ("Volume", counts(9, 0, 0, 1), some.clone(), "1 of 9 volumes have no figure from the last run: n1/db"),
        (
            "Volume",
            counts(9, 0, 0, 4),
            some.clone(),
            "4 of 9 volumes have no figure from the last run: n1/db and 3 more",
        ),
        (
            "Cluster",
            counts(1, 0, 0, 1),
            Found { without_figure: nodes(&["n1", "n2", "n3", "n4"]), ..some.clone() },
            "the cluster has no figure from the last run: n1, n2, n3 and 1 more",
        ),
    ] {
        assert_eq!(said(scope, Found { counts, ..found }), expected);
    }
}

#[test]
fn a_scan_that_does_not_exist_is_named() {
    let mut judged = found(counts(1, 1, 0, 0), vec![]);
    judged.found.as_mut().unwrap().unknown_scans = vec!["nightly".to_owned(), "weekly".to_owned()];
    let status = status::next(&alert(spec(json!({}))), &judged);
    assert_eq!(condition(&status, "Ready"), says("False", "ScanNotFound"));
    assert_eq!(message(&status, "Ready"), "spec.scanSelector.names: there is no VolumeScan nightly, weekly");
    assert_eq!(status.state, Some(AlertState::Firing), "the others are judged");
}

#[test]
fn what_users_have_to_mend_is_told_once_by_an_event() {
    let mut alert = alert(spec(json!({})));
    let told = |alert: &mut VolumeAlert, judged: &Judged| {
        let notice = publish::notice(alert, judged);
        alert.status = Some(status::next(alert, judged));
        notice.map(|notice| (notice.reason, notice.note))
    };
    let well = found(counts(1, 0, 0, 0), vec![]);
    let problem = |reason, secret: &str| {
        let message = format!("spec.notify[hook]: Secret volumeviz/{secret} does not exist");
        Judged { problem: Some(Problem { reason, message }), ..well.clone() }
    };
    let missing = problem("SecretMissing", "hook");
    assert_eq!(told(&mut alert, &well), None);
    let note = "spec.notify[hook]: Secret volumeviz/hook does not exist".to_owned();
    assert_eq!(told(&mut alert, &missing), Some(("SecretMissing", note)));
    assert_eq!(told(&mut alert, &missing), None, "it was told");
    assert!(told(&mut alert, &problem("SecretMissing", "other")).is_some(), "another Secret");
    assert_eq!(told(&mut alert, &problem("ReceiversNotChecked", "hook")), None, "nothing for its users");
    let away = Judged { found: None, ..well.clone() };
    assert_eq!(told(&mut alert, &away), None, "nor is the database");
    let invalid = Invalid { reason: "InvalidSelector", message: "x".repeat(5000) };
    assert_eq!(told(&mut alert, &Judged::invalid(invalid.clone())).unwrap().0, "InvalidSelector");
    assert_eq!(told(&mut alert, &Judged::invalid(invalid)), None, "however long it is");
    alert.spec.suspend = true;
    assert_eq!(told(&mut alert, &missing), None, "nobody is to be told");
}

#[test]
fn while_the_database_is_away_what_fired_stays_and_is_said_to_be_old() {
    let firing = alert(spec(json!({})));
    let before =
        status::next(&firing, &found(counts(1, 1, 0, 0), vec![plan::subject(&open("a", Standing::Firing, 0))]));
    let away = VolumeAlert { status: Some(before.clone()), ..firing };
    let problem = DatabaseProblem { reason: "Unreachable", message: "gone".to_owned() };
    let database = DatabaseHealth::unknown(now()).with_problem(problem, now());
    let judged = Judged { found: None, delivery: None, database: Some(database), ..found(counts(0, 0, 0, 0), vec![]) };
    let next = status::next(&away, &judged);
    assert_eq!(
        (next.state, &next.firing, &next.state_since),
        (Some(AlertState::Firing), &before.firing, &before.state_since)
    );
    assert_eq!(condition(&next, "DataAvailable"), says("False", "DatabaseNotReady"));
    assert_eq!(condition(&next, "DatabaseReady"), says("False", "Unreachable"));
    assert_eq!(condition(&next, "Firing"), says("True", "AboveLimit"));
    assert_eq!(condition(&next, "NotificationsDelivered"), condition(&before, "NotificationsDelivered"));
    let nothing = status::next(&alert(spec(json!({}))), &judged);
    assert_eq!(nothing.state, Some(AlertState::NoData));
}

#[test]
fn a_receiver_that_cannot_be_told_is_not_ready_and_judged_all_the_same() {
    let problem = Problem { reason: "SecretMissing", message: "spec.notify[chat]: none".to_owned() };
    let status =
        status::next(&alert(spec(json!({}))), &Judged { problem: Some(problem), ..found(counts(1, 1, 0, 0), vec![]) });
    assert_eq!(condition(&status, "Ready"), says("False", "SecretMissing"));
    assert_eq!(status.state, Some(AlertState::Firing));
}

#[test]
fn deliveries_are_told() {
    let said = |delivery| {
        condition(
            &status::next(
                &alert(spec(json!({}))),
                &Judged { delivery: Some(delivery), ..found(counts(1, 0, 0, 0), vec![]) },
            ),
            "NotificationsDelivered",
        )
    };
    assert_eq!(said(Delivery::default()), says("True", "NothingToTell"));
    assert_eq!(said(Delivery { last: Some(now()), ..Delivery::default() }), says("True", "AllDelivered"));
    assert_eq!(
        said(Delivery { failing: 1, error: Some("refused".to_owned()), ..Delivery::default() }),
        says("False", "DeliveryFailing")
    );
    assert_eq!(said(Delivery { given_up: 1, ..Delivery::default() }), says("False", "GivenUp"));
}

#[test]
fn a_status_with_the_longest_names_fits() {
    let long = Subject {
        node: Some("n".repeat(253)),
        volume: Some("\u{1F4BE}".repeat(512)),
        message: "\u{1F4BE}".repeat(1000),
        ..plan::subject(&open("a", Standing::Firing, 0))
    };
    let status = status::next(&alert(spec(json!({}))), &found(counts(1000, 1000, 0, 0), vec![long; 1000]));
    assert!(serde_json::to_vec(&status).unwrap().len() <= status::MAX_BYTES);
    let listed = i64::try_from(status.firing.len()).unwrap();
    assert!(listed > 0);
    assert_eq!(status.firing_omitted, Some(1000 - listed), "what is left out is counted");
}

#[test]
fn state_since_moves_with_the_state_only() {
    let first = status::next(&alert(spec(json!({}))), &found(counts(1, 0, 0, 0), vec![]));
    let later = Judged { now: Timestamp::from_second(1_800_000_500).unwrap(), ..found(counts(1, 0, 0, 0), vec![]) };
    let same = status::next(&VolumeAlert { status: Some(first.clone()), ..alert(spec(json!({}))) }, &later);
    assert_eq!(same.state_since, first.state_since);
    assert_eq!(
        same,
        VolumeAlertStatus { conditions: same.conditions.clone(), ..first.clone() },
        "at rest nothing changes"
    );
    assert_eq!(same.conditions, first.conditions);
}

fn down(for_seconds: i64) -> VolumeAlertSpec {
    spec(json!({"scope": "Cluster", "rule": {"databaseDown": {}}, "forSeconds": for_seconds}))
}

fn health(up: bool) -> DatabaseHealth {
    let up_for = DatabaseHealth::reached_for(Duration::from_secs(60), now());
    if up {
        up_for
    } else {
        up_for.with_problem(DatabaseProblem { reason: "Unreachable", message: "gone".to_owned() }, now())
    }
}

/// One pass over the database at a second, upon the status of the last.
fn outage_pass(
    spec: &VolumeAlertSpec,
    before: Option<VolumeAlertStatus>,
    health: &DatabaseHealth,
    second: i64,
) -> (Verdict, VolumeAlertStatus) {
    let now = Timestamp::from_second(1_800_000_000 + second).unwrap();
    let verdict = outage::verdict(spec, before.as_ref(), health, now);
    let judged = Judged::database(verdict, health, now, Default::default(), None, false);
    (verdict, status::next(&VolumeAlert { status: before, ..alert(spec.clone()) }, &judged))
}

#[test]
fn an_outage_is_followed_by_the_status_alone() {
    let spec = down(30);
    let (_, up) = outage_pass(&spec, None, &health(true), 1);
    assert_eq!(up.state, Some(AlertState::Inactive));
    let (_, pending) = outage_pass(&spec, Some(up), &health(false), 10);
    assert_eq!(pending.state, Some(AlertState::Pending));
    let (_, waiting) = outage_pass(&spec, Some(pending.clone()), &health(false), 39);
    assert_eq!(waiting, pending);
    let (_, firing) = outage_pass(&spec, Some(waiting), &health(false), 40);
    assert_eq!(
        (firing.state, firing.firing[0].since.clone()),
        (Some(AlertState::Firing), Time(Timestamp::from_second(1_800_000_040).unwrap()))
    );
    let (verdict, over) = outage_pass(&spec, Some(firing), &health(true), 50);
    assert_eq!((over.state, verdict.over.map(|outage| outage.since)), (Some(AlertState::Inactive), Some(at(40))));
}

#[test]
fn what_is_told_of_an_outage_has_the_same_ids_until_a_reminder_is_due() {
    let spec = down(0);
    let receivers = spec.receivers();
    let outage = Outage { standing: Standing::Firing, since: at(0) };
    let ids = |second: i64| -> Vec<_> {
        let now = Timestamp::from_second(1_800_000_000 + second).unwrap();
        outage::firing(&author(&spec, &receivers), outage, &health(false), now)
            .iter()
            .map(|(_, told)| (told.event, told.id))
            .collect()
    };
    assert_eq!(ids(1), ids(599));
    let (first, later) = (ids(1), ids(600));
    assert_eq!((first.len(), later.len()), (4, 5));
    assert_eq!(later.iter().filter(|(event, _)| *event == Occasion::Reminder).count(), 1);
    assert_eq!(later, ids(1199));
}

#[test]
fn the_end_of_an_outage_is_told_when_its_alert_is_deleted() {
    let spec = down(0);
    let receivers = spec.receivers();
    let outages = outage::Outages::default();
    let author = author(&spec, &receivers);
    let outage = Outage { standing: Standing::Firing, since: at(0) };
    outages.set(&author, Some(outage));
    assert!(outages.take_gone(&["uid".to_owned()], now()).is_empty() && !outages.is_empty());
    let told = outages.take_gone(&[], now());
    let names: Vec<_> = told.iter().map(|(receiver, told)| (receiver.name.as_str(), told.event)).collect();
    assert_eq!(names, ["event", "chat", "ops"].map(|name| (name, Occasion::Resolved)));
    assert_eq!(told[0].1.text, "[Warning] big: resolved: cluster: the VolumeAlert was deleted");
    assert!(outages.is_empty());
    outages.set(&author, Some(outage));
    outages.set(&author, None);
    assert!(outages.is_empty());
}

/// `kubectl` prints statuses into terminals.
#[test]
fn of_no_name_in_a_status_a_terminal_obeys_anything() {
    for text in crate::hostile::TEXTS {
        let text = || (*text).to_owned();
        let subject = Subject {
            node: Some("n".to_owned()),
            volume: Some(text()),
            message: text(),
            ..plan::subject(&open("a", Standing::Firing, 0))
        };
        let delivery = Delivery { failing: 1, error: Some(text()), ..Delivery::default() };
        let problem = Problem { reason: "SecretMissing", message: text() };
        let mut judged = found(counts(2, 1, 0, 1), vec![subject]);
        judged = Judged { problem: Some(problem), delivery: Some(delivery), ..judged };
        judged.found.as_mut().unwrap().without_figure = vec![text()];
        let status = status::next(&alert(spec(json!({}))), &judged);
        assert_eq!(crate::hostile::harm_in(&json!(status)), [""; 0]);
    }
}
