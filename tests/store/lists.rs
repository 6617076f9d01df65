//! Lists of volumes: any filter, order and page equals the same done in Rust.

use std::cmp::Ordering;

use chrono::{DateTime, Duration, Utc};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::PgConnection;
use volumeviz::store::Labels;
use volumeviz::store::filter::VolumeFilter;
use volumeviz::store::page::{Direction, Page, VolumeList, VolumeSort};
use volumeviz::store::volumes::{self, Volume};

use super::*;

const VOLUMES: i64 = 120;

/// Volumes that differ in everything a filter looks at, many of them alike in one thing or another.
async fn fill(database: &Database) {
    let sql = "
        INSERT INTO volumes (volume_id, node, name, driver, labels, is_active, is_anonymous, first_seen_at, last_scanned, deleted_at)
        SELECT node || '/' || name || n, node, name || CASE WHEN n % 7 = 0 THEN '' ELSE (n % 5)::text END || CASE WHEN n % 11 = 0 THEN '_%' ELSE '' END,
            CASE n % 3 WHEN 0 THEN 'local' WHEN 1 THEN 'rclone' ELSE 'Local' END,
            CASE n % 4 WHEN 0 THEN '{}' WHEN 1 THEN '{\"app\": \"db\"}' WHEN 2 THEN '{\"app\": \"db\", \"tier\": \"1\"}' ELSE '{\"app\": \"web\"}' END::jsonb,
            n % 2 = 0, n % 5 = 0, '2026-01-01T00:00:00Z'::timestamptz + make_interval(hours => n / 3),
            CASE WHEN n % 6 > 0 THEN '2026-02-01T00:00:00Z'::timestamptz + make_interval(hours => n % 10) END,
            CASE WHEN n % 13 = 0 THEN now() END
        FROM generate_series(1, $1::integer) AS n, LATERAL (VALUES ((ARRAY['a', 'b', 'c'])[1 + n % 3], (ARRAY['data', 'Data', 'x', 'données'])[1 + n % 4])) AS base (node, name)";
    let mut conn = database.superuser().await;
    sqlx::query(sql).bind(i32::try_from(VOLUMES).unwrap()).execute(&mut **conn).await.unwrap();
    database::execute(
        &mut conn,
        "UPDATE volume_rankings SET allocated_bytes = CASE WHEN volume_id % 4 > 0 THEN (volume_id % 9) * 100 END,
             growth_bytes_per_day = CASE WHEN volume_id % 3 > 0 THEN (volume_id % 7) - 3 END;
         INSERT INTO volume_latest (volume_id, scan_result_id, measured_at, completeness, growth_bytes_per_day)
             SELECT volume_id, 1, now(), 'Complete', growth_bytes_per_day FROM volume_rankings;
         INSERT INTO containers (container_id, node, name, image, state, deleted_at)
             SELECT n::text, 'a', 'c', 'i', CASE n % 2 WHEN 0 THEN 'running' ELSE 'exited' END, CASE WHEN n = 4 THEN now() END FROM generate_series(1, 4) AS n;
         INSERT INTO container_volumes (container_id, volume_id, mount_path, read_write)
             SELECT containers.id, volumes.id, '/d', true FROM containers, volumes WHERE volumes.id % 6 = containers.id"
            .to_owned(),
    )
    .await;
}

