//! The VolumeAlert reconciler: observe, plan, apply, publish.

pub mod apply;
mod conditions;
mod database;
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
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};

use observe::{Observed, Read};
use plan::{next_change, plan};
use status::Judged;
use tell::Author;

use super::context::Context;
use super::pass;
use super::unreadable;
use crate::crd::conditions::reason;
use crate::crd::{AlertState, VolumeAlert, VolumeAlertSpec, VolumeScan};
use crate::domain::alert::Standing;
use crate::domain::alert::judge::Sample;
use crate::domain::alert::notification::{Channel, Receiver, Subject};
use crate::domain::alert::rule::Rule;
use crate::domain::selector::VolumeMatcher;

/// While the database is away; its return wakes every alert anyway.
const WHILE_AWAY: Duration = Duration::from_secs(30);
/// At rest, against whatever no watch told of.
const AT_REST: Duration = Duration::from_secs(300);
/// After another process has judged the same alert.
const AFTER_A_RACE: Duration = Duration::from_secs(1);

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
    let author = Author::new(&name, &uid, &alert.spec, rule, &receivers);
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
        let (mut observed, problem) = tokio::join!(observing, self.context().notifier.check(self.author.receivers));
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
