//! Text and figures that want to do harm.

use std::collections::BTreeMap;

use volumeviz::agent::docker;
use volumeviz::domain::text;
use volumeviz::store::filter::VolumeFilter;
use volumeviz::store::page::{Page, VolumeList};
use volumeviz::store::{Labels, Store, volumes};

use super::hostile_texts::TEXTS;
use super::*;

/// A job of which volume `v` was listed.
async fn listed<'a>(database: &'a Database, listed: &[InventoryVolume]) -> (Uuid, Agent<'a>) {
    let run = plan(database, "once", &["n1"]).await;
    let ticket = ticket(database, run, "n1").await;
    let agent = Agent::on(database, "n1");
    agent.claimed(ticket).await;
    assert_eq!(agent.inventory(ticket, listed, &[]).await, Reply::Ok);
    (ticket, agent)
}

#[tokio::test]
async fn names_and_labels_are_data() {
    let database = Database::new().await;
    // As an agent hands them on.
    let names: Vec<_> = TEXTS.iter().filter(|text| !text.is_empty()).map(|text| text::storable(text)).collect();
    let labels = |name: &str| [(name.to_owned(), name.to_owned())].into();
    let volumes: Vec<_> = names
        .iter()
        .map(|name| InventoryVolume {
            labels: labels(name),
            options: labels(name),
            driver: name.to_string(),
            ..volume(name)
        })
        .collect();
    let (ticket, agent) = listed(&database, &volumes).await;
    let results: Vec<_> = names.iter().map(|name| result(name, 1)).collect();
    assert_eq!(agent.report(ticket, &results).await, Reply::Ok);
    let mut conn = database.controller().await;
    for name in &names {
        let volume = volumes::find(&mut conn, &format!("n1/{name}")).await.unwrap().expect(name);
        assert_eq!(
            (volume.labels.0, volume.options.0, &volume.driver),
            (labels(name), labels(name), &name.to_string())
        );
        assert_eq!(volume.allocated_bytes, Some(1));
        let filter = VolumeFilter { labels: Labels(labels(name)), ..VolumeFilter::default() };
        let list = VolumeList { filter, ..VolumeList::default() };
        let found = volumes::list(&mut conn, &list, &Page::first(10)).await.unwrap();
        assert_eq!(found.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), [name.as_ref()]);
    }
}

/// What PostgreSQL cannot store at all the agent escapes before it sends it.
#[tokio::test]
async fn nul_and_invalid_utf8_are_stored_escaped() {
    let database = Database::new().await;
    let escaped =
        [text::from_bytes(b"nul\0byte"), text::from_bytes(b"not \xff utf8"), text::storable("label\0").into_owned()];
    let volumes: Vec<_> = escaped.iter().map(|name| volume(name)).collect();
    listed(&database, &volumes).await;
    let mut conn = database.controller().await;
    for name in &escaped {
        assert!(!name.contains('\0'));
        assert!(volumes::find(&mut conn, &format!("n1/{name}")).await.unwrap().is_some(), "{name}");
    }
}

#[tokio::test]
async fn a_label_of_a_megabyte_is_stored() {
    let database = Database::new().await;
    let labels: BTreeMap<String, String> =
        [("big".to_owned(), "x".repeat(1 << 20)), ("k".repeat(1 << 20), "v".to_owned())].into();
    listed(&database, &[InventoryVolume { labels, ..volume("v") }]).await;
    let volume = volumes::find(&mut *database.controller().await, "n1/v").await.unwrap().unwrap();
    assert_eq!(volume.labels.0["big"].len(), 1 << 20);
}

#[tokio::test]
async fn figures_beyond_bigint_stand_at_its_maximum_and_say_so() {
    let database = Database::new().await;
    let (ticket, agent) = listed(&database, &[volume("v"), volume("w")]).await;
    let huge = VolumeResult {
        figures: Some(Figures {
            allocated_bytes: u64::MAX,
            apparent_bytes: Some(u64::MAX),
            files: u64::MAX,
            directories: Some(u64::MAX),
        }),
        filesystem: Some(Filesystem { capacity_bytes: u64::MAX, available_bytes: u64::MAX }),
        duration_ms: u64::MAX,
        age_ms: 0,
        ..result("v", 0)
    };
    assert_eq!(agent.report(ticket, &[huge, result("w", 1)]).await, Reply::Ok);
    let saturated = "SELECT count(*) FROM scan_results WHERE saturated AND allocated_bytes = 9223372036854775807 AND duration_ms = 9223372036854775807";
    assert_eq!(database.number(saturated).await, 1);
    assert_eq!(database.number("SELECT count(*) FROM scan_results WHERE NOT saturated").await, 1);
    let mut conn = database.controller().await;
    let list = volumeviz::store::page::VolumeList::default();
    let page = volumeviz::store::page::Page::first(10);
    assert_eq!(volumes::list(&mut conn, &list, &page).await.unwrap().rows.len(), 2);
}

