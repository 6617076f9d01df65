//! The VolumeAlert reconciler: observe, plan, apply, publish.

pub mod apply;
mod conditions;
mod findings;
pub mod observe;
pub mod outage;
pub mod plan;
pub mod publish;
pub mod status;
pub mod sweep;
pub mod tell;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};

use observe::{Observed, Read};
use outage::Outage;
use plan::{Evaluation, next_change, plan};
use status::Judged;
use tell::Author;

use super::context::Context;
use super::health::DatabaseHealth;
use super::notify::Problem;
use super::pass;
use super::unreadable;
use crate::crd::conditions::reason;
use crate::crd::{AlertState, VolumeAlert, VolumeAlertSpec, VolumeScan};
use crate::domain::alert::judge::Sample;
use crate::domain::alert::notification::{Channel, Receiver, Subject};
use crate::domain::alert::rule::Rule;
use crate::domain::alert::{Scope, Standing};
use crate::domain::selector::VolumeMatcher;
use crate::store;

/// While the database is away; its return wakes every alert anyway.
const WHILE_AWAY: Duration = Duration::from_secs(30);
/// At rest, against whatever no watch told of.
const AT_REST: Duration = Duration::from_secs(300);
/// After another process has judged the same alert.
const AFTER_A_RACE: Duration = Duration::from_secs(1);
/// Of what is read beside the figures.
const SMALL_READ_DEADLINE: Duration = Duration::from_secs(2);
const CHECK_DEADLINE: Duration = Duration::from_secs(2);
/// Until the database was probed for the first time.
const UNTIL_PROBED: Duration = Duration::from_secs(1);

/// What every pass shares.
pub struct Shared {
    /// What it shares with the passes of scans.
    pub context: Arc<Context>,
    /// Every VolumeScan.
    pub scans: Store<DeserializeGuard<VolumeScan>>,
}

/// A pass over an alert failed.
pub type Error = pass::Error<apply::Error>;

/// A spec that the schema lets pass but nothing can be done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Condition reason.
    pub reason: &'static str,
    /// Names the field.
    pub message: String,
}

/// One pass over one alert, or over what is no alert of this version.
pub async fn reconcile_any(alert: Arc<DeserializeGuard<VolumeAlert>>, shared: Arc<Shared>) -> Result<Action, Error> {
    match &alert.0 {
        Ok(alert) => reconcile(Arc::new(alert.clone()), &shared).await,
        Err(invalid) => {
            unreadable::tell::<VolumeAlert>(&shared.context, invalid, None::<AlertState>).await?;
            Ok(Action::requeue(AT_REST))
        }
    }
}

/// One pass over one alert.
pub async fn reconcile(alert: Arc<VolumeAlert>, shared: &Shared) -> Result<Action, Error> {
    if alert.meta().deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let alert = shared.context.with_own_status(alert);
    let receivers = alert.spec.receivers();
    let (rule, matcher) = match usable(&alert.spec) {
        Ok(usable) => usable,
        Err(invalid) => {
            publish::publish(&shared.context, &alert, &Judged::invalid(invalid)).await?;
            return Ok(Action::requeue(AT_REST));
        }
    };
    let uid = alert.uid().unwrap_or_default();
    let name = alert.name_any();
    let author = Author {
        name: &name,
        uid: &uid,
        rule: rule.name(),
        threshold: rule.threshold(),
        scope: alert.spec.scope,
        severity: alert.spec.severity,
        receivers: &receivers,
    };
    let pass = Pass { shared, alert: &alert, rule, author };
    if rule == Rule::DatabaseDown { pass.judge_database().await } else { pass.judge_results(matcher.as_ref()).await }
}

/// The rule, and the selector ready to match.
fn usable(spec: &VolumeAlertSpec) -> Result<(Rule, Option<VolumeMatcher>), Invalid> {
    let rule =
        spec.rule.rule().map_err(|error| Invalid { reason: reason::INVALID_SPEC, message: error.to_string() })?;
    let matcher = spec.volume_selector.as_ref().map(VolumeMatcher::new).transpose();
    let matcher = matcher.map_err(|error| Invalid { reason: reason::INVALID_SELECTOR, message: error.to_string() })?;
    Ok((rule, matcher))
}

struct Pass<'a> {
    shared: &'a Shared,
    alert: &'a VolumeAlert,
    rule: Rule,
    author: Author<'a>,
}

