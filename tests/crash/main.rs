//! The controller dies at each of its side effects, just before it and just after it; the next one goes on from what is true, and what is
//! left in the end is what a life without a death leaves. In the same world: what a controller tells in `/metrics`, and what it does about
//! trouble.
//!
//! Run by `tests/with-postgres tests/with-apiserver`. By default the process dies at the first side effect of each kind, at those that all
//! lives begin with in one life only; with `CRASH_AT=all` at every one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod agents;
#[path = "../kit/crds.rs"]
mod crds;
#[allow(dead_code, reason = "the store's tests use all of it")]
#[path = "../store/database.rs"]
mod database;
mod end;
mod kubernetes;
mod life;
mod metrics;
mod postgres;
mod process;
mod seam;
mod secrets;
mod stories;
mod told;
mod trouble;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use kube::api::{Patch, PatchParams};
use life::{Life, Story, World, live};
use seam::{Fault, Seam, Target};
use serde_json::json;
use tokio::sync::Semaphore;
use volumeviz::controller::scan::reconcile;

/// Over all tests: they wait more than they work, and each needs some ten connections to PostgreSQL.
static LIVES_AT_A_TIME: Semaphore = Semaphore::const_new(14);
/// How many side effects of a kind come before the end may differ by one pass.
const TRIES: usize = 3;

const SPEC: &str = "INSERT audit_events";
const PLAN: &str = "commit INSERT scan_runs, INSERT scan_jobs, INSERT audit_events";
const OFFER: &str = "POST offer";
const END: &str = "commit UPDATE scan_runs";
const CANCEL: &str = "commit UPDATE scan_runs, UPDATE scan_jobs, INSERT audit_events";
const DEADLINE: &str = "commit UPDATE scan_jobs, UPDATE scan_runs";
const NEW_TICKET: &str = "commit UPDATE scan_jobs, INSERT audit_events";
const END_JOB: &str = "UPDATE scan_jobs";
const NOTE_NODES: &str = "UPDATE nodes";
const NOTE_ORPHANS: &str = "UPDATE scan_runs";
const STATUS: &str = "PATCH status";
const ALERT_STATUS: &str = "PATCH alert status";
const JUDGE: &str = "commit INSERT alerts";
const FIRE: &str = "commit INSERT alerts, INSERT alert_notifications";
const RESOLVE: &str = "commit UPDATE alerts, INSERT alert_notifications";
const DELIVERED: &str = "UPDATE alert_notifications";
const EVENT: &str = "POST event";
const DELETE: &str = "DELETE volumescan";
const TAKE_DATABASE: &str = "INSERT installation";
const CONTROLLER_SECRET: &str = "PUT controller's secret";
const AGENT_SECRET: &str = "PUT agents' secret";