fn filters() -> impl Strategy<Value = VolumeFilter> {
    let time = || {
        prop::option::weighted(0.2, (0..12_i64).prop_map(|hours| at("2026-02-01T00:00:00Z") + Duration::hours(hours)))
    };
    let bytes = || prop::option::weighted(0.2, (-1..9_i64).prop_map(|n| n * 100));
    let names = prop::sample::select(vec!["*", "data*", "?ata?", "*_%", "*%*", "x", "d*1", "donn?es*", "", "D*", "\\"]);
    let labels = prop::sample::select(vec![
        Labels::default(),
        Labels::from([("app", "db")]),
        Labels::from([("app", "db"), ("tier", "1")]),
        Labels::from([("none", "")]),
    ]);
    let truth = || prop::option::weighted(0.3, any::<bool>());
    let word =
        |words: Vec<&'static str>| prop::option::weighted(0.3, prop::sample::select(words).prop_map(str::to_owned));
    (
        (
            prop::option::weighted(0.3, names.prop_map(str::to_owned)),
            word(vec!["a", "b", "A", "a'--"]),
            word(vec!["local", "Local", "%"]),
        ),
        prop_oneof![3 => Just(Labels::default()), 2 => labels],
        (truth(), truth(), truth()),
        (bytes(), bytes()),
        (time(), time()),
    )
        .prop_map(
            |(
                (name, node, driver),
                labels,
                (is_active, orphaned, anonymous),
                (min_bytes, max_bytes),
                (scanned_before, scanned_after),
            )| {
                VolumeFilter {
                    name,
                    node,
                    driver,
                    labels,
                    is_active,
                    orphaned,
                    anonymous,
                    min_bytes,
                    max_bytes,
                    scanned_before,
                    scanned_after,
                }
            },
        )
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn glob(pattern: &[char], text: &[char]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => glob(rest, text) || text.split_first().is_some_and(|(_, tail)| glob(pattern, tail)),
        (Some((p, rest)), Some((t, tail))) => (*p == '?' || p == t) && glob(rest, tail),
        _ => false,
    }
}

fn matches(filter: &VolumeFilter, volume: &Volume) -> bool {
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    let is = |wanted: Option<bool>, found: bool| wanted.is_none_or(|wanted| wanted == found);
    filter.name.as_ref().is_none_or(|pattern| glob(&chars(pattern), &chars(&volume.name)))
        && filter.node.as_ref().is_none_or(|node| *node == volume.node)
        && filter.driver.as_ref().is_none_or(|driver| *driver == volume.driver)
        && volume.labels.contains(&filter.labels)
        && is(filter.is_active, volume.is_active)
        && is(filter.orphaned, volume.running_containers + volume.stopped_containers == 0)
        && is(filter.anonymous, volume.is_anonymous)
        && filter.min_bytes.is_none_or(|least| volume.allocated_bytes.is_some_and(|bytes| bytes >= least))
        && filter.max_bytes.is_none_or(|most| volume.allocated_bytes.is_some_and(|bytes| bytes <= most))
        && filter.scanned_before.is_none_or(|before| volume.last_scanned.is_none_or(|scanned| scanned < before))
        && filter.scanned_after.is_none_or(|after| volume.last_scanned.is_some_and(|scanned| scanned >= after))
}

fn order(sort: VolumeSort, direction: Direction, a: &Volume, b: &Volume) -> Ordering {
    let turn = |ordering: Ordering| if direction == Direction::Asc { ordering } else { ordering.reverse() };
    let unknown_last = |a: Option<i64>, b: Option<i64>| match (a, b) {
        (Some(a), Some(b)) => turn(a.cmp(&b)),
        (a, b) => b.is_some().cmp(&a.is_some()),
    };
    let by_key = match sort {
        VolumeSort::Name => turn(a.name.as_bytes().cmp(b.name.as_bytes())),
        VolumeSort::Node => turn(a.node.cmp(&b.node)),
        VolumeSort::FirstSeen => turn(a.first_seen_at.cmp(&b.first_seen_at)),
        VolumeSort::Size => unknown_last(a.allocated_bytes, b.allocated_bytes),
        VolumeSort::Growth => unknown_last(a.growth_bytes_per_day, b.growth_bytes_per_day),
    };
    by_key.then_with(|| turn(a.id.cmp(&b.id)))
}