impl Pass<'_> {
    fn spec(&self) -> &VolumeAlertSpec {
        &self.alert.spec
    }

    fn context(&self) -> &Context {
        &self.shared.context
    }

    fn is_silenced(&self, now: DateTime<Utc>) -> bool {
        self.silence_ends().is_some_and(|until| until > now)
    }

    /// Holds what scans found against the rule.
    async fn judge_results(&self, matcher: Option<&VolumeMatcher>) -> Result<Action, Error> {
        let observing = observe::observe(self.shared, self.alert, self.rule, matcher);
        let (mut observed, problem) = tokio::join!(observing, self.check());
        let clock =
            observed.read.as_ref().map_or_else(|| outage::from_kubernetes(observed.now), |read| read.evaluation.now);
        let silenced = self.is_silenced(clock);
        // The rule was `databaseDown` before.
        let outage = self.alert.status.as_ref().and_then(outage::before);
        if let Some(outage) = outage.filter(|outage| outage.standing == Standing::Firing) {
            self.end_outage(outage, &observed.database, observed.now).await?;
        }
        let mut applied: Result<bool, apply::Error> = Ok(true);
        if let Some(read) = observed.read.as_mut() {
            let plan = plan(self.spec(), self.rule, &self.author, &read.evaluation, silenced);
            if !plan.is_empty() {
                match apply::apply(self.context(), &self.author, &plan, read.evaluation.now).await {
                    Ok(Some(open)) => read.evaluation.open = open,
                    Ok(None) => applied = Ok(false),
                    Err(error) => applied = Err(error),
                }
            }
        }
        if let Err(error) = &applied {
            // A database that answers and refuses a write: the status says so, for all that the probe found.
            observed.refused_by(&error.0);
        }
        if let Some(read) = &observed.read {
            self.keep_telling(read);
        }
        let judged = Judged::results(&observed, problem, silenced);
        let held_back = publish::publish(self.context(), self.alert, &judged).await?;
        if !applied.map_err(Error::Apply)? {
            return Ok(Action::requeue(AFTER_A_RACE));
        }
        let next = self.next_pass(&observed);
        Ok(Action::requeue(held_back.map_or(next, |left| next.min(left))))
    }

    /// What is wrong with a receiver; one that takes long to find out must not keep the status from being written.
    async fn check(&self) -> Option<Problem> {
        let check = self.context().notifier.check(self.author.receivers);
        let late = || Problem {
            reason: reason::RECEIVERS_NOT_CHECKED,
            message: format!("no answer within {CHECK_DEADLINE:?}"),
        };
        tokio::time::timeout(CHECK_DEADLINE, check).await.unwrap_or_else(|_| Some(late()))
    }

    /// Alertmanager forgets what it is not told again; a silence changes nothing for what it was told before.
    fn keep_telling(&self, read: &Read) {
        let told = read.evaluation.open.iter().filter(|open| open.told_at.is_some());
        let subjects: Vec<Subject> = told.map(plan::subject).collect();
        self.keep_telling_of(&subjects, read.evaluation.now);
    }

    fn keep_telling_of(&self, subjects: &[Subject], now: DateTime<Utc>) {
        let alertmanagers: Vec<Receiver> = self
            .author
            .receivers
            .iter()
            .filter(|receiver| receiver.channel == Channel::Alertmanager)
            .cloned()
            .collect();
        let firing = alertmanagers
            .first()
            .map(|receiver| tell::still_firing(&self.author, receiver, subjects, now))
            .unwrap_or_default();
        self.context().notifier.keep_telling(self.author.uid, alertmanagers, firing);
    }

    /// Holds the database itself against the rule.
    async fn judge_database(&self) -> Result<Action, Error> {
        let now = Timestamp::now();
        let health = self.context().health();
        let silenced = self.is_silenced(outage::from_kubernetes(now));
        let verdict = outage::verdict(self.spec(), self.alert.status.as_ref(), &health, now);
        let ended = if health.problem.is_none() { self.end_others().await } else { Ok(()) };
        if let Some(over) = verdict.over {
            self.end_outage(over, &health, now).await?;
        }
        self.tell_outage(verdict.outage, &health, now, silenced);
        let (problem, deliveries) = tokio::join!(self.check(), self.deliveries());
        let apart = self.context().notifier.apart(self.author.uid);
        let judged = Judged::database(verdict, &health, now, (apart, deliveries), problem, silenced);
        let held_back = publish::publish(self.context(), self.alert, &judged).await?;
        ended?;
        let unknown = (!health.is_known).then_some(UNTIL_PROBED);
        let waits = [held_back, unknown, self.until_outage_changes(&judged, now)];
        Ok(Action::requeue(waits.into_iter().flatten().fold(WHILE_AWAY, Duration::min)))
    }

    /// Tells only what the status says already: ids are made of the time at which it began, which must outlive this process.
    fn tell_outage(&self, outage: Option<Outage>, health: &DatabaseHealth, now: Timestamp, silenced: bool) {
        let published = self.alert.status.as_ref().and_then(outage::before);
        let firing = outage.filter(|outage| outage.standing == Standing::Firing && published == Some(*outage));
        if let Some(outage) = firing.filter(|_| !silenced) {
            for (receiver, notification) in outage::firing(&self.author, outage, health, now) {
                self.context().notifier.tell_apart(receiver, notification);
            }
            self.context().outages.set(&self.author, Some(outage));
        } else if firing.is_none() {
            self.context().outages.set(&self.author, None);
        }
        // A silence changes nothing for what was told before.
        let told = firing.filter(|_| self.context().outages.has(self.author.uid));
        let subjects: Vec<Subject> = told.map(|outage| outage::subject(outage, health)).into_iter().collect();
        self.keep_telling_of(&subjects, outage::from_kubernetes(now));
    }

    /// The rule was another before: what is open by that is over.
    async fn end_others(&self) -> Result<(), Error> {
        let uid = self.author.uid;
        let read = self.context().store.run("read the states of an alert", SMALL_READ_DEADLINE, async |conn| {
            let open = store::alerts::open(conn, uid).await?;
            let now = store::samples::now(conn).await?;
            Ok(Evaluation { now, open, findings: Vec::new(), last_told: Vec::new() })
        });
        let evaluation = read.await.map_err(apply::Error::from).map_err(Error::Apply)?;
        let plan = plan(self.spec(), self.rule, &self.author, &evaluation, true);
        if !plan.is_empty() {
            apply::apply(self.context(), &self.author, &plan, evaluation.now).await.map_err(Error::Apply)?;
        }
        Ok(())
    }

    /// What was told must be taken back, by the outbox: the database is there again.
    async fn end_outage(&self, over: Outage, health: &DatabaseHealth, now: Timestamp) -> Result<(), Error> {
        // The rule may be another by now.
        let author = Author { rule: Rule::DatabaseDown.name(), threshold: 0.0, scope: Scope::Cluster, ..self.author };
        let status = self.alert.status.as_ref();
        let apart = self.context().notifier.apart(author.uid);
        let last = status
            .and_then(|status| status.last_notification_time.as_ref())
            .map(|last| outage::from_kubernetes(last.0));
        let was_told = last.max(apart.delivered_at).is_some_and(|last| last >= over.since);
        let mut tell = Vec::new();
        // It may have been told by a process that did not live to say so: that it fires has the same id.
        if apart.open > 0 || status.is_some_and(|status| status.state == Some(AlertState::Firing)) {
            tell.extend(outage::firing(&author, over, health, now));
        }
        if was_told || !tell.is_empty() {
            let suspended = self.spec().suspend && health.problem.is_some();
            let message = if suspended { "the alert was suspended" } else { "the database can be used again" };
            tell.extend(outage::over(&author, over, message, now));
        }
        if health.problem.is_none() {
            apply::note_outage(self.context(), &author, over.since, &tell).await.map_err(Error::Apply)?;
            self.context().notifier.withdraw(self.author.uid);
        } else {
            // Suspended while the database is away.
            for (receiver, notification) in tell {
                self.context().notifier.tell_apart(receiver, notification);
            }
        }
        Ok(())
    }

    async fn deliveries(&self) -> Option<store::notifications::Summary> {
        if self.context().health().problem.is_some() {
            return None;
        }
        let uid = self.author.uid;
        let names: Vec<&str> = self.author.receivers.iter().map(|receiver| receiver.name.as_str()).collect();
        let read = self.context().store.run("read what an alert told", SMALL_READ_DEADLINE, async |conn| {
            store::notifications::summary(conn, uid, &names).await
        });
        read.await.inspect_err(|error| tracing::warn!(alert.name = self.author.name, "{error}")).ok()
    }

    fn until_outage_changes(&self, judged: &Judged, now: Timestamp) -> Option<Duration> {
        let hold = TimeDelta::seconds(self.spec().for_seconds.into());
        let at = judged.pending_since().map(|since| since + hold);
        until([at, self.silence_ends()].into_iter().flatten(), outage::from_kubernetes(now))
    }

    fn silence_ends(&self) -> Option<DateTime<Utc>> {
        self.spec().silence_until.as_ref().map(|until| outage::from_kubernetes(until.0))
    }

    fn next_pass(&self, observed: &Observed) -> Duration {
        let Some(read) = &observed.read else { return WHILE_AWAY.mul_f64(rand::random_range(0.8..=1.2)) };
        let evaluation = &read.evaluation;
        let change = next_change(self.spec(), &evaluation.open, &evaluation.last_told);
        let aged = match self.rule {
            Rule::ScanOlderThan { seconds } => {
                let ages = evaluation.findings.iter().filter_map(|finding| match finding.sample {
                    Sample::Exactly(age) if age <= f64::from(seconds) => Some(age),
                    _ => None,
                });
                #[expect(clippy::cast_possible_truncation, reason = "an age within the limit, which is an i32")]
                ages.map(|age| evaluation.now + TimeDelta::seconds(i64::from(seconds) - age as i64 + 1)).min()
            }
            _ => None,
        };
        let wait = AT_REST.mul_f64(rand::random_range(0.8..=1.2));
        let times = [change, aged, self.silence_ends()].into_iter().flatten();
        until(times, evaluation.now).map_or(wait, |until| until.min(wait))
    }
}

/// How long until the first of these times that is still to come; a moment later, so that it has come by then.
fn until(times: impl Iterator<Item = DateTime<Utc>>, now: DateTime<Utc>) -> Option<Duration> {
    let left = times.filter_map(|at| (at - now).to_std().ok()).filter(|left| !left.is_zero()).min()?;
    Some(left + Duration::from_millis(10))
}
