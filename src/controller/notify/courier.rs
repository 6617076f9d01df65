//! Takes one notification to one receiver, once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use kube::Client;
use tokio::time::{Instant, timeout};

use super::guard::{self, Endpoint, Target};
use super::metrics::Metrics;
use super::repeats::Kept;
use super::secret::{self, Destination, Invalid, Kind};
use super::{Identity, Settings, alertmanager, event, post, sample, webhook};
use crate::domain::alert::notification::{Channel, Notification, Occasion, Receiver};

/// Reading the Secret, looking the address up, and the POST, in all.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// The way to receivers.
pub(super) struct Courier {
    client: Client,
    identity: Identity,
    alertmanager: Option<Target>,
    allowed: Vec<Endpoint>,
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
    /// A template cannot be filled in with this notification.
    #[error(transparent)]
    Template(secret::Error),
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
}

impl Failure {
    /// Whether another try would end the same way. A Secret may be mended, a receiver may change its mind; a template was tried before.
    pub(super) const fn is_permanent(&self) -> bool {
        matches!(self, Self::Template(_))
    }

    /// Why an alert with this receiver is not ready; `None`: what its spec names is well, or may be in a moment.
    const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Destination(error) | Self::Template(error) => match &error.kind {
                Kind::Missing => Some("SecretMissing"),
                Kind::NotLabelled => Some("SecretNotLabelled"),
                Kind::Unreadable(_) => Some("SecretUnreadable"),
                Kind::Invalid(_, Invalid::Url(guard::Problem::Unresolved)) => None,
                Kind::Invalid(_, Invalid::Url(guard::Problem::Refused(_) | guard::Problem::NotAllowed)) => {
                    Some("ReceiverRefused")
                }
                Kind::Invalid(..) => Some("SecretInvalid"),
            },
            Self::NotConfigured => Some("ReceiverNotConfigured"),
            Self::Post(_) | Self::Event(_) | Self::Late => None,
        }
    }
}

/// What makes a VolumeAlert not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `SecretMissing`, `SecretNotLabelled`, `SecretUnreadable`, `SecretInvalid`, `ReceiverRefused` or `ReceiverNotConfigured`.
    pub reason: &'static str,
    /// For people; names the receiver.
    pub message: String,
}

impl Courier {
    pub(super) fn new(client: Client, identity: Identity, settings: Settings, metrics: Metrics) -> Self {
        let Settings { alertmanager_url: alertmanager, notify_allow: mut allowed } = settings;
        allowed.extend(alertmanager.as_ref().map(|target| target.endpoint().clone()));
        Self { client, identity, alertmanager, allowed, metrics, kept: Kept::default(), turns: Mutex::default() }
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
        let told = filled_in(receiver, &destination, notification)?;
        post::send(told, &self.allowed).await.map_err(|problem| match problem {
            post::Problem::Guard(problem) => Failure::Destination(destination.misleads(problem)),
            problem => Failure::Post(problem),
        })
    }

    async fn destination(&self, receiver: &Receiver) -> Result<Destination, Failure> {
        match (&receiver.secret_name, &self.alertmanager) {
            (Some(name), _) => Ok(secret::read(&self.client, &self.identity.namespace, name).await?),
            (None, Some(target)) if receiver.channel == Channel::Alertmanager => {
                Ok(Destination::installed(target.clone()))
            }
            (None, _) => Err(Failure::NotConfigured),
        }
    }

    /// What is wrong with the first of these receivers that cannot be told anything, as far as can be known without telling it.
    pub(super) async fn check(&self, receivers: &[Receiver]) -> Option<Problem> {
        let tried = join_all(receivers.iter().map(|receiver| self.try_out(receiver))).await;
        receivers.iter().zip(tried).find_map(|(receiver, tried)| {
            let failure = tried.err()?;
            let message = format!("spec.notify[{}]: {failure}", receiver.name);
            Some(Problem { reason: failure.reason()?, message })
        })
    }

    async fn try_out(&self, receiver: &Receiver) -> Result<(), Failure> {
        if receiver.channel == Channel::Event {
            return Ok(());
        }
        let destination = self.destination(receiver).await?;
        for example in [sample::full(), sample::bare()] {
            filled_in(receiver, &destination, &example)?;
        }
        let found = timeout(LOOKUP_TIMEOUT, destination.target.addresses(&self.allowed)).await;
        match found.unwrap_or(Err(guard::Problem::Unresolved)) {
            Ok(_) => Ok(()),
            Err(problem) => Err(destination.misleads(problem).into()),
        }
    }
}

/// What is posted to tell this.
fn filled_in(
    receiver: &Receiver,
    destination: &Destination,
    notification: &Notification,
) -> Result<post::Post, Failure> {
    let made = if receiver.channel == Channel::Alertmanager {
        alertmanager::post(destination, notification, Utc::now())
    } else {
        webhook::post(destination, notification)
    };
    made.map_err(|error| match error.kind {
        Kind::Invalid(_, Invalid::Template(_)) => Failure::Template(error),
        _ => Failure::Destination(error),
    })
}
