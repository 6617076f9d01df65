//! From the outbox to a webhook or an Event: at least once, in order, under one id, and nobody delays another.

use std::pin::pin;
use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::json;

use crate::webhook::{Answer, Request, Webhook};
use crate::*;

/// An operator that leads, and a webhook that its receiver `hook` leads to.
async fn with_webhook(entries: &[(&str, &str)]) -> (Operator, Leading, Webhook) {
    let (operator, hook) = (Operator::new(&[]).await, Webhook::on("11.0.0.1").await);
    let url = hook.url("public.test");
    let entries: Vec<_> = [("url", url.as_str())].iter().chain(entries).copied().collect();
    operator.secret("hook", &entries).await;
    let leading = operator.lead();
    (operator, leading, hook)
}

#[tokio::test]
async fn a_webhook_gets_the_json_its_id_and_the_secrets_headers() {
    let (operator, _leading, hook) =
        with_webhook(&[("headers", "Authorization: Bearer token\nX-Alert: {{ alert }}")]).await;
    let firing = told("big", Occasion::Firing);
    operator.put(&webhook("hook"), &firing).await;
    operator.delivered(&firing).await;
    let seen = hook.seen();
    assert_eq!((seen.len(), seen[0].path.as_str(), seen[0].json()), (1, "/hook", json!(firing)));
    let header = |name: &str| seen[0].headers[name].to_str().unwrap();
    assert_eq!(header("idempotency-key"), firing.id.to_string());
    assert_eq!(["authorization", "x-alert", "content-type"].map(header), ["Bearer token", "big", "application/json"]);
    assert!(header("user-agent").starts_with("volumeviz/"));
    let metrics = operator.metrics();
    assert!(metrics.contains(r#"notifications_total{channel="Webhook",outcome="delivered"} 1"#), "{metrics}");
    let mut changes = pin!(operator.notifier.changes());
    let next = tokio::time::timeout(Duration::from_secs(5), changes.next()).await;
    assert_eq!(next.unwrap().as_deref(), Some("big"));
}

#[tokio::test]
async fn a_body_is_what_the_template_makes() {
    let body = r#"{"msg": {{ text|tojson }}, "volumes": [{% for s in subjects %}{{ s.volume|tojson }}{% endfor %}]}"#;
    let (operator, _leading, hook) = with_webhook(&[("body", body)]).await;
    let firing = Notification { text: "a \"quoted\"\nname".to_owned(), ..told("big", Occasion::Firing) };
    operator.put(&webhook("hook"), &firing).await;
    operator.delivered(&firing).await;
    assert_eq!(hook.seen()[0].json(), json!({"msg": "a \"quoted\"\nname", "volumes": ["shop-db"]}));
}

#[tokio::test]
async fn what_fails_is_tried_again_under_the_same_id() {
    let (operator, _leading, hook) = with_webhook(&[]).await;
    hook.answers([Answer::Status(500), Answer::Status(404)]);
    let firing = told("big", Occasion::Firing);
    operator.put(&webhook("hook"), &firing).await;
    assert_eq!(operator.failed(&firing).await, "spec.notify[hook]: the receiver answered 500 Internal Server Error");
    operator.pass_backoff().await;
    operator.until(&firing, |row| row.attempts == 2).await;
    operator.pass_backoff().await;
    assert_eq!(operator.delivered(&firing).await.attempts, 3);
    let ids: Vec<_> = hook.seen().iter().map(|request| request.json()["id"].clone()).collect();
    assert_eq!(ids, vec![json!(firing.id); 3]);
}

/// The worst moment to die: the receiver has it, the database does not know.
#[tokio::test]
async fn what_was_told_and_not_noted_is_told_again_under_the_same_id() {
    let (operator, leading, hook) = with_webhook(&[]).await;
    hook.answers([Answer::Nothing]);
    let told: Vec<_> = (0..3).map(|n| told(&format!("a{n}"), Occasion::Firing)).collect();
    operator.put(&webhook("hook"), &told[0]).await;
    hook.told(1).await;
    drop(leading);
    for notification in &told[1..] {
        operator.put(&webhook("hook"), notification).await;
    }
    assert_eq!(operator.row(&told[0]).await.attempts, 0);
    let _leading = operator.lead();
    for notification in &told {
        operator.delivered(notification).await;
    }
    let mut ids: Vec<_> = hook.seen().iter().map(|request| request.json()["id"].to_string()).collect();
    ids.sort_unstable();
    let mut expected: Vec<_> =
        told.iter().chain(&told[..1]).map(|notification| json!(notification.id).to_string()).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected, "one twice, none lost");
}

#[tokio::test]
async fn a_dead_receiver_delays_no_other() {
    let (operator, leading, hook) = with_webhook(&[]).await;
    drop(leading);
    let hanging = Webhook::hanging("11.0.0.1").await;
    operator.secret("hanging", &[("url", &hanging.url("public.test"))]).await;
    operator.secret("unroutable", &[("url", "http://dead.test/hook")]).await;
    for n in 0..50 {
        for dead in ["hanging", "unroutable"] {
            operator.put(&webhook(dead), &told(&format!("{dead}-{n}"), Occasion::Firing)).await;
        }
    }
    let live = told("live", Occasion::Firing);
    let _leading = operator.lead();
    hanging.told(1).await;
    let started = Instant::now();
    operator.put(&webhook("hook"), &live).await;
    operator.delivered(&live).await;
    let took = started.elapsed();
    assert!(took < Duration::from_secs(3), "dead ones hold a delivery for 5 s: {took:?}");
    assert_eq!(hook.seen().len(), 1);
    assert!(hanging.seen().len() <= 4, "one place gets a share of the deliveries: {}", hanging.seen().len());
}

#[tokio::test]
async fn the_end_does_not_overtake_the_beginning() {
    let (operator, _leading, hook) = with_webhook(&[]).await;
    hook.answers([Answer::Status(503)]);
    let (firing, resolved, other) =
        (told("big", Occasion::Firing), told("big", Occasion::Resolved), told("other", Occasion::Firing));
    operator.put(&webhook("hook"), &firing).await;
    operator.put(&webhook("hook"), &resolved).await;
    operator.failed(&firing).await;
    operator.put(&webhook("hook"), &other).await;
    operator.delivered(&other).await;
    assert_eq!(operator.row(&resolved).await.attempts, 0, "it waits behind what failed");
    operator.pass_backoff().await;
    operator.delivered(&resolved).await;
    let seen: Vec<_> = hook.seen().iter().map(Request::json).filter(|json| json["alert"] == "big").collect();
    let events: Vec<_> = seen.iter().map(|json| json["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["Firing", "Firing", "Resolved"]);
}

#[tokio::test]
async fn it_is_given_up_after_a_day_and_the_next_has_its_turn() {
    let (operator, leading, hook) = with_webhook(&[]).await;
    drop(leading);
    hook.answers([Answer::Status(503)]);
    let (firing, resolved) = (told("big", Occasion::Firing), told("big", Occasion::Resolved));
    operator.put(&webhook("hook"), &firing).await;
    operator.pass_a_day().await;
    operator.put(&webhook("hook"), &resolved).await;
    let _leading = operator.lead();
    let row = operator.until(&firing, |row| row.given_up).await;
    assert_eq!(row.last_error.as_deref(), Some("spec.notify[hook]: the receiver answered 503 Service Unavailable"));
    operator.delivered(&resolved).await;
    let metrics = operator.metrics();
    assert!(metrics.contains(r#"notifications_given_up_total{channel="Webhook"} 1"#), "{metrics}");
}

#[tokio::test]
async fn an_event_is_there_once_however_often_it_is_told() {
    let operator = Operator::new(&[]).await;
    let _leading = operator.lead();
    let firing = told(&format!("big-{}", Uuid::new_v4()), Occasion::Firing);
    operator.put(&Receiver::event(), &firing).await;
    operator.delivered(&firing).await;
    let again = "UPDATE alert_notifications SET delivered_at = NULL";
    sqlx::query(again).execute(&mut **operator.database.superuser().await).await.unwrap();
    operator.notifier.wake();
    assert_eq!(operator.delivered(&firing).await.attempts, 2);
    let events: Api<Event> = Api::namespaced(operator.client.clone(), "default");
    let events = events.list(&ListParams::default()).await.unwrap();
    let about = |event: &&Event| {
        event.regarding.as_ref().is_some_and(|object| object.name.as_deref() == Some(firing.alert.as_str()))
    };
    let found: Vec<_> = events.iter().filter(about).collect();
    assert_eq!(found.len(), 1);
    let regarding = found[0].regarding.as_ref().unwrap();
    assert_eq!(
        (regarding.kind.as_deref(), regarding.uid.as_deref()),
        (Some("VolumeAlert"), Some(firing.alert_uid.as_str()))
    );
    assert_eq!((found[0].reason.as_deref(), found[0].type_.as_deref()), (Some("AlertFiring"), Some("Warning")));
    assert_eq!(found[0].note.as_deref(), Some(firing.text.as_str()));
}

#[tokio::test]
async fn what_another_version_put_down_is_given_up_with_a_reason() {
    let (operator, leading, _hook) = with_webhook(&[]).await;
    drop(leading);
    let firing = told("big", Occasion::Firing);
    operator.put(&webhook("hook"), &firing).await;
    let other = r#"UPDATE alert_notifications SET payload = payload || '{"severity": "Apocalyptic"}'"#;
    sqlx::query(other).execute(&mut **operator.database.superuser().await).await.unwrap();
    let _leading = operator.lead();
    let row = operator.until(&firing, |row| row.given_up).await;
    assert!(row.last_error.unwrap().contains("another version"));
}
