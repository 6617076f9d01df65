//! The Events of a life.

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::kubernetes::NAMESPACE;

/// Reason and note of an Event.
pub(crate) type Told = (String, String);

/// Those about an object, in the order in which they were told.
pub(crate) async fn about(client: &Client, object: &str) -> Vec<Told> {
    let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
    let mut events = events.list(&ListParams::default().fields(object)).await.unwrap().items;
    events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    events.into_iter().map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect()
}

/// Whether these are the Events, each with such a note.
pub(crate) fn are(told: &[Told], expected: &[(&str, &str)]) -> bool {
    told.len() == expected.len() && told.iter().zip(expected).all(|(told, expected)| fits(told, expected))
}

/// An Event that was lost with its process stays lost; none is told twice, and none that a life without a death does not tell.
pub(crate) fn are_among(told: &[Told], expected: &[(&str, &str)]) -> bool {
    let mut left = expected.to_vec();
    let all = told.iter().all(|told| {
        let place = left.iter().position(|expected| fits(told, expected));
        place.map(|place| left.remove(place)).is_some()
    });
    let once = told.iter().enumerate().all(|(n, event)| !told[..n].contains(event));
    all && once
}

fn fits((reason, note): &Told, (expected, part): &(&str, &str)) -> bool {
    reason == expected && note.contains(part)
}

#[test]
fn an_event_twice_or_too_many_is_seen() {
    let told = |events: &[&str]| {
        events.iter().map(|reason| ((*reason).to_owned(), format!("run 1 {reason}"))).collect::<Vec<_>>()
    };
    let expected = [("RunStarted", "run"), ("RunCompleted", ""), ("RunStarted", "run")];
    assert!(are(&told(&["RunStarted", "RunCompleted", "RunStarted"]), &expected));
    assert!(!are(&told(&[]), &expected) && !are(&told(&["RunStarted", "RunStarted", "RunCompleted"]), &expected));
    assert!(are_among(&told(&[]), &expected) && are_among(&told(&["RunCompleted"]), &expected));
    assert!(!are_among(&told(&["RunCompleted", "RunCompleted"]), &expected), "more than were told");
    assert!(!are_among(&told(&["RunStarted", "RunStarted"]), &expected), "the same run's twice");
    assert!(!are_among(&told(&["RunFailed"]), &expected), "of another kind");
}
