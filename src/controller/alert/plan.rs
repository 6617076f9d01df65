//! What to do next about one VolumeAlert: a pure function of what was observed.

use chrono::{DateTime, TimeDelta, Utc};

use super::tell::{self, Author};
use crate::crd::VolumeAlertSpec;
use crate::domain::alert::judge::{self, Policy, Sample, judge};
use crate::domain::alert::notification::{Notification, Receiver, Subject};
use crate::domain::alert::rule::{self, Rule};
use crate::domain::alert::{Scope, Standing};
use crate::store::alerts::{End, Open, State};

/// How many subjects of one alert are followed: beyond it, one message says as much as thousands would.
pub const FOLLOWED: usize = 1000;

/// What was found of one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// A volume's `node/name`, a node's name, or empty.
    pub subject: String,
    /// `volumes.id` of a volume.
    pub volume_id: Option<i64>,
    /// Its node.
    pub node: Option<String>,
    /// The volume's name.
    pub volume: Option<String>,
    /// Its figure.
    pub sample: Sample,
    /// Added to what people read: why it is gone, or what else there is to know.
    pub remark: Option<String>,
}

impl Finding {
    /// A volume that was made anew under its name is another subject.
    pub fn is_of(&self, open: &Open) -> bool {
        self.subject == open.subject && self.volume_id == open.volume_id
    }
}

/// What one pass judges.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// By the database's clock.
    pub now: DateTime<Utc>,
    /// What is open, as of the same moment.
    pub open: Vec<Open>,
    /// Of each subject with an open state, and of those that may open one.
    pub findings: Vec<Finding>,
    /// When each receiver was last told that something fires.
    pub last_told: Vec<(String, DateTime<Utc>)>,
}

/// What is to be written, all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// States to open and to change.
    pub states: Vec<State>,
    /// States to end; they go before those to open, since a volume may be made anew under its name.
    pub ends: Vec<End>,
    /// What is to be told.
    pub notifications: Vec<(Receiver, Notification)>,
}

impl Plan {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty() && self.ends.is_empty() && self.notifications.is_empty()
    }

    fn and(mut self, more: Self) -> Self {
        self.states.extend(more.states);
        self.ends.extend(more.ends);
        self.notifications.extend(more.notifications);
        self
    }
}

/// Judges every subject, and says what follows.
pub fn plan(spec: &VolumeAlertSpec, rule: Rule, author: &Author<'_>, evaluation: &Evaluation, silenced: bool) -> Plan {
    let now = evaluation.now;
    let (stays, changed): (Vec<&Open>, Vec<&Open>) = evaluation.open.iter().partition(|open| author.judged(open));
    let ended = end_all(author, &changed, "the alert's rule, scope or severity was changed", now);
    if spec.suspend {
        return ended.and(end_all(author, &stays, "the alert was suspended", now));
    }
    let mut court = Court::new(spec, rule, author, now, silenced);
    court.judge_all(&stays, &evaluation.findings);
    for subjects in [&mut court.told, &mut court.over] {
        worst_first(subjects, author.rule);
    }
    let mut notifications = tell::notifications(author, &court.told, &court.over, now);
    if !silenced {
        notifications.extend(reminders(author, evaluation, &stays, &court.ends));
    }
    ended.and(Plan { states: court.states, ends: court.ends, notifications })
}

/// Ends states for one reason, and tells it as what they were judged by: Alertmanager knows an alert by that.
pub fn end_all(author: &Author<'_>, open: &[&Open], message: &str, now: DateTime<Utc>) -> Plan {
    let alike = open.chunk_by(|a, b| (&a.rule, a.scope, a.severity) == (&b.rule, b.scope, b.severity));
    let notifications = alike.flat_map(|alike| {
        let told = alike.iter().filter(|open| open.told_at.is_some());
        let mut over: Vec<Subject> = told.map(|open| over(open, message, now)).collect();
        worst_first(&mut over, &alike[0].rule);
        tell::notifications(&author.of(alike[0]), &[], &over, now)
    });
    Plan {
        notifications: notifications.collect(),
        ends: open.iter().map(|open| end(open, message)).collect(),
        ..Plan::default()
    }
}

fn end(open: &Open, message: &str) -> End {
    End { id: open.id, message: message.to_owned(), seen: open.updated_at }
}

