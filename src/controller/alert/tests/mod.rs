//! Plan by table.

mod findings;
mod status;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::plan::{self, Evaluation, Finding, Plan, plan};
use super::tell::Author;
use crate::crd::VolumeAlertSpec;
use crate::domain::alert::judge::Sample;
use crate::domain::alert::notification::{Occasion, Receiver, Subject};
use crate::domain::alert::{Scope, Severity, Standing};
use crate::store::alerts::Open;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

#[expect(clippy::needless_pass_by_value, reason = "given as json!")]
fn spec(more: Value) -> VolumeAlertSpec {
    let mut spec = json!({"scope": "Volume", "rule": {"sizeAbove": {"bytes": 100}}, "notify": [
        {"name": "event", "type": "Event"},
        {"name": "chat", "type": "Webhook", "secretName": "chat", "repeatEverySeconds": 600},
        {"name": "quiet", "type": "Webhook", "secretName": "quiet", "sendResolved": false},
        {"name": "ops", "type": "Alertmanager"},
    ]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn finding(name: &str, sample: Sample) -> Finding {
    Finding {
        subject: format!("n1/{name}"),
        volume_id: Some(name.bytes().map(i64::from).sum()),
        node: Some("n1".to_owned()),
        volume: Some(name.to_owned()),
        sample,
        remark: None,
    }
}

fn open(name: &str, standing: Standing, since: i64) -> Open {
    let finding = finding(name, Sample::Missing);
    let firing = standing == Standing::Firing;
    Open {
        id: since,
        alert_name: "big".to_owned(),
        rule: "sizeAbove".to_owned(),
        scope: Scope::Volume,
        subject: finding.subject,
        volume_id: finding.volume_id,
        volume: finding.node.zip(finding.volume),
        volume_gone: false,
        standing,
        severity: Severity::Warning,
        value: Some(200.0),
        threshold: 100.0,
        message: "200 B, limit 100 B".to_owned(),
        created_at: at(since),
        fired_at: firing.then(|| at(since)),
        told_at: firing.then(|| at(since)),
        updated_at: at(since),
        receivers: spec(json!({})).receivers(),
    }
}

fn planned(spec: &VolumeAlertSpec, open: Vec<Open>, findings: Vec<Finding>, now: i64, silenced: bool) -> Plan {
    let last_told = open.iter().filter_map(|open| open.told_at).max();
    let last_told = last_told.map(|last| ("chat".to_owned(), last)).into_iter().collect();
    let evaluation = Evaluation { now: at(now), open, findings, last_told };
    let receivers = spec.receivers();
    let rule = spec.rule.rule().unwrap();
    plan(spec, rule, &author(spec, &receivers), &evaluation, silenced)
}

fn author<'a>(spec: &VolumeAlertSpec, receivers: &'a [Receiver]) -> Author<'a> {
    Author::new("big", "uid", spec, spec.rule.rule().unwrap(), receivers)
}

/// Who is told what, of whom.
fn told(plan: &Plan) -> Vec<(&str, Occasion, Vec<String>)> {
    let told = plan.notifications.iter();
    told.map(|(receiver, told)| (receiver.name.as_str(), told.event, told.subjects.iter().map(Subject::name).collect()))
        .collect()
}

#[test]
fn what_begins_to_fire_is_told_to_every_receiver_worst_first() {
    let plan = planned(
        &spec(json!({})),
        vec![],
        vec![finding("a", Sample::Exactly(150.0)), finding("b", Sample::Exactly(170.0))],
        0,
        false,
    );
    assert!(plan.states.iter().all(|state| state.told && state.standing == Standing::Firing && state.seen.is_none()));
    let names = vec!["n1/b".to_owned(), "n1/a".to_owned()];
    let expected = ["event", "chat", "quiet", "ops"].map(|receiver| (receiver, Occasion::Firing, names.clone()));
    assert_eq!(told(&plan), expected);
    let text = "[Warning] big: n1/b: 170 B, limit 100 B; and 1 more";
    assert_eq!(plan.notifications[0].1.text, text);
}

#[test]
fn what_is_over_is_told_to_who_wants_to_hear_it() {
    let plan = planned(
        &spec(json!({})),
        vec![open("a", Standing::Firing, 0)],
        vec![finding("a", Sample::Exactly(50.0))],
        60,
        false,
    );
    assert_eq!((plan.states.len(), plan.ends.len(), plan.ends[0].message.as_str()), (0, 1, "50 B, limit 100 B"));
    let expected = ["event", "chat", "ops"].map(|receiver| (receiver, Occasion::Resolved, vec!["n1/a".to_owned()]));
    assert_eq!(told(&plan), expected);
    assert_eq!(plan.notifications[0].1.subjects[0].resolved_at, Some(at(60)));
}

#[test]
fn what_is_pending_is_told_only_when_it_fires() {
    let hold = spec(json!({"forSeconds": 60}));
    let above = || vec![finding("a", Sample::Exactly(200.0))];
    let first = planned(&hold, vec![], above(), 0, false);
    assert_eq!((first.states[0].standing, first.notifications.len()), (Standing::Pending, 0));
    let waiting = planned(&hold, vec![open("a", Standing::Pending, 0)], above(), 59, false);
    assert!(waiting.is_empty(), "{waiting:?}");
    let fires = planned(&hold, vec![open("a", Standing::Pending, 0)], above(), 60, false);
    assert_eq!((fires.states[0].standing, fires.states[0].seen), (Standing::Firing, Some(at(0))));
    assert_eq!(fires.notifications.len(), 4);
    let pending = [open("a", Standing::Pending, 0)];
    assert_eq!(plan::next_change(&hold, &pending, &[]), Some(at(60)), "and the pass comes at that time");
    let over =
        planned(&hold, vec![open("a", Standing::Pending, 0)], vec![finding("a", Sample::Exactly(1.0))], 10, false);
    assert_eq!((over.ends.len(), over.notifications.len()), (1, 0), "nobody was told of it");
}

#[test]
fn while_it_fires_nothing_is_told_again_but_reminders() {
    let firing = || vec![open("a", Standing::Firing, 0)];
    let same = vec![finding("a", Sample::Exactly(200.0))];
    assert!(planned(&spec(json!({})), firing(), same.clone(), 599, false).is_empty());
    let grown = planned(&spec(json!({})), firing(), vec![finding("a", Sample::Exactly(300.0))], 10, false);
    assert_eq!((grown.states.len(), grown.notifications.len()), (1, 0), "a new figure is written down and not told");
    let reminded = planned(&spec(json!({})), firing(), same.clone(), 600, false);
    assert_eq!(told(&reminded), [("chat", Occasion::Reminder, vec!["n1/a".to_owned()])]);
    let again = planned(&spec(json!({})), firing(), same, 700, false);
    assert_eq!(again.notifications[0].1.id, reminded.notifications[0].1.id, "the same reminder has the same id");
}

#[test]
fn silence_holds_back_what_fires_and_tells_it_when_it_ends() {
    let above = || vec![finding("a", Sample::Exactly(200.0))];
    let silent = planned(&spec(json!({})), vec![], above(), 0, true);
    assert_eq!(
        (silent.states[0].standing, silent.states[0].told, silent.notifications.len()),
        (Standing::Firing, false, 0)
    );
    let untold = Open { told_at: None, ..open("a", Standing::Firing, 0) };
    assert!(planned(&spec(json!({})), vec![untold.clone()], above(), 600, true).is_empty());
    let later = planned(&spec(json!({})), vec![untold.clone()], above(), 700, false);
    assert_eq!((later.states[0].told, later.notifications.len()), (true, 4));
    assert_eq!(later.notifications[0].1.subjects[0].since, at(0));
    let over = planned(&spec(json!({})), vec![untold], vec![finding("a", Sample::Exactly(1.0))], 700, false);
    assert_eq!((over.ends.len(), over.notifications.len()), (1, 0), "the end of what nobody heard of is not told");
}

#[test]
fn a_missing_figure_changes_nothing_and_keeps_the_last() {
    let plan = planned(
        &spec(json!({})),
        vec![open("a", Standing::Firing, 0)],
        vec![finding("a", Sample::Missing), finding("b", Sample::Missing)],
        60,
        false,
    );
    assert!(plan.is_empty(), "{plan:?}");
    let alerting = planned(&spec(json!({"noData": "Alert"})), vec![], vec![finding("b", Sample::Missing)], 60, false);
    let state = &alerting.states[0];
    assert_eq!(
        (state.standing, state.value, state.message.as_str()),
        (Standing::Firing, None, "no figure from the last run")
    );
}

#[test]
fn what_is_gone_is_over_and_says_why() {
    let gone = Finding { remark: Some("the volume was removed".to_owned()), ..finding("a", Sample::Gone) };
    let plan = planned(&spec(json!({})), vec![open("a", Standing::Firing, 0)], vec![gone], 60, false);
    assert_eq!(plan.ends[0].message, "the volume was removed");
    assert_eq!(plan.notifications[0].1.text, "[Warning] big: resolved: n1/a: the volume was removed");
}

#[test]
fn a_volume_made_anew_under_its_name_is_another_subject() {
    let anew = Finding { volume_id: Some(7), ..finding("a", Sample::Exactly(500.0)) };
    let gone = Finding { remark: Some("the volume was removed".to_owned()), ..finding("a", Sample::Gone) };
    let plan = planned(&spec(json!({})), vec![open("a", Standing::Firing, 0)], vec![anew, gone], 60, false);
    assert_eq!(
        (plan.ends.len(), plan.states.len(), plan.states[0].volume_id, plan.states[0].seen),
        (1, 1, Some(7), None)
    );
}

#[test]
fn a_changed_rule_or_a_suspended_alert_ends_what_is_open() {
    let other = spec(json!({"rule": {"filesAbove": {"files": 1}}}));
    let plan =
        planned(&other, vec![open("a", Standing::Firing, 0)], vec![finding("a", Sample::Exactly(5.0))], 60, false);
    assert_eq!(
        (plan.ends[0].message.as_str(), plan.states.len()),
        ("the alert's rule, scope or severity was changed", 1)
    );
    let suspended = planned(
        &spec(json!({"suspend": true})),
        vec![open("a", Standing::Firing, 0)],
        vec![finding("a", Sample::Exactly(500.0))],
        60,
        false,
    );
    assert_eq!((suspended.ends[0].message.as_str(), suspended.states.len()), ("the alert was suspended", 0));
    assert!(suspended.notifications.iter().all(|(_, told)| told.event == Occasion::Resolved));
    let lower = planned(
        &spec(json!({"rule": {"sizeAbove": {"bytes": 50}}})),
        vec![open("a", Standing::Firing, 0)],
        vec![finding("a", Sample::Exactly(200.0))],
        60,
        false,
    );
    assert_eq!(
        (lower.ends.len(), lower.states.len(), lower.notifications.len()),
        (0, 1, 0),
        "another limit of the same rule goes on"
    );
}

#[test]
fn a_thousand_subjects_are_followed_and_no_more() {
    let many: Vec<Finding> = (0..1500)
        .map(|n| Finding { volume_id: Some(n), ..finding(&format!("v{n}"), Sample::Exactly(200.0)) })
        .collect();
    let plan = planned(&spec(json!({})), vec![], many, 0, false);
    assert_eq!(plan.states.len(), plan::FOLLOWED);
    let of =
        |name: &str| plan.notifications.iter().filter(move |(receiver, _)| receiver.name == name).collect::<Vec<_>>();
    assert_eq!((of("chat").len(), of("chat")[0].1.subjects.len(), of("chat")[0].1.subjects_omitted), (1, 100, 900));
    assert_eq!(of("ops").len(), 10, "Alertmanager is told of each");
    let ids: std::collections::BTreeSet<_> = plan.notifications.iter().map(|(_, told)| told.id).collect();
    assert_eq!(ids.len(), plan.notifications.len());
}

#[test]
fn what_was_judged_by_another_severity_ends_as_what_it_was() {
    let critical = spec(json!({"severity": "Critical"}));
    let plan =
        planned(&critical, vec![open("a", Standing::Firing, 0)], vec![finding("a", Sample::Exactly(200.0))], 60, false);
    let told: Vec<_> = plan.notifications.iter().map(|(_, told)| (told.event, told.severity)).collect();
    assert_eq!(told[..3], [(Occasion::Resolved, Severity::Warning); 3]);
    assert!(told[3..].iter().all(|told| *told == (Occasion::Firing, Severity::Critical)), "{told:?}");
}

#[test]
fn a_changed_rule_ends_under_its_old_name() {
    let other = spec(json!({"rule": {"filesAbove": {"files": 1}}}));
    let plan =
        planned(&other, vec![open("a", Standing::Firing, 0)], vec![finding("a", Sample::Exactly(0.0))], 60, false);
    let (_, over) = &plan.notifications[0];
    assert_eq!((over.rule.as_str(), over.unit.as_str(), over.subjects[0].threshold), ("sizeAbove", "bytes", 100.0));
}

#[test]
fn a_lower_bound_below_the_limit_takes_no_figure_away() {
    let firing = || vec![open("a", Standing::Firing, 0)];
    let plan = planned(&spec(json!({})), firing(), vec![finding("a", Sample::AtLeast(10.0))], 60, false);
    assert!(plan.is_empty(), "{plan:?}");
    let wanting = Open { value: None, ..open("a", Standing::Firing, 0) };
    let alerting = spec(json!({"noData": "Alert"}));
    let plan = planned(&alerting, vec![wanting], vec![finding("a", Sample::AtLeast(10.0))], 60, false);
    assert!(plan.is_empty(), "it still fires for want of a figure: {plan:?}");
}

#[test]
fn a_receiver_that_was_never_reminded_counts_from_when_the_first_was_told() {
    let evaluation = Evaluation {
        now: at(600),
        open: vec![open("a", Standing::Firing, 0)],
        findings: vec![finding("a", Sample::Exactly(200.0))],
        last_told: vec![],
    };
    let spec = spec(json!({}));
    let receivers = spec.receivers();
    let plan = plan(&spec, spec.rule.rule().unwrap(), &author(&spec, &receivers), &evaluation, false);
    assert_eq!(told(&plan), [("chat", Occasion::Reminder, vec!["n1/a".to_owned()])]);
    assert_eq!(plan::next_change(&spec, &evaluation.open, &[]), Some(at(600)));
}

#[test]
fn the_worst_new_subjects_are_followed() {
    let many: Vec<Finding> = (0..1500_u32)
        .map(|n| Finding {
            volume_id: Some(n.into()),
            ..finding(&format!("v{n:04}"), Sample::Exactly(f64::from(200 + n)))
        })
        .collect();
    let plan = planned(&spec(json!({})), vec![], many, 0, false);
    assert!(plan.states.iter().all(|state| state.value.unwrap() >= 700.0));
}

#[test]
fn ends_are_told_worst_first_whatever_their_cause() {
    let small = || Open { value: Some(120.0), ..open("a", Standing::Firing, 0) };
    let big = || Open { value: Some(480.0), ..open("b", Standing::Firing, 1) };
    let worst_first = vec!["n1/b".to_owned(), "n1/a".to_owned()];
    for cause in
        [json!({"suspend": true}), json!({"severity": "Critical"}), json!({"rule": {"filesAbove": {"files": 1}}})]
    {
        let plan = planned(&spec(cause.clone()), vec![small(), big()], vec![], 60, false);
        assert_eq!(told(&plan)[0], ("event", Occasion::Resolved, worst_first.clone()), "{cause}");
    }
    let (small, big) = (small(), big());
    let spec = spec(json!({}));
    let receivers = spec.receivers();
    let deleted = plan::end_all(&author(&spec, &receivers), &[&small, &big], "the VolumeAlert was deleted", at(60));
    assert_eq!(told(&deleted)[0], ("event", Occasion::Resolved, worst_first));
}
