//! Leader election on real Leases.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use volumeviz::controller::leader::Elector;

const NAMESPACE: &str = "default";

fn candidate(client: &Client, lease: &str, identity: &str) -> Elector {
    Elector::new(client.clone(), NAMESPACE, lease, identity.to_owned())
}

fn leases(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), NAMESPACE)
}

async fn holder(client: &Client, lease: &str) -> Option<String> {
    leases(client).get(lease).await.unwrap().spec.unwrap().holder_identity
}

/// Two candidates at once: one leads, the other does not until the first gives up, and then at once.
#[tokio::test]
async fn one_leads_and_hands_over_on_stop() {
    let (client, lease) = (super::client().await, "hand-over");
    drop(leases(&client).delete(lease, &DeleteParams::default()).await);
    let (mut a, mut b) = (candidate(&client, lease, "a"), candidate(&client, lease, "b"));
    let never = CancellationToken::new();
    assert!(a.acquire(&never).await);
    let waits = timeout(Duration::from_secs(5), b.acquire(&never)).await;
    assert!(waits.is_err(), "a second candidate led beside the first");
    let stop = CancellationToken::new();
    stop.cancel();
    a.keep(&stop).await.unwrap();
    let started = Instant::now();
    assert!(b.acquire(&never).await);
    assert!(started.elapsed() < Duration::from_secs(10), "a lease given up is taken without waiting for its expiry");
    assert_eq!(holder(&client, lease).await.as_deref(), Some("b"));
    let spec = leases(&client).get(lease).await.unwrap().spec.unwrap();
    assert_eq!(spec.lease_transitions, Some(1));
}

/// A dead leader's lease is taken only after it stood still for 15 s of the candidate's own clock, whatever times it carries.
#[tokio::test]
async fn an_abandoned_lease_is_taken_by_our_own_clock() {
    let (client, lease) = (super::client().await, "abandoned");
    drop(leases(&client).delete(lease, &DeleteParams::default()).await);
    let never = CancellationToken::new();
    assert!(candidate(&client, lease, "dead").acquire(&never).await);
    // As if the dead leader's clock had been an hour behind: by wall clocks the lease has expired long ago.
    let old = Patch::Merge(json!({"spec": {"renewTime": "2020-01-01T00:00:00.000000Z"}}));
    leases(&client).patch(lease, &PatchParams::default(), &old).await.unwrap();
    let started = Instant::now();
    let mut b = candidate(&client, lease, "b");
    assert!(timeout(Duration::from_secs(40), b.acquire(&never)).await.expect("taken in 40 s"));
    assert!(started.elapsed() >= Duration::from_secs(15), "taken after {:?}", started.elapsed());
}

/// A leader whose lease another one took ends; it does not wait and take it back.
#[tokio::test]
async fn a_leader_that_was_replaced_ends() {
    let (client, lease) = (super::client().await, "replaced");
    drop(leases(&client).delete(lease, &DeleteParams::default()).await);
    let never = CancellationToken::new();
    let mut a = candidate(&client, lease, "a");
    assert!(a.acquire(&never).await);
    let taken = Patch::Merge(json!({"spec": {"holderIdentity": "thief"}}));
    leases(&client).patch(lease, &PatchParams::default(), &taken).await.unwrap();
    let lost = timeout(Duration::from_secs(10), a.keep(&never)).await.expect("noticed in 10 s").unwrap_err();
    assert!(lost.to_string().contains(lease), "{lost}");
    assert_eq!(holder(&client, lease).await.as_deref(), Some("thief"));
}