/// Every life begins so.
const BEGINNING: [&str; 8] = [CONTROLLER_SECRET, AGENT_SECRET, TAKE_DATABASE, SPEC, PLAN, STATUS, EVENT, OFFER];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_ends_with_its_deletion() {
    survives(stories::ONCE, &[&BEGINNING[..], &[END, DELETE]].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_of_runs_that_replace_each_other() {
    survives(stories::REPLACED, &[CANCEL, END]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_of_lost_agents_nodes_and_deadlines() {
    survives(stories::TROUBLED, &[NEW_TICKET, END_JOB, END, DEADLINE]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_that_is_cut_short() {
    survives(stories::DELETED, &[NOTE_NODES, NOTE_ORPHANS, CANCEL]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_of_an_alert_that_fires_and_is_over() {
    survives(stories::ALERTED, &[END, NOTE_NODES, NOTE_ORPHANS, JUDGE, FIRE, RESOLVE, DELIVERED, ALERT_STATUS, EVENT])
        .await;
}

/// A pass may begin before the watch has brought what the pass before it wrote.
#[tokio::test]
async fn a_watch_that_is_behind_makes_nobody_tell_twice() {
    let client = crds::client_with_crds().await;
    let seam = Arc::new(Seam::new(None));
    let (world, _) = World::of(&client, &stories::DELETED, &seam).await;
    stories::both(&world, agents::Conduct::Hold);
    let (context, _health) = process::context(world.setup(&stories::DELETED), Arc::clone(&seam)).await;
    let told = || seam.passed().iter().filter(|kind| [STATUS, EVENT].contains(&kind.as_str())).count();
    let behind = Arc::new(world.scans.get(&world.name).await.unwrap());
    let edit_between = Patch::Merge(json!({"metadata": {"labels": {"edited": "yes"}}}));
    let between = world.scans.patch(&world.name, &PatchParams::default(), &edit_between).await.unwrap();
    reconcile(Arc::clone(&behind), Arc::clone(&context)).await.unwrap();
    assert_eq!(told(), 2, "the run has started: {:?}", seam.passed());
    // Within a second of the last write any other is held back.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    reconcile(behind, Arc::clone(&context)).await.unwrap();
    assert_eq!(told(), 2, "the same again: {:?}", seam.passed());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    reconcile(Arc::new(between), Arc::clone(&context)).await.unwrap();
    assert_eq!(told(), 2, "edited by another before the status was written: {:?}", seam.passed());
    let overwritten = Patch::Merge(json!({"status": {"state": "Pending"}}));
    world.scans.patch_status(&world.name, &PatchParams::default(), &overwritten).await.unwrap();
    let current = Arc::new(world.scans.get(&world.name).await.unwrap());
    let until = Instant::now() + Duration::from_secs(5);
    while told() < 3 && Instant::now() < until {
        reconcile(Arc::clone(&current), Arc::clone(&context)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(told(), 3, "what another wrote is taken back: {:?}", seam.passed());
}

/// Lives through a story once without a death, and then once for each side effect and each way to die at it. `own` are the kinds of side
/// effects that this life is for.
async fn survives(story: Story, own: &[&str]) {
    let client = crds::client_with_crds().await;
    let clean = live(&client, &story, None).await;
    let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
    for effect in &clean.effects {
        *counted.entry(effect).or_default() += 1;
    }
    let expected: BTreeSet<&str> = BEGINNING.iter().chain(own).copied().collect();
    assert_eq!(counted.keys().copied().collect::<BTreeSet<_>>(), expected, "the kinds of side effects of this life");
    assert!(told::are(&clean.told, story.told), "the Events of this life: {:#?}", clean.told);
    metrics::hold(&clean.figures, story.figures);
    let all = std::env::var("CRASH_AT").is_ok_and(|at| at == "all");
    let targets = counted.iter().filter(|(kind, _)| all || own.contains(kind)).flat_map(|(kind, count)| {
        let last = if all { *count } else { 1 };
        (1..=last).flat_map(|nth| {
            [Fault::Lost, Fault::AnswerLost].map(|fault| Target { kind: (*kind).to_owned(), nth, fault })
        })
    });
    let deaths = targets.map(|target| die_at(&client, &story, target));
    let lives = join_all(deaths).await;
    for (target, life) in &lives {
        assert!(life.died, "the process did not die at {target:?}");
        let differences = end::differences(&clean.end, &life.end);
        assert!(differences.is_empty(), "what is left after a death at {target:?} is not the same: {differences:#?}");
        assert!(told::are_among(&life.told, story.told), "Events after a death at {target:?}: {:#?}", life.told);
    }
    println!(
        "{} side effects of {} kinds, died {} times: {counted:?}",
        clean.effects.len(),
        counted.len(),
        lives.len()
    );
}

async fn die_at(client: &kube::Client, story: &Story, target: Target) -> (Target, Life) {
    let _turn = LIVES_AT_A_TIME.acquire().await.unwrap();
    let mut life = live(client, story, Some(target.clone())).await;
    for _ in 1..TRIES {
        if life.died {
            break;
        }
        life = live(client, story, Some(target.clone())).await;
    }
    (target, life)
}
