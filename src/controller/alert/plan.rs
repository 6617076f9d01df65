//! What to do next about one VolumeAlert: a pure function of what was observed.

use chrono::{DateTime, TimeDelta, Utc};

use super::tell::{self, Author};
use crate::crd::VolumeAlertSpec;
use crate::domain::alert::judge::{self, Policy, Sample, judge};
use crate::domain::alert::notification::{Notification, Receiver, Subject};
use crate::domain::alert::rule::Rule;
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
}

/// Judges every subject, and says what follows.
pub fn plan(spec: &VolumeAlertSpec, rule: Rule, author: &Author<'_>, evaluation: &Evaluation, silenced: bool) -> Plan {
    let mut court = Court::new(spec, rule, author, evaluation.now, silenced);
    let (stays, changed): (Vec<&Open>, Vec<&Open>) = evaluation
        .open
        .iter()
        .partition(|open| (open.rule.as_str(), open.scope, open.severity) == (rule.name(), spec.scope, spec.severity));
    let mut notifications = end_changed(&mut court, &changed);
    if spec.suspend {
        for open in stays {
            court.end(open, "the alert was suspended");
        }
    } else {
        court.judge_all(&stays, &evaluation.findings);
    }
    for subjects in [&mut court.told, &mut court.over] {
        worst_first(subjects, rule);
    }
    notifications.extend(tell::notifications(author, &court.told, &court.over, evaluation.now));
    if !silenced && !spec.suspend {
        notifications.extend(reminders(rule, author, evaluation, &court.ends));
    }
    Plan { states: court.states, ends: court.ends, notifications }
}

/// Ends what was judged by another spec, and tells it as what it was: Alertmanager knows an alert by these.
fn end_changed(court: &mut Court<'_>, changed: &[&Open]) -> Vec<(Receiver, Notification)> {
    let mut notifications = Vec::new();
    let kind = |open: &Open| (open.rule.clone(), open.scope, open.severity);
    for alike in changed.chunk_by(|a, b| kind(a) == kind(b)) {
        for open in alike {
            court.end(open, "the alert's rule, scope or severity was changed");
        }
        let (over, first) = (std::mem::take(&mut court.over), alike[0]);
        let author = Author {
            rule: &first.rule,
            threshold: first.threshold,
            scope: first.scope,
            severity: first.severity,
            ..*court.author
        };
        notifications.extend(tell::notifications(&author, &[], &over, court.now));
    }
    notifications
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
        let before = |finding: &Finding| open.iter().copied().find(|open| is_of(open, finding));
        let (known, mut new): (Vec<&Finding>, Vec<&Finding>) =
            findings.iter().partition(|finding| before(finding).is_some());
        for finding in known {
            self.judge(before(finding), finding);
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
        self.ends.push(End { id: open.id, message: message.to_owned(), seen: open.updated_at });
        if open.told_at.is_some() {
            self.over.push(Subject { message: message.to_owned(), resolved_at: Some(self.now), ..subject(open) });
        }
    }

    /// Writes a state down when it is new or says something new.
    fn keep(&mut self, before: Option<&Open>, finding: &Finding, standing: Standing) {
        let says_nothing = match finding.sample {
            Sample::AtLeast(value) => !self.policy.limit.is_exceeded_by_at_least(value),
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

/// A volume that was made anew under its name is another subject.
fn is_of(open: &Open, finding: &Finding) -> bool {
    open.subject == finding.subject && open.volume_id == finding.volume_id
}

/// What still fires, for receivers that want to hear of it again.
fn reminders(rule: Rule, author: &Author<'_>, evaluation: &Evaluation, ends: &[End]) -> Vec<(Receiver, Notification)> {
    let ended: Vec<i64> = ends.iter().map(|end| end.id).collect();
    let still = evaluation.open.iter().filter(|open| open.told_at.is_some() && !ended.contains(&open.id));
    let mut still: Vec<Subject> = still.map(subject).collect();
    if still.is_empty() {
        return Vec::new();
    }
    worst_first(&mut still, rule);
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
pub fn worst_first(subjects: &mut [Subject], rule: Rule) {
    let below = rule.limit(None).below;
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
