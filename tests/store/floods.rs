//! As much as an agent keeps of what Docker lists, through the functions and back.

use std::time::{Duration, Instant};

use volumeviz::agent::docker::{MAX_KEPT, MAX_KEY, MAX_LABELS_BYTES, MAX_VALUE};
use volumeviz::domain::contract::MAX_BATCH_ROWS;
use volumeviz::store::page::{Page, VolumeList};
use volumeviz::store::volumes;

use super::*;

/// A call must be over before its caller gives it up.
const CALL: Duration = Duration::from_secs(10);
const VOLUMES: usize = 10_000;

/// What takes longest, and what the call made of it.
struct Slowest(Duration);

impl Slowest {
    async fn timed<T>(&mut self, call: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let made = call.await;
        self.0 = self.0.max(began.elapsed());
        made
    }
}

/// Labels of about so many bytes in all.
fn labels(bytes: usize, of: usize) -> BTreeMap<String, String> {
    let value = |n: usize| format!("{}{n:08}", "v".repeat(bytes / of - 32));
    (0..of).map(|n| (format!("com.example.some-label-{n:01}"), value(n))).collect()
}

#[tokio::test]
async fn ten_thousand_volumes_with_as_many_labels_as_an_agent_keeps_are_stored_in_time() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    let labels = labels(MAX_KEPT / VOLUMES - 1000, 8);
    let name = |n: usize| format!("volume-{n:05}");
    let listed: Vec<_> = (0..VOLUMES).map(|n| InventoryVolume { labels: labels.clone(), ..volume(&name(n)) }).collect();
    let results: Vec<_> = (0..VOLUMES).map(|n| result(&name(n), 4096)).collect();
    let (began, mut slowest) = (Instant::now(), Slowest(Duration::ZERO));
    for chunk in listed.chunks(MAX_BATCH_ROWS) {
        assert_eq!(slowest.timed(agent.chunk(ticket, chunk, &[], None)).await, Reply::Ok);
    }
    let totals = InventoryTotals { volumes: count(VOLUMES), containers: 0 };
    assert_eq!(slowest.timed(agent.chunk(ticket, &[], &[], Some(totals))).await, Reply::Ok);
    for chunk in results.chunks(MAX_BATCH_ROWS) {
        assert_eq!(slowest.timed(agent.report(ticket, chunk)).await, Reply::Ok);
    }
    assert_eq!(slowest.timed(agent.complete(ticket, VOLUMES)).await, Reply::Ok);
    let written = (began.elapsed(), slowest.0);

    let mut conn = database.controller().await;
    let (began, mut slowest) = (Instant::now(), Slowest(Duration::ZERO));
    let (list, mut page, mut read) = (VolumeList::default(), Page::first(500), 0);
    loop {
        let found = slowest.timed(volumes::list(&mut conn, &list, &page)).await.unwrap();
        assert!(found.rows.iter().all(|volume| volume.labels.0 == labels && volume.allocated_bytes == Some(4096)));
        read += found.rows.len();
        let Some(next) = found.next else { break };
        page = Page::after(500, list.decode(&next).unwrap());
    }
    assert_eq!(read, VOLUMES);
    println!("written in {written:.1?}, read in {:.1?}", (began.elapsed(), slowest.0));
    assert!(written.1.max(slowest.0) < CALL, "{written:?}, {:?}", slowest.0);
}

/// Labels and options at every bound there is, in text that does not compress.
#[tokio::test]
async fn the_biggest_labels_and_options_there_can_be_are_stored() {
    let database = Database::new().await;
    let (_, ticket, agent) = claimed(&database).await;
    let noise = |length: usize| {
        (0..=length / 32).map(|_| Uuid::new_v4().simple().to_string()).collect::<String>()[..length].to_owned()
    };
    let biggest = || -> BTreeMap<String, String> {
        (0..MAX_LABELS_BYTES / (MAX_KEY + MAX_VALUE)).map(|_| (noise(MAX_KEY), noise(MAX_VALUE))).collect()
    };
    let listed: Vec<_> = (0..100)
        .map(|n| InventoryVolume { labels: biggest(), options: biggest(), ..volume(&format!("v{n}")) })
        .collect();
    assert_eq!(agent.inventory(ticket, &listed, &[]).await, Reply::Ok);
    for volume in listed {
        let found =
            volumes::find(&mut *database.controller().await, &format!("n1/{}", volume.name)).await.unwrap().unwrap();
        assert_eq!((found.labels.0, found.options.0), (volume.labels, volume.options));
    }
}
