//! One pass over an alert on the database itself (`databaseDown`).

use std::time::Duration;

use chrono::TimeDelta;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;

use super::outage::{self, Outage};
use super::plan::{Evaluation, plan};
use super::status::Judged;
use super::{Error, Pass, WHILE_AWAY, apply, publish, until};
use crate::controller::health::DatabaseHealth;
use crate::crd::AlertState;
use crate::domain::alert::Standing;
use crate::domain::alert::notification::Subject;
use crate::store;

/// Of what is read: what matters is in the status.
const READ_DEADLINE: Duration = Duration::from_secs(2);

impl Pass<'_> {
    /// Holds the database itself against the rule.
    pub(super) async fn judge_database(&self) -> Result<Action, Error> {
        let now = Timestamp::now();
        let health = self.context().health();
        let silenced = self.is_silenced(outage::from_kubernetes(now));
        let verdict = outage::verdict(self.spec(), self.alert.status.as_ref(), &health, now);
        let ended = if health.problem.is_none() { self.end_others().await } else { Ok(()) };
        if let Some(over) = verdict.over {
            self.end_outage(over, &health, now).await?;
        }
        self.tell_outage(verdict.outage, &health, now, silenced);
        let (problem, deliveries) =
            tokio::join!(self.context().notifier.check(self.author.receivers), self.deliveries());
        let apart = self.context().notifier.apart(self.author.uid);
        let judged = Judged::database(verdict, &health, now, (apart, deliveries), problem, silenced);
        let held_back = publish::publish(self.context(), self.alert, &judged).await?;
        ended?;
        let waits = [held_back, self.until_outage_changes(&judged, now)];
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
        let read = self.context().store.run("read the states of an alert", READ_DEADLINE, async |conn| {
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
    pub(super) async fn end_outage(&self, over: Outage, health: &DatabaseHealth, now: Timestamp) -> Result<(), Error> {
        // The rule may be another by now.
        let author = self.author.of_outage();
        let status = self.alert.status.as_ref();
        let apart = self.context().notifier.apart(author.uid);
        let last = status
            .and_then(|status| status.last_notification_time.as_ref())
            .map(|last| outage::from_kubernetes(last.0));
        let was_told = last.max(apart.delivered_at).is_some_and(|last| last >= over.since);
        let mut tell = Vec::new();
        // It may have been told by a process that did not live to say so: that it fires has the same id.
        if apart.open > 0 || status.is_some_and(|status| status.state == Some(AlertState::Firing)) {
            let firing = outage::firing(&author, over, health, now).into_iter();
            let notifier = &self.context().notifier;
            tell.extend(firing.filter(|(receiver, notification)| !notifier.was_told_apart(receiver, notification)));
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
        let read = self.context().store.run("read what an alert told", READ_DEADLINE, async |conn| {
            store::notifications::summary(conn, uid, &names).await
        });
        read.await.inspect_err(|error| tracing::warn!(alert.name = self.author.name, "{error}")).ok()
    }

    fn until_outage_changes(&self, judged: &Judged, now: Timestamp) -> Option<Duration> {
        let hold = TimeDelta::seconds(self.spec().for_seconds.into());
        let at = judged.pending_since().map(|since| since + hold);
        until([at, self.silence_ends()].into_iter().flatten(), outage::from_kubernetes(now))
    }
}