/// The whole list, page by page.
async fn by_cursor(conn: &mut PgConnection, list: &VolumeList, limit: i64) -> Vec<i64> {
    let mut page = Page::first(limit);
    let mut ids = Vec::new();
    loop {
        let volumes = volumes::list(conn, list, &page).await.unwrap();
        assert_eq!(volumes.total, None, "nobody asked for it");
        ids.extend(volumes.rows.iter().map(|volume| volume.id));
        let Some(next) = volumes.next else { return ids };
        page = Page::after(limit, list.decode(&next).unwrap());
    }
}

#[test]
fn any_filter_order_and_page_equals_the_same_done_in_rust() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (conn, everything) = runtime.block_on(async {
        let database = Database::new().await;
        fill(&database).await;
        let mut conn = database.controller().await;
        let all = volumes::list(&mut conn, &VolumeList::default(), &Page::first(1000)).await.unwrap();
        (tokio::sync::Mutex::new(conn), all.rows)
    });
    assert!(everything.len() > 100 && everything.iter().all(|volume| volume.deleted_at.is_none()));
    let sorts = prop::sample::select(vec![
        VolumeSort::Name,
        VolumeSort::Node,
        VolumeSort::FirstSeen,
        VolumeSort::Size,
        VolumeSort::Growth,
    ]);
    let directions = prop::sample::select(vec![Direction::Asc, Direction::Desc]);
    let inputs = (filters(), sorts, directions, 1..40_i64, 0..150_i64);
    TestRunner::new(Config { cases: 300, ..Config::default() })
        .run(&inputs, |(filter, sort, direction, limit, offset)| {
            let mut expected: Vec<&Volume> = everything.iter().filter(|volume| matches(&filter, volume)).collect();
            expected.sort_by(|a, b| order(sort, direction, a, b));
            let ids: Vec<i64> = expected.iter().map(|volume| volume.id).collect();
            let list = VolumeList { filter, sort, direction };
            let (walked, skipped) = runtime.block_on(async {
                let mut conn = conn.lock().await;
                let skipped = volumes::list(&mut conn, &list, &Page::Offset { limit, offset }).await.unwrap();
                (by_cursor(&mut conn, &list, limit).await, skipped)
            });
            prop_assert_eq!(&walked, &ids);
            prop_assert_eq!(skipped.total, Some(i64::try_from(ids.len()).unwrap()));
            let (skip, take) = (usize::try_from(offset).unwrap(), usize::try_from(limit).unwrap());
            let cut: Vec<i64> = ids.iter().copied().skip(skip).take(take).collect();
            prop_assert_eq!(skipped.rows.iter().map(|volume| volume.id).collect::<Vec<_>>(), cut);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[tokio::test]
async fn the_total_is_counted_when_asked_for() {
    let database = Database::new().await;
    fill(&database).await;
    let mut conn = database.controller().await;
    let page = Page::After { limit: 1, cursor: None, count: true };
    let volumes = volumes::list(&mut conn, &VolumeList::default(), &page).await.unwrap();
    let there = database.number("SELECT count(*) FROM volumes WHERE deleted_at IS NULL").await;
    assert_eq!((volumes.rows.len(), volumes.total), (1, Some(there)));
}

#[tokio::test]
async fn a_page_stays_where_it_is_when_rows_are_added_before_it() {
    let database = Database::new().await;
    fill(&database).await;
    let mut conn = database.controller().await;
    let list = VolumeList { sort: VolumeSort::Name, ..VolumeList::default() };
    let first = volumes::list(&mut conn, &list, &Page::first(10)).await.unwrap();
    let cursor = list.decode(&first.next.unwrap()).unwrap();
    let before = volumes::list(&mut conn, &list, &Page::after(10, cursor.clone())).await.unwrap();
    database::execute(
        &mut **database.superuser().await,
        "INSERT INTO volumes (volume_id, node, name) VALUES ('a/0', 'a', '0')".to_owned(),
    )
    .await;
    let after = volumes::list(&mut conn, &list, &Page::after(10, cursor)).await.unwrap();
    assert_eq!(before, after);
}
