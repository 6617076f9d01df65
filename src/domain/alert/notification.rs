//! What receivers are told: the documented JSON of webhooks, and what Events and Alertmanager's alerts are made of.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Scope, Severity};
use crate::domain::text::showable;

/// Subjects in one notification, at most.
pub const MAX_SUBJECTS: usize = 100;

/// How somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Channel {
    /// A Kubernetes Event about the VolumeAlert.
    Event,
    /// A POST of JSON to the URL in a Secret.
    Webhook,
    /// Alertmanager's API v2.
    Alertmanager,
}

impl Channel {
    /// The name in specs and rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "Event",
            Self::Webhook => "Webhook",
            Self::Alertmanager => "Alertmanager",
        }
    }
}

/// A receiver of what an alert tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, extend("x-kubernetes-validations" = [
    {"rule": "self.type != 'Webhook' || has(self.secretName)", "fieldPath": ".secretName", "message": "a Webhook needs secretName, the Secret with its url"},
    {"rule": "self.type != 'Event' || !has(self.secretName)", "fieldPath": ".secretName", "message": "an Event needs no Secret"},
    {"rule": "self.type == 'Webhook' || !has(self.repeatEverySeconds)", "fieldPath": ".repeatEverySeconds", "message": "only a Webhook is reminded; Alertmanager repeats by itself"},
    {"rule": "self.type == 'Webhook' || self.sendResolved", "fieldPath": ".sendResolved", "message": "only a Webhook can be spared the end"},
]))]
pub struct Receiver {
    /// Unique within the alert.
    #[schemars(length(min = 1, max = 63), pattern(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// How.
    #[serde(rename = "type")]
    pub channel: Channel,
    /// Name of a Secret in the operator's namespace that is labelled `volumeviz.io/notify=true`: key `url`, and optionally `ca.crt`, `headers`,
    /// `body`. Alertmanager: absent for the one of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub secret_name: Option<String>,
    /// Webhook: tells again what still fires. Absent: once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 31_536_000))]
    pub repeat_every_seconds: Option<i32>,
    /// Webhook: tells also what is over.
    #[serde(default = "yes")]
    pub send_resolved: bool,
}

const fn yes() -> bool {
    true
}

impl Receiver {
    /// Whom an alert without `notify` tells.
    pub fn event() -> Self {
        Self {
            name: "event".to_owned(),
            channel: Channel::Event,
            secret_name: None,
            repeat_every_seconds: None,
            send_resolved: true,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Occasion {
    /// It began to fire.
    Firing,
    /// It still fires.
    Reminder,
    /// It is over.
    Resolved,
}

impl Occasion {
    /// The name in rows and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "Firing",
            Self::Reminder => "Reminder",
            Self::Resolved => "Resolved",
        }
    }
}

/// One notification, the body of a webhook. Told at least once; a repetition has the same `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notification {
    /// Of this JSON: `1`. Fields are only added.
    pub version: String,
    /// The same whenever it is told again.
    pub id: Uuid,
    /// What happened.
    pub event: Occasion,
    /// Name of the VolumeAlert.
    pub alert: String,
    /// `metadata.uid` of the VolumeAlert.
    pub alert_uid: String,
    /// How much it matters.
    pub severity: Severity,
    /// The rule's name in the spec, such as `sizeAbove`.
    pub rule: String,
    /// What the subjects are.
    pub scope: Scope,
    /// What `value` and `threshold` count, such as `bytes`; empty where there is nothing to count.
    pub unit: String,
    /// One line for people; chats show it as it is.
    pub text: String,
    /// When this was decided.
    pub time: DateTime<Utc>,
    /// What it is about, worst first, at most [`MAX_SUBJECTS`].
    pub subjects: Vec<Subject>,
    /// How many more it is about.
    pub subjects_omitted: usize,
}

/// A volume, a node, or the cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Of a volume, or the node itself; absent for the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Docker's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The last figure; absent when it fires for want of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The limit.
    pub threshold: f64,
    /// For people.
    pub message: String,
    /// When it began to fire.
    pub since: DateTime<Utc>,
    /// When that was over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<DateTime<Utc>>,
}

impl Subject {
    /// `node/volume`, the node's name, or `cluster`.
    pub fn name(&self) -> String {
        match (&self.node, &self.volume) {
            (Some(node), Some(volume)) => format!("{node}/{volume}"),
            (Some(node), None) => node.clone(),
            (None, _) => "cluster".to_owned(),
        }
    }
}

/// The one line for people, which nothing in a name breaks: `[Warning] big-volumes: node-1/shop-db: 48.0 MiB, limit 40.0 MiB; and 2 more`.
pub fn text(severity: Severity, alert: &str, occasion: Occasion, subjects: &[Subject]) -> String {
    let what = match occasion {
        Occasion::Firing => "",
        Occasion::Reminder => "still: ",
        Occasion::Resolved => "resolved: ",
    };
    let first = subjects.first().map_or_else(String::new, |subject| format!("{}: {}", subject.name(), subject.message));
    let more = match subjects.len() {
        0 | 1 => String::new(),
        all => format!("; and {} more", all - 1),
    };
    showable(&format!("[{}] {alert}: {what}{first}{more}", severity.as_str()))
}
