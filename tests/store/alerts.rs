//! The states of alerts.

use chrono::{DateTime, Utc};
use volumeviz::domain::alert::notification::Receiver;
use volumeviz::domain::alert::{Scope, Severity, Standing};
use volumeviz::store::alerts::{self, Alert, End, Open, State};

use crate::database::Database;

fn alert(receivers: &[Receiver]) -> Alert<'_> {
    Alert {
        uid: "uid",
        name: "big",
        rule: "sizeAbove",
        scope: "Volume",
        severity: Severity::Critical,
        threshold: 10.0,
        receivers,
    }
}

fn state(subject: &str, standing: Standing, value: f64, seen: Option<&Open>) -> State {
    State {
        subject: subject.to_owned(),
        volume_id: None,
        standing,
        value: Some(value),
        message: format!("{value} bytes"),
        told: standing == Standing::Firing,
        seen: seen.map(|open| open.updated_at),
    }
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
}

fn end(open: &Open) -> End {
    End { id: open.id, message: "shrunk".to_owned(), seen: open.updated_at }
}

#[tokio::test]
async fn a_subject_has_one_open_state_and_keeps_when_it_began_and_when_it_fired() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let receivers = [Receiver::event()];
    let pending = [state("n1/a", Standing::Pending, 11.0, None), state("n1/b", Standing::Pending, 12.0, None)];
    assert_eq!(alerts::note(&mut conn, alert(&receivers), &pending, at(0)).await.unwrap(), 2);
    let open = alerts::open(&mut conn, "uid").await.unwrap();
    assert_eq!((open.len(), open[0].created_at, open[0].fired_at, open[0].told_at), (2, at(0), None, None));
    for (second, value) in [(60, 13.0), (90, 14.0)] {
        let before = alerts::open(&mut conn, "uid").await.unwrap();
        let firing = [state("n1/a", Standing::Firing, value, before.first())];
        assert_eq!(alerts::note(&mut conn, alert(&receivers), &firing, at(second)).await.unwrap(), 1);
    }
    let open = &alerts::open(&mut conn, "uid").await.unwrap()[0];
    assert_eq!((open.created_at, open.fired_at, open.told_at), (at(0), Some(at(60)), Some(at(60))));
    assert_eq!(
        (open.standing, open.value, open.scope, open.severity),
        (Standing::Firing, Some(14.0), Scope::Volume, Severity::Critical)
    );
    assert_eq!((open.message.as_str(), &open.receivers[..]), ("14 bytes", &receivers[..]));
}

#[tokio::test]
async fn what_another_has_judged_meanwhile_is_left_as_it_is() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let first = [state("n1/a", Standing::Firing, 11.0, None)];
    assert_eq!(alerts::note(&mut conn, alert(&[]), &first, at(0)).await.unwrap(), 1);
    assert_eq!(
        alerts::note(&mut conn, alert(&[]), &first, at(1)).await.unwrap(),
        0,
        "it was not there when it was judged"
    );
    let seen = alerts::open(&mut conn, "uid").await.unwrap().remove(0);
    let changed = [state("n1/a", Standing::Firing, 12.0, Some(&seen))];
    assert_eq!(alerts::note(&mut conn, alert(&[]), &changed, at(2)).await.unwrap(), 1);
    let late = [state("n1/a", Standing::Firing, 99.0, Some(&seen))];
    assert_eq!(
        alerts::note(&mut conn, alert(&[]), &late, at(3)).await.unwrap(),
        0,
        "it was changed after it was judged"
    );
    assert_eq!(alerts::end(&mut conn, &[end(&seen)], at(4)).await.unwrap(), 0, "nor is it ended");
    let open = alerts::open(&mut conn, "uid").await.unwrap();
    assert_eq!(open[0].value, Some(12.0));
}

#[tokio::test]
async fn what_is_over_stays_as_history_and_the_subject_begins_anew() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let firing = [state("n1/a", Standing::Firing, 11.0, None)];
    alerts::note(&mut conn, alert(&[]), &firing, at(0)).await.unwrap();
    assert_eq!(alerts::with_open(&mut conn).await.unwrap(), ["uid"]);
    let open = alerts::open(&mut conn, "uid").await.unwrap();
    assert_eq!(alerts::end(&mut conn, &[end(&open[0])], at(10)).await.unwrap(), 1);
    assert_eq!(alerts::end(&mut conn, &[end(&open[0])], at(11)).await.unwrap(), 0, "it was over already");
    assert_eq!(alerts::open(&mut conn, "uid").await.unwrap(), []);
    assert!(alerts::with_open(&mut conn).await.unwrap().is_empty());
    assert_eq!(alerts::note(&mut conn, alert(&[]), &firing, at(20)).await.unwrap(), 1);
    let listed = alerts::list(&mut conn, Some("big"), None, i64::MAX, 10).await.unwrap();
    let told: Vec<_> = listed.iter().map(|row| (row.state.as_str(), row.resolved_at)).collect();
    assert_eq!(told, [("Firing", None), ("Resolved", Some(at(10)))]);
    for alert in [None, Some("big")] {
        assert_eq!(alerts::list(&mut conn, alert, Some(true), i64::MAX, 10).await.unwrap(), listed[..1]);
        assert_eq!(alerts::list(&mut conn, alert, Some(false), i64::MAX, 10).await.unwrap(), listed[1..]);
        assert_eq!(alerts::list(&mut conn, alert, None, i64::MAX, 1).await.unwrap(), listed[..1]);
    }
    assert_eq!(alerts::list(&mut conn, None, None, listed[0].id, 10).await.unwrap(), listed[1..]);
    assert_eq!(alerts::list(&mut conn, Some("other"), None, i64::MAX, 10).await.unwrap(), []);
}

#[tokio::test]
async fn an_outage_is_written_down_once() {
    let database = Database::new().await;
    let mut conn = database.controller().await;
    let down = Alert { rule: "databaseDown", scope: "Cluster", threshold: 0.0, ..alert(&[]) };
    assert!(alerts::note_past(&mut conn, down, at(0), "away").await.unwrap());
    assert!(!alerts::note_past(&mut conn, down, at(0), "away").await.unwrap());
    assert!(alerts::note_past(&mut conn, down, at(5), "away").await.unwrap());
    assert_eq!(alerts::open(&mut conn, "uid").await.unwrap(), []);
    let listed = alerts::list(&mut conn, None, None, i64::MAX, 10).await.unwrap();
    assert_eq!((listed.len(), listed[0].state.as_str(), listed[0].fired_at), (2, "Resolved", Some(at(5))));
}
