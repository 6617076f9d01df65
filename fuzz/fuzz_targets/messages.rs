//! What controller, agents and database say to each other: offers, answers, the six functions, results, notifications.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use volumeviz::domain::alert::notification::{Notification, Receiver};
use volumeviz::domain::contract::{
    ClaimBody, ClaimReply, CompleteBody, FailBody, HeartbeatBody, InventoryBody, InventoryReply, Reply, ReportBody,
};
use volumeviz::domain::dispatch::{Answer, Offer};
use volumeviz::domain::measurement::VolumeResult;
use volumeviz::domain::selector::VolumeMatcher;
use volumeviz::domain::work::WorkOrder;

fuzz_target!(|json: &[u8]| {
    let Ok(message) = serde_json::from_slice::<Value>(json) else { return };
    said_again::<Offer>(&message);
    said_again::<Answer>(&message);
    said_again::<ClaimBody>(&message);
    said_again::<ClaimReply>(&message);
    said_again::<Reply>(&message);
    said_again::<InventoryReply>(&message);
    said_again::<HeartbeatBody>(&message);
    said_again::<InventoryBody>(&message);
    said_again::<ReportBody>(&message);
    said_again::<CompleteBody>(&message);
    said_again::<FailBody>(&message);
    said_again::<VolumeResult>(&message);
    said_again::<Receiver>(&message);
    said_again::<WorkOrder>(&message);
    if let Ok(ClaimReply::Claimed(claim)) = serde_json::from_value(message.clone()) {
        work(&claim.work);
    }
    notification(&message);
});

/// What is understood is said again and understood as the same, and what a later version adds changes nothing.
fn said_again<T: DeserializeOwned + Serialize + PartialEq + Debug>(message: &Value) {
    let Ok(understood) = serde_json::from_value::<T>(message.clone()) else { return };
    let again = serde_json::from_str::<T>(&serde_json::to_string(&understood).unwrap());
    assert_eq!(again.unwrap(), understood);
    let mut later = message.clone();
    if let Some(fields) = later.as_object_mut() {
        fields.insert("ofALaterVersion".to_owned(), Value::from(vec![1]));
        assert_eq!(serde_json::from_value::<T>(later).unwrap(), understood, "of a later version");
    }
}

/// A run always has a node to work on, and never more than there are unless so many were asked for.
fn work(order: &WorkOrder) {
    for nodes in [0, 1, 7, usize::MAX] {
        if let Some(most) = order.limits.max_parallel_nodes.of(nodes) {
            assert!(most >= 1 && (most <= nodes.max(1) || most <= i32::MAX as usize), "{most} of {nodes}");
        }
    }
    if let Err(error) = VolumeMatcher::new(&order.volume_selector) {
        assert!(error.to_string().starts_with("spec.volumeSelector."), "{error}");
    }
}

/// Figures may be rounded in the last digit on the way; nothing else is.
fn notification(message: &Value) {
    let Ok(mut told) = serde_json::from_value::<Notification>(message.clone()) else { return };
    let mut again: Notification = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
    for subject in told.subjects.iter_mut().chain(&mut again.subjects) {
        subject.value = subject.value.map(|_| 0.0);
        subject.threshold = 0.0;
    }
    assert_eq!(again, told);
}
