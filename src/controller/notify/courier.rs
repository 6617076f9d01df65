//! Takes one notification to one receiver, once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use kube::Client;
use tokio::time::{Instant, timeout};

use super::filler::Filler;
use super::guard::{self, Endpoint, Target};
use super::metrics::Metrics;
use super::repeats::Kept;
use super::secret::{self, Destination, Invalid, Kind};
use super::{Identity, Settings, alertmanager, event, post, webhook};
use crate::crd::conditions::reason;
use crate::domain::alert::notification::{Channel, Notification, Occasion, Receiver};

/// Reading the Secret, looking the address up, and the POST, in all.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Of finding out about one receiver without telling it: one that takes longer must not keep a status from being written.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to receivers.
pub(super) struct Courier {
    client: Client,
    identity: Identity,
    alertmanager: Option<Target>,
    allowed: Vec<Endpoint>,
    filler: Arc<Filler>,
    metrics: Metrics,
    /// What Alertmanager is told again.
    pub(super) kept: Kept,
    turns: Mutex<Turns>,
}

/// Who has the turn, by uid of the alert and name of the receiver.
type Turns = HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>;

/// Why a receiver was not told.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What it names cannot be used.
    #[error(transparent)]
    Destination(#[from] secret::Error),
    /// There is no such Alertmanager.
    #[error(
        "there is no secretName, and this installation has no Alertmanager of its own (alerts.alertmanagerUrl of the chart)"
    )]
    NotConfigured,
    /// The POST failed.
    #[error(transparent)]
    Post(#[from] post::Problem),
    /// The API server takes no Event.
    #[error("unable to write the Event: {0}")]
    Event(#[source] Box<kube::Error>),
    /// It took too long.
    #[error("the receiver was not told within {DEADLINE:?}")]
    Late,
    /// It took too long to find out.
    #[error("it took longer than {CHECK_DEADLINE:?} to find out whether it can be told")]
    NotChecked,
}

impl Failure {
    /// The same for a status that has several receivers.
    pub(super) fn of(&self, receiver: &Receiver) -> String {
        format!("spec.notify[{}]: {self}", receiver.name)
    }

    /// Why an alert with this receiver is not ready; `None`: what its spec names is well, or may be in a moment.
    const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Destination(error) => match &error.kind {
                Kind::Missing => Some(reason::SECRET_MISSING),
                Kind::NotLabelled => Some(reason::SECRET_NOT_LABELLED),
                Kind::Unreadable(_) => Some(reason::SECRET_UNREADABLE),
                Kind::Invalid(_, Invalid::Url(guard::Problem::Unresolved)) => None,
                Kind::Invalid(_, Invalid::Url(guard::Problem::Refused(_) | guard::Problem::NotAllowed)) => {
                    Some(reason::RECEIVER_REFUSED)
                }
                Kind::Late(_) => Some(reason::RECEIVERS_NOT_CHECKED),
                Kind::NotFilledIn(fault) if !fault.is_of_the_templates() => Some(reason::RECEIVERS_NOT_CHECKED),
                Kind::Invalid(..) | Kind::NotFilledIn(_) => Some(reason::SECRET_INVALID),
            },
            Self::NotConfigured => Some(reason::RECEIVER_NOT_CONFIGURED),
            Self::NotChecked => Some(reason::RECEIVERS_NOT_CHECKED),
            Self::Post(_) | Self::Event(_) | Self::Late => None,
        }
    }
}

/// What makes a VolumeAlert not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// One of [`reason`]: of the first receiver.
    pub reason: &'static str,
    /// For people; names each receiver that cannot be told.
    pub message: String,
}

impl Problem {
    /// Of several receivers. What users can mend is not told anew because another receiver was slow this time.
    fn of(problems: impl Iterator<Item = (&'static str, String)>) -> Option<Self> {
        let (late, wrong): (Vec<_>, Vec<_>) =
            problems.partition(|(reason, _)| *reason == reason::RECEIVERS_NOT_CHECKED);
        let told = if wrong.is_empty() { late } else { wrong };
        let (reasons, messages): (Vec<_>, Vec<_>) = told.into_iter().unzip();
        Some(Self { reason: reasons.first()?, message: messages.join("; ") })
    }
}

impl Courier {
    pub(super) fn new(
        client: Client,
        identity: Identity,
        settings: Settings,
        filler: Filler,
        metrics: Metrics,
    ) -> Self {
        let Settings { alertmanager_url: alertmanager, notify_allow: mut allowed } = settings;
        allowed.extend(alertmanager.as_ref().map(|target| target.endpoint().clone()));
        let (filler, kept, turns) = (Arc::new(filler), Kept::default(), Mutex::default());
        Self { client, identity, alertmanager, allowed, filler, metrics, kept, turns }
    }

    /// Tells a receiver. One Alertmanager is told of an alert by one at a time, so that what is told again never overtakes its end.
    pub(super) async fn deliver(&self, receiver: &Receiver, notification: &Notification) -> Result<(), Failure> {
        if receiver.channel != Channel::Alertmanager {
            return self.tell(receiver, notification).await;
        }
        let turn = self.turn(&notification.alert_uid, &receiver.name);
        let _turn = turn.lock().await;
        if notification.event == Occasion::Resolved {
            self.kept.strike(notification);
        }
        self.tell(receiver, notification).await
    }

    /// Tells an Alertmanager again what still fires.
    pub(super) async fn repeat(&self, receiver: &Receiver, alert_uid: &str) -> Result<(), Failure> {
        let turn = self.turn(alert_uid, &receiver.name);
        let _turn = turn.lock().await;
        // As of now: its end may have been told while this waited.
        for notification in self.kept.firing(alert_uid) {
            self.tell(receiver, &notification).await?;
        }
        Ok(())
    }

