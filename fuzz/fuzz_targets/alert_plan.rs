//! A VolumeAlert in whatever JSON, and what follows: a line of its spec, then bytes from which states and figures are made.

#![no_main]

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use libfuzzer_sys::arbitrary::{self, Unstructured};
use libfuzzer_sys::fuzz_target;
use volumeviz::controller::alert::plan::{Evaluation, FOLLOWED, Finding, Plan, next_change, plan};
use volumeviz::controller::alert::tell::Author;
use volumeviz::crd::VolumeAlertSpec;
use volumeviz::domain::alert::Standing;
use volumeviz::domain::alert::judge::Sample;
use volumeviz::domain::alert::notification::{MAX_SUBJECTS, Occasion, Receiver};
use volumeviz::domain::alert::rule::Rule;
use volumeviz::domain::selector::VolumeMatcher;
use volumeviz::store::alerts::Open;

/// When figures are from.
const NOW: i64 = 1_790_000_000;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(2, |byte| *byte == b'\n');
    let Ok(spec) = serde_json::from_slice::<VolumeAlertSpec>(lines.next().unwrap_or_default()) else { return };
    if let Some(Err(error)) = spec.volume_selector.as_ref().map(VolumeMatcher::new) {
        assert!(error.to_string().starts_with("spec.volumeSelector."), "{error}");
    }
    let Ok(rule) = spec.rule.rule() else { return };
    let receivers = spec.receivers();
    let author = Author::new("big", "uid", &spec, rule, &receivers);
    let mut choices = Unstructured::new(lines.next().unwrap_or_default());
    let silenced = choices.ratio(1, 5).unwrap_or(false);
    let Ok(evaluation) = evaluation(&author, rule, &mut choices) else { return };
    let planned = plan(&spec, rule, &author, &evaluation, silenced);
    assert_eq!(planned, plan(&spec, rule, &author, &evaluation, silenced), "the same figures give the same plan");
    ends(&spec, &author, &evaluation, &planned);
    told(&spec, &evaluation, &planned, silenced);
    let next = carried_out(&evaluation, &planned, &author);
    assert!(next.open.len() <= FOLLOWED.max(evaluation.open.len()));
    let due = next_change(&spec, &next.open, &next.last_told);
    assert!(due.is_none() || !next.open.is_empty(), "nothing is open, and changes at {due:?}");
    if is_in_order(&spec, &receivers) && !silenced {
        let again = plan(&spec, rule, &author, &next, silenced);
        assert!(again.is_empty(), "{again:?} after {planned:?}");
    }
});

/// What the schema lets pass.
fn is_in_order(spec: &VolumeAlertSpec, receivers: &[Receiver]) -> bool {
    let names: BTreeSet<&str> = receivers.iter().map(|receiver| receiver.name.as_str()).collect();
    names.len() == receivers.len()
        && spec.for_seconds >= 0
        && receivers.iter().all(|receiver| receiver.repeat_every_seconds.is_none_or(|every| every >= 60))
}

/// Nothing ends for want of a figure, unless it was judged by something else.
fn ends(spec: &VolumeAlertSpec, author: &Author, evaluation: &Evaluation, planned: &Plan) {
    for end in &planned.ends {
        let open = evaluation.open.iter().find(|open| open.id == end.id).unwrap();
        assert_eq!(end.seen, open.updated_at);
        let found = evaluation.findings.iter().find(|finding| finding.is_of(open)).map(|finding| finding.sample);
        let known = matches!(found, Some(Sample::Exactly(_) | Sample::Gone));
        assert!(known || spec.suspend || !author.judged(open), "{open:?} ended by {found:?}");
    }
    let ids: BTreeSet<i64> = planned.ends.iter().map(|end| end.id).collect();
    assert_eq!(ids.len(), planned.ends.len(), "ended twice");
}

/// Each notification is one of its own, of so many subjects; in silence nothing is told to fire, nor by what is suspended.
fn told(spec: &VolumeAlertSpec, evaluation: &Evaluation, planned: &Plan, silenced: bool) {
    let names: BTreeSet<&str> = planned.notifications.iter().map(|(receiver, _)| receiver.name.as_str()).collect();
    let receivers = spec.receivers();
    if receivers.iter().map(|receiver| &receiver.name).collect::<BTreeSet<_>>().len() == receivers.len() {
        let ids: BTreeSet<_> = planned.notifications.iter().map(|(_, told)| told.id).collect();
        assert_eq!(ids.len(), planned.notifications.len(), "two under one id, to {names:?}");
    }
    for (receiver, told) in &planned.notifications {
        assert!((1..=MAX_SUBJECTS).contains(&told.subjects.len()));
        assert!(told.event != Occasion::Resolved || receiver.send_resolved);
        assert!(told.event == Occasion::Resolved || !(silenced || spec.suspend));
        assert_eq!(told.time, evaluation.now);
        assert!(serde_json::to_value(told).is_ok());
    }
}

