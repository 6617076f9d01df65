//! The states of alerts.

use volumeviz::store::alerts::{self, Judgement};

use super::*;

fn judged(subject: &str, state: &str, value: f64) -> Judgement {
    Judgement {
        alert_uid: "uid".to_owned(),
        alert_name: "big".to_owned(),
        scope: "Volume".to_owned(),
        subject: subject.to_owned(),
        volume_id: None,
        state: state.to_owned(),
        severity: "Warning".to_owned(),
        value: Some(value),
        threshold: Some(10.0),
        message: "because".to_owned(),
    }
}

#[tokio::test]
async fn a_subject_has_one_open_state() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let pending = alerts::note(&mut conn, &judged("n1/a", "Pending", 11.0)).await.unwrap();
    let firing = alerts::note(&mut conn, &judged("n1/a", "Firing", 12.0)).await.unwrap();
    assert_eq!(pending, firing);
    let first = alerts::open(&mut conn, "uid").await.unwrap();
    assert_eq!((first.len(), first[0].state.as_str(), first[0].value), (1, "Firing", Some(12.0)));
    alerts::note(&mut conn, &judged("n1/a", "Firing", 13.0)).await.unwrap();
    let later = alerts::open(&mut conn, "uid").await.unwrap();
    assert_eq!(later[0].fired_at, first[0].fired_at, "it fired once");
}

#[tokio::test]
async fn what_is_resolved_stays_and_may_open_again() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let id = alerts::note(&mut conn, &judged("n1/a", "Firing", 11.0)).await.unwrap();
    assert!(alerts::resolve(&mut conn, id, "shrunk").await.unwrap());
    assert!(!alerts::resolve(&mut conn, id, "again").await.unwrap());
    assert_eq!(alerts::open(&mut conn, "uid").await.unwrap(), []);
    assert_ne!(alerts::note(&mut conn, &judged("n1/a", "Firing", 11.0)).await.unwrap(), id);
    assert_eq!(database.number("SELECT count(*) FROM alerts").await, 2);
}