    /// Says that a notification will not be told.
    pub(super) fn gave_up(&self, alert: &str, receiver: Option<&Receiver>, why: &dyn std::fmt::Display) {
        let name = receiver.map_or("", |receiver| receiver.name.as_str());
        tracing::warn!(alert.name = alert, receiver.name = name, "gave a notification up: {why}");
        self.metrics.gave_up(receiver.map(|receiver| receiver.channel));
    }

    /// Forgets the turns of alerts that are gone.
    pub(super) fn forget(&self, live_uids: &[String]) {
        self.turns().retain(|(uid, _), turn| live_uids.contains(uid) || Arc::strong_count(turn) > 1);
    }

    fn turn(&self, alert_uid: &str, receiver: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.turns().entry((alert_uid.to_owned(), receiver.to_owned())).or_default())
    }

    fn turns(&self) -> std::sync::MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn tell(&self, receiver: &Receiver, notification: &Notification) -> Result<(), Failure> {
        let started = Instant::now();
        let told = timeout(DEADLINE, self.try_to_tell(receiver, notification)).await.unwrap_or(Err(Failure::Late));
        self.metrics.tried(receiver.channel, told.is_ok(), started.elapsed());
        told
    }

    async fn try_to_tell(&self, receiver: &Receiver, notification: &Notification) -> Result<(), Failure> {
        if receiver.channel == Channel::Event {
            let written = event::write(&self.client, &self.identity.pod_name, notification).await;
            return written.map_err(|error| Failure::Event(Box::new(error)));
        }
        let destination = self.destination(receiver).await?;
        let told = self.filled_in(receiver, &destination, notification).await?;
        post::send(told, &self.allowed).await.map_err(|problem| match problem {
            post::Problem::Guard(problem) => Failure::Destination(destination.misleads(problem)),
            problem => Failure::Post(problem),
        })
    }

    async fn destination(&self, receiver: &Receiver) -> Result<Destination, Failure> {
        let destination = match (&receiver.secret_name, &self.alertmanager) {
            (Some(name), _) => secret::read(&self.client, &self.identity.namespace, name).await?,
            (None, Some(target)) if receiver.channel == Channel::Alertmanager => Destination::installed(target.clone()),
            (None, _) => return Err(Failure::NotConfigured),
        };
        if receiver.channel == Channel::Alertmanager {
            alertmanager::check(&destination)?;
        }
        Ok(destination)
    }

    /// What is posted to tell this.
    async fn filled_in(
        &self,
        receiver: &Receiver,
        destination: &Destination,
        notification: &Notification,
    ) -> Result<post::Post, Failure> {
        let filled = self.filler.fill_in(&destination.templates, notification).await;
        let filled = filled.map_err(|problem| destination.not_filled_in(problem))?;
        let made = if receiver.channel == Channel::Alertmanager {
            alertmanager::post(destination, notification, &filled, Utc::now())
        } else {
            webhook::post(destination, notification, filled)
        };
        Ok(made?)
    }

    /// What is wrong with those of these receivers that cannot be told anything, as far as can be known without telling them.
    pub(super) async fn check(&self, receivers: &[Receiver]) -> Option<Problem> {
        let tried = join_all(receivers.iter().map(async |receiver| {
            timeout(CHECK_DEADLINE, self.try_out(receiver)).await.unwrap_or(Err(Failure::NotChecked))
        }));
        let problems = receivers.iter().zip(tried.await).filter_map(|(receiver, tried)| {
            let failure = tried.err()?;
            Some((failure.reason()?, failure.of(receiver)))
        });
        Problem::of(problems)
    }

    async fn try_out(&self, receiver: &Receiver) -> Result<(), Failure> {
        if receiver.channel == Channel::Event {
            return Ok(());
        }
        let destination = self.destination(receiver).await?;
        self.filler.check(&destination.templates).await.map_err(|problem| destination.not_filled_in(problem))?;
        let found = timeout(LOOKUP_TIMEOUT, destination.target.addresses(&self.allowed)).await;
        match found.unwrap_or(Err(guard::Problem::Unresolved)) {
            Ok(_) => Ok(()),
            Err(problem) => Err(destination.misleads(problem).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::secret::Origin;
    use super::*;

    #[test]
    fn a_slow_api_server_is_nothing_that_users_can_mend() {
        let reason = |kind| Failure::from(secret::Error { origin: Origin::Installation, kind }).reason();
        assert_eq!(reason(Kind::Late(Duration::from_secs(2))), Some(reason::RECEIVERS_NOT_CHECKED));
        assert_eq!(reason(Kind::Unreadable("forbidden".to_owned())), Some(reason::SECRET_UNREADABLE));
    }

    #[test]
    fn what_users_can_mend_is_the_same_whatever_else_is_slow() {
        let late = |of: &str| (reason::RECEIVERS_NOT_CHECKED, format!("{of}: late"));
        let missing = |of: &str| (reason::SECRET_MISSING, format!("{of}: missing"));
        let problem = |problems: Vec<_>| Problem::of(problems.into_iter());
        let told = Problem { reason: reason::SECRET_MISSING, message: "b: missing; c: missing".to_owned() };
        assert_eq!(problem(vec![missing("b"), missing("c")]).as_ref(), Some(&told));
        assert_eq!(problem(vec![late("a"), missing("b"), missing("c")]), Some(told));
        assert_eq!(problem(vec![late("a")]).unwrap().reason, reason::RECEIVERS_NOT_CHECKED);
        assert_eq!(problem(vec![]), None);
    }
}