#[tokio::test]
async fn lists_that_are_too_long_are_cut_and_their_figures_saturate() {
    let database = Database::new().await;
    let (ticket, agent) = listed(&database, &[volume("v")]).await;
    let many: Vec<(&str, u64)> = (0..100).map(|n| ("small", n)).chain([("big", u64::MAX)]).collect();
    let path = "p".repeat(100_000) + "/end";
    let directories = Some(entries(&[(&path, 1)]));
    let long = VolumeResult { top_files: Some(entries(&many)), top_directories: directories, ..result("v", 1) };
    assert_eq!(agent.report(ticket, &[long]).await, Reply::Ok);
    let kept = "SELECT count(*) FROM scan_results WHERE jsonb_array_length(top_files) = 20 AND top_directories -> 0 ->> 'path' LIKE '%/end' AND length(top_directories -> 0 ->> 'path') = 1024
        AND top_files -> 0 = '{\"path\": \"big\", \"allocated_bytes\": 9223372036854775807}' AND top_files -> 19 ->> 'allocated_bytes' = '81'";
    assert_eq!(database.number(kept).await, 1);
}

/// A row that PostgreSQL refuses is named by its SQLSTATE class, by which the agent tells bad data from a bad database.
#[tokio::test]
async fn a_row_that_cannot_be_stored_is_refused_as_such() {
    let database = Database::new().await;
    let (ticket, agent) = listed(&database, &[volume("v")]).await;
    let bad = VolumeResult { skipped_mounts: vec!["nul\0".to_owned()], ..result("v", 1) };
    let error = agent.try_report(ticket, &[bad]).await.unwrap_err();
    let state = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
    assert_eq!(state, "22P05");
    assert_eq!(agent.report(ticket, &[result("v", 1)]).await, Reply::Ok, "the ticket still holds");
}

/// Longer than an index takes: the data of this one call is at fault, not the database.
#[tokio::test]
async fn text_too_long_for_an_index_is_bad_data() {
    let database = Database::new().await;
    let args = database::args(database::OWNER, &database.name, &[]);
    let store = Store::connect_lazy(&args, volumeviz::config::database::Role::Owner).unwrap();
    let name: String = (0..400).map(|_| Uuid::new_v4().simple().to_string()).collect();
    let volume = volumes::NewVolume { node: "n1".to_owned(), name, ..volumes::NewVolume::default() };
    let created = store
        .run("create a volume", std::time::Duration::from_secs(10), async |conn| volumes::create(conn, &volume).await);
    let error = created.await.unwrap_err();
    assert!(error.is_invalid_data() && !error.is_transient(), "{error}");
}

/// What the agent cuts to is what the indexes take, however little it compresses.
#[tokio::test]
async fn cut_text_fits_every_index() {
    let database = Database::new().await;
    let long: String = (0..400).map(|_| Uuid::new_v4().simple().to_string()).collect();
    let cut = |most| text::bounded(long.as_str().into(), most).into_owned();
    let node = "n".repeat(253);
    let run = plan(&database, "once", &[&node]).await;
    let ticket = ticket(&database, run, &node).await;
    let agent = Agent::on(&database, &node);
    agent.claimed(ticket).await;
    let name = cut(docker::MAX_NAME);
    let listed = InventoryVolume {
        driver: cut(docker::MAX_NAME),
        labels: [(cut(docker::MAX_KEY), cut(docker::MAX_VALUE))].into(),
        ..volume(&name)
    };
    let mounted = InventoryMount { volume: name.clone(), destination: cut(docker::MAX_DESTINATION), read_write: true };
    let holder = InventoryContainer { mounts: vec![mounted], ..container(&cut(docker::MAX_NAME), "running", &[]) };
    assert_eq!(agent.inventory(ticket, &[listed], &[holder]).await, Reply::Ok);
    assert_eq!(agent.report(ticket, &[result(&name, 1)]).await, Reply::Ok);
    assert_eq!(agent.complete(ticket, 1).await, Reply::Ok);
    assert_eq!(
        database.number("SELECT count(*) FROM volumes WHERE is_active AND name LIKE '%[cut, 12800 bytes, %'").await,
        1
    );
}