fn over(open: &Open, message: &str, now: DateTime<Utc>) -> Subject {
    Subject { message: message.to_owned(), resolved_at: Some(now), ..subject(open) }
}

/// What is judged by, and what it comes to.
struct Court<'a> {
    rule: Rule,
    author: &'a Author<'a>,
    policy: Policy,
    now: DateTime<Utc>,
    silenced: bool,
    states: Vec<State>,
    ends: Vec<End>,
    /// What begins to fire and is told now.
    told: Vec<Subject>,
    /// What was told to fire and is over.
    over: Vec<Subject>,
}

impl<'a> Court<'a> {
    fn new(spec: &VolumeAlertSpec, rule: Rule, author: &'a Author<'a>, now: DateTime<Utc>, silenced: bool) -> Self {
        let policy = Policy {
            limit: rule.limit(spec.clear_below),
            hold: TimeDelta::seconds(spec.for_seconds.into()),
            no_data: spec.no_data,
        };
        let (states, ends, told, over) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { rule, author, policy, now, silenced, states, ends, told, over }
    }

    fn judge_all(&mut self, open: &[&Open], findings: &[Finding]) {
        let mut new = Vec::new();
        for finding in findings {
            match open.iter().find(|open| finding.is_of(open)) {
                Some(before) => self.judge(Some(before), finding),
                None => new.push(finding),
            }
        }
        let bad = |finding: &Finding| badness(figure(finding.sample), self.policy.limit.below);
        new.sort_by(|a, b| bad(b).total_cmp(&bad(a)));
        for finding in new.into_iter().take(FOLLOWED.saturating_sub(open.len())) {
            self.judge(None, finding);
        }
    }

    fn judge(&mut self, before: Option<&Open>, finding: &Finding) {
        let open = before.map(|open| judge::Open {
            standing: open.standing,
            since: open.created_at,
            for_want_of_data: open.value.is_none(),
        });
        match (judge(open, finding.sample, &self.policy, self.now), before) {
            (None, None) => {}
            (None, Some(open)) => self.end(open, &message(self.rule, finding)),
            (Some(standing), before) => self.keep(before, finding, standing),
        }
    }

    fn end(&mut self, open: &Open, message: &str) {
        self.ends.push(end(open, message));
        if open.told_at.is_some() {
            self.over.push(over(open, message, self.now));
        }
    }

    /// Writes a state down when it is new or says something new.
    fn keep(&mut self, before: Option<&Open>, finding: &Finding, standing: Standing) {
        let says_nothing = match finding.sample {
            Sample::AtLeast(_) => !finding.sample.exceeds(&self.policy.limit),
            Sample::Missing => true,
            Sample::Exactly(_) | Sample::Gone => false,
        };
        let (value, message) = match before {
            // The last figure stays, and what was said of it.
            Some(open) if says_nothing => (open.value, open.message.clone()),
            _ => (figure(finding.sample), message(self.rule, finding)),
        };
        let tell = standing == Standing::Firing && !self.silenced && before.is_none_or(|open| open.told_at.is_none());
        let unchanged = before.is_some_and(|open| {
            open.standing == standing && open.value == value && open.message == message && self.knows(open)
        });
        if unchanged && !tell {
            return;
        }
        if tell {
            self.told.push(Subject {
                node: finding.node.clone(),
                volume: finding.volume.clone(),
                value,
                threshold: self.author.threshold,
                message: message.clone(),
                since: before.and_then(|open| open.fired_at).unwrap_or(self.now),
                resolved_at: None,
            });
        }
        self.states.push(State {
            subject: finding.subject.clone(),
            volume_id: finding.volume_id,
            standing,
            value,
            message,
            told: tell,
            seen: before.map(|open| open.updated_at),
        });
    }

    /// Whether the row has what the spec says now.
    fn knows(&self, open: &Open) -> bool {
        (open.threshold - self.author.threshold).abs() < f64::EPSILON && open.receivers == self.author.receivers
    }
}

