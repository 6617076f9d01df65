//! Kubernetes Events about the VolumeAlert. Their name derives from the notification, so that one that is there already was told.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::domain::alert::notification::{Notification, Occasion};
use crate::domain::text::{bounded, showable};

/// Events about objects without a namespace live here.
const NAMESPACE: &str = "default";
/// What Events carry, in bytes.
const MAX_NOTE: usize = 1024;

/// Writes the Event in the name of this pod.
pub(super) async fn write(client: &Client, pod_name: &str, notification: &Notification) -> Result<(), kube::Error> {
    let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
    match events.create(&PostParams::default(), &event(pod_name, notification, Timestamp::now())).await {
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        written => written.map(|_| ()),
    }
}

pub(super) fn event(pod_name: &str, notification: &Notification, now: Timestamp) -> Event {
    let (type_, reason) = match notification.event {
        Occasion::Firing => ("Warning", "AlertFiring"),
        Occasion::Reminder => ("Warning", "AlertStillFiring"),
        Occasion::Resolved => ("Normal", "AlertResolved"),
    };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("volumealert-{}", notification.id)),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        regarding: Some(ObjectReference {
            api_version: Some("volumeviz.io/v1alpha1".to_owned()),
            kind: Some("VolumeAlert".to_owned()),
            name: Some(notification.alert.clone()),
            uid: Some(notification.alert_uid.clone()),
            ..ObjectReference::default()
        }),
        type_: Some(type_.to_owned()),
        reason: Some(reason.to_owned()),
        action: Some("Notify".to_owned()),
        note: Some(bounded(showable(&notification.text).into(), MAX_NOTE).into_owned()),
        reporting_controller: Some("volumeviz.io/controller".to_owned()),
        reporting_instance: Some(pod_name.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn its_name_is_the_notifications_and_its_text_is_harmless_and_bounded() {
        let notification = Notification { text: "a\u{1b}[31m\n".to_owned() + &"é".repeat(2000), ..sample::bare() };
        let written = event("pod", &notification, Timestamp::UNIX_EPOCH);
        assert_eq!(written.metadata.name.as_deref(), Some("volumealert-00000000-0000-0000-0000-000000000000"));
        let note = written.note.unwrap();
        assert!(note.starts_with("a\\u{1b}[31m\\né") && note.len() <= MAX_NOTE, "{note}");
    }

    #[test]
    fn each_occasion_has_its_reason() {
        for (occasion, expected) in [
            (Occasion::Firing, ("Warning", "AlertFiring")),
            (Occasion::Reminder, ("Warning", "AlertStillFiring")),
            (Occasion::Resolved, ("Normal", "AlertResolved")),
        ] {
            let written = event("pod", &Notification { event: occasion, ..sample::bare() }, Timestamp::UNIX_EPOCH);
            assert_eq!((written.type_.as_deref(), written.reason.as_deref()), (Some(expected.0), Some(expected.1)));
        }
    }
}