/// What the database holds once this was written.
fn carried_out(evaluation: &Evaluation, planned: &Plan, author: &Author) -> Evaluation {
    let mut next = evaluation.clone();
    next.open.retain(|open| planned.ends.iter().all(|end| end.id != open.id));
    for state in &planned.states {
        let same = |open: &&mut Open| (&open.subject, open.volume_id) == (&state.subject, state.volume_id);
        let before = next.open.iter_mut().find(same);
        assert_eq!(before.as_ref().map(|open| open.updated_at), state.seen, "{state:?}");
        let finding =
            evaluation.findings.iter().find(|f| (&f.subject, f.volume_id) == (&state.subject, state.volume_id));
        let mut open = before.map_or_else(|| opened(author, finding.unwrap(), evaluation.now), |open| open.clone());
        open.fired_at = open.fired_at.or((state.standing == Standing::Firing).then_some(evaluation.now));
        open.told_at = open.told_at.or(state.told.then_some(evaluation.now));
        (open.standing, open.value, open.message) = (state.standing, state.value, state.message.clone());
        (open.threshold, open.receivers) = (author.threshold, author.receivers.to_vec());
        next.open.retain(|other| (&other.subject, other.volume_id) != (&open.subject, open.volume_id));
        next.open.push(open);
    }
    for (receiver, told) in &planned.notifications {
        if told.event != Occasion::Resolved {
            next.last_told.retain(|(name, _)| *name != receiver.name);
            next.last_told.push((receiver.name.clone(), told.time));
        }
    }
    next
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap()
}

fn opened(author: &Author, finding: &Finding, now: DateTime<Utc>) -> Open {
    Open {
        id: 1000 + finding.volume_id.unwrap_or_default(),
        alert_name: author.name.to_owned(),
        rule: author.rule.to_owned(),
        scope: author.scope,
        subject: finding.subject.clone(),
        volume_id: finding.volume_id,
        volume: finding.node.clone().zip(finding.volume.clone()),
        volume_gone: false,
        standing: Standing::Pending,
        severity: author.severity,
        value: None,
        threshold: author.threshold,
        message: String::new(),
        created_at: now,
        fired_at: None,
        told_at: None,
        updated_at: now,
        receivers: author.receivers.to_vec(),
    }
}

/// Up to twelve subjects, each with a figure, most with a state from before.
fn evaluation(author: &Author, rule: Rule, choices: &mut Unstructured) -> arbitrary::Result<Evaluation> {
    let (mut open, mut findings) = (Vec::new(), Vec::new());
    let mut last_told = Vec::new();
    for number in 0..choices.int_in_range(0..=12)? {
        let name = if choices.ratio(1, 16)? { choices.arbitrary()? } else { format!("volume-{number}") };
        let sample = match choices.int_in_range(0..=5_u8)? {
            0 => Sample::Missing,
            1 => Sample::Gone,
            2 => Sample::AtLeast(figure(rule, choices)?),
            _ => Sample::Exactly(figure(rule, choices)?),
        };
        let finding = Finding {
            subject: format!("n/{number}/{name}"),
            volume_id: Some(number),
            node: Some("n".to_owned()),
            volume: Some(name),
            sample,
            remark: choices.ratio(1, 8)?.then(|| "a stopped container holds it".to_owned()),
        };
        if choices.arbitrary()? {
            open.push(before(author, rule, &finding, choices)?);
        }
        findings.push(finding);
    }
    for receiver in author.receivers {
        if choices.arbitrary()? {
            last_told.push((receiver.name.clone(), at(NOW - choices.int_in_range(0..=86_400)?)));
        }
    }
    Ok(Evaluation { now: at(NOW), open, findings, last_told })
}

/// About the limit, on either side of it.
fn figure(rule: Rule, choices: &mut Unstructured) -> arbitrary::Result<f64> {
    if choices.ratio(1, 16)? {
        return Ok(f64::INFINITY);
    }
    Ok(rule.threshold() * f64::from(choices.int_in_range(0..=200_u8)?) / 100.0)
}

fn before(author: &Author, rule: Rule, finding: &Finding, choices: &mut Unstructured) -> arbitrary::Result<Open> {
    let mut open = opened(author, finding, at(NOW) - TimeDelta::seconds(choices.int_in_range(1..=200_000)?));
    open.id = finding.volume_id.unwrap_or_default();
    if choices.arbitrary()? {
        open.standing = Standing::Firing;
        open.fired_at = Some(open.created_at);
        open.told_at = choices.arbitrary::<bool>()?.then_some(open.created_at);
    }
    open.value = if choices.arbitrary()? { Some(figure(rule, choices)?) } else { None };
    open.threshold = if choices.ratio(1, 8)? { 1.0 } else { open.threshold };
    if choices.ratio(1, 8)? {
        open.rule = "databaseDown".to_owned();
    }
    Ok(open)
}