/// What still fires, for receivers that want to hear of it again.
fn reminders(
    author: &Author<'_>,
    evaluation: &Evaluation,
    stays: &[&Open],
    ends: &[End],
) -> Vec<(Receiver, Notification)> {
    let is_over = |open: &Open| ends.iter().any(|end| end.id == open.id);
    let still = stays.iter().filter(|open| open.told_at.is_some() && !is_over(open));
    let mut still: Vec<Subject> = still.map(|open| subject(open)).collect();
    if still.is_empty() {
        return Vec::new();
    }
    worst_first(&mut still, author.rule);
    let due = author.receivers.iter().filter_map(|receiver| {
        let due = reminder_due(receiver, &evaluation.open, &evaluation.last_told)?;
        (evaluation.now >= due.at).then_some((receiver, due.last))
    });
    due.map(|(receiver, last)| (receiver.clone(), tell::reminder(author, receiver, &still, last, evaluation.now)))
        .collect()
}

struct Due {
    last: DateTime<Utc>,
    at: DateTime<Utc>,
}

/// When a receiver is to hear again of what fires. One that never did (it is new, or that is long ago) counts from when the first was told.
fn reminder_due(receiver: &Receiver, open: &[Open], last_told: &[(String, DateTime<Utc>)]) -> Option<Due> {
    let every = TimeDelta::seconds(receiver.repeat_every_seconds?.into());
    let last = last_told.iter().find(|(name, _)| *name == receiver.name).map(|(_, last)| *last);
    let last = last.or_else(|| open.iter().filter_map(|open| open.told_at).min())?;
    Some(Due { last, at: last + every })
}

/// An open state as people are told of it.
pub fn subject(open: &Open) -> Subject {
    let (node, volume) = match &open.volume {
        Some((node, name)) => (Some(node.clone()), Some(name.clone())),
        None if open.subject.is_empty() => (None, None),
        None => match open.subject.split_once('/').filter(|_| open.scope == Scope::Volume) {
            Some((node, name)) => (Some(node.to_owned()), Some(name.to_owned())),
            None => (Some(open.subject.clone()), None),
        },
    };
    Subject {
        node,
        volume,
        value: open.value,
        threshold: open.threshold,
        message: open.message.clone(),
        since: open.fired_at.unwrap_or(open.created_at),
        resolved_at: None,
    }
}

/// Sorts by how bad the figures are; those without one come last.
pub fn worst_first(subjects: &mut [Subject], rule: &str) {
    let below = rule::is_low_bad(rule);
    let bad = |subject: &Subject| badness(subject.value, below);
    subjects.sort_by(|a, b| bad(b).total_cmp(&bad(a)).then_with(|| a.name().cmp(&b.name())));
}

fn badness(value: Option<f64>, below: bool) -> f64 {
    value.map_or(f64::NEG_INFINITY, |value| if below { -value } else { value })
}

fn figure(sample: Sample) -> Option<f64> {
    match sample {
        Sample::Exactly(value) | Sample::AtLeast(value) => Some(value).filter(|value| value.is_finite()),
        Sample::Missing | Sample::Gone => None,
    }
}

fn message(rule: Rule, finding: &Finding) -> String {
    let told = match finding.sample {
        Sample::Exactly(value) if value.is_infinite() => "does not grow".to_owned(),
        Sample::Exactly(value) => rule.tell(value, false),
        Sample::AtLeast(value) => rule.tell(value, true),
        Sample::Missing => "no figure from the last run".to_owned(),
        Sample::Gone => return finding.remark.clone().unwrap_or_default(),
    };
    match &finding.remark {
        Some(remark) => format!("{told}; {remark}"),
        None => told,
    }
}

/// When the next state changes by time alone: what is pending fires, a receiver is to be told again.
pub fn next_change(
    spec: &VolumeAlertSpec,
    open: &[Open],
    last_told: &[(String, DateTime<Utc>)],
) -> Option<DateTime<Utc>> {
    let hold = TimeDelta::seconds(spec.for_seconds.into());
    let pending = open.iter().filter(|open| open.standing == Standing::Pending);
    let fires = pending.map(|open| open.created_at + hold);
    let firing = open.iter().any(|open| open.told_at.is_some());
    let receivers = spec.receivers();
    let reminds = receivers.iter().filter(|_| firing).filter_map(|receiver| reminder_due(receiver, open, last_told));
    fires.chain(reminds.map(|due| due.at)).min()
}
