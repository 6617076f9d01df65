//! Sizes over time, and growth.

use chrono::{DateTime, Duration, Utc};
use volumeviz::domain::measurement::VolumeReason;
use volumeviz::store::page::InvalidCursor;
use volumeviz::store::sizes::{self, Cursor, Range, Resolution, SizePoint};
use volumeviz::store::volumes;

use super::*;

/// A finished run of one volume on `n1`, the only one there then; returns the volume's id.
async fn measured(database: &Database, key: &str, result: VolumeResult) -> i64 {
    let name = result.volume.clone();
    let run = plan(database, key, &["n1"]).await;
    let ticket = ticket(database, run, "n1").await;
    let agent = Agent::on(database, "n1");
    agent.claimed(ticket).await;
    agent.inventory(ticket, &[volume(&name)], &[]).await;
    assert_eq!(agent.report(ticket, &[result]).await, Reply::Ok);
    assert_eq!(agent.complete(ticket, 1).await, Reply::Ok);
    sqlx::query("UPDATE scan_runs SET completed_at = clock_timestamp(), result = 'Succeeded' WHERE id = $1")
        .bind(run)
        .execute(&mut **database.superuser().await)
        .await
        .unwrap();
    database.number("SELECT id FROM volumes WHERE deleted_at IS NULL").await
}

/// Daily samples of the volume before today, one a day, the newest last.
async fn past(database: &Database, volume: i64, sizes: &[i64], method: &str) {
    sqlx::query(
        "INSERT INTO volume_sizes_daily
         SELECT $1, (at AT TIME ZONE 'UTC')::date, $3, 1, bytes, bytes, bytes, bytes, 1, at
         FROM unnest($2::bigint[]) WITH ORDINALITY AS sample (bytes, place),
             LATERAL (SELECT clock_timestamp() - make_interval(days => (cardinality($2) - place + 1)::integer) AS at) AS time",
    )
    .bind(volume)
    .bind(sizes)
    .bind(method)
    .execute(&mut **database.superuser().await)
    .await
    .unwrap();
}

/// Monthly partitions reach back to yesterday; growth looks at 14 days.
async fn with_past_month(database: &Database) {
    let sql = "DO $$ DECLARE first date := date_trunc('month', (clock_timestamp() AT TIME ZONE 'UTC') - interval '1 month')::date; BEGIN
        IF to_regclass('public.volume_sizes_daily_' || to_char(first, 'YYYYMM')) IS NULL THEN
            EXECUTE format('CREATE TABLE volume_sizes_daily_%s PARTITION OF volume_sizes_daily FOR VALUES FROM (%L) TO (%L)',
                to_char(first, 'YYYYMM'), first, (first + interval '1 month')::date);
        END IF; END $$";
    database::execute(&mut **database.superuser().await, sql.to_owned()).await;
}

/// A database in which growth can be asked for.
async fn with_past() -> Database {
    let database = Database::new().await;
    with_past_month(&database).await;
    database
}

/// The growth of a volume of its own with these sizes in the past days and `now` today.
async fn growth_after(database: &Database, sizes: &[i64], now: i64, method: &str) -> Option<i64> {
    let name = Uuid::new_v4().to_string();
    let id = measured(database, &format!("{name}/1"), result(&name, now.unsigned_abs())).await;
    past(database, id, sizes, method).await;
    measured(database, &format!("{name}/2"), result(&name, now.unsigned_abs())).await;
    let volume = volumes::get(&mut *database.controller().await, id).await.unwrap();
    let complete = volume.growth_samples.is_some() && volume.growth_window_days.is_some();
    assert_eq!(volume.growth_bytes_per_day.is_some(), complete);
    volume.growth_bytes_per_day
}

fn near(growth: Option<i64>, expected: i64) -> bool {
    growth.is_some_and(|growth| (growth - expected).abs() <= 1 + expected.abs() / 100)
}

#[tokio::test]
async fn growth_is_the_trend_of_the_days() {
    let database = with_past().await;
    let growth = growth_after(&database, &[1000, 2000, 3000, 4000], 5000, "Walk").await;
    assert!(near(growth, 1000), "{growth:?}");
    let growth = growth_after(&database, &[5000, 4000, 3000, 2000], 1000, "Walk").await;
    assert!(near(growth, -1000), "{growth:?}");
    assert_eq!(growth_after(&database, &[7000, 7000, 7000, 7000], 7000, "Walk").await, Some(0));
}

#[tokio::test]
async fn one_outlier_does_not_move_growth() {
    let database = with_past().await;
    for wrong in [0, 1_000_000_000] {
        for position in 0..5 {
            let mut sizes = [1000, 2000, 3000, 4000, 5000];
            sizes[position] = wrong;
            let growth = growth_after(&database, &sizes[..4], sizes[4], "Walk").await;
            assert!(near(growth, 1000), "{sizes:?}: {growth:?}");
        }
    }
}

#[tokio::test]
async fn there_is_growth_from_five_complete_samples_of_one_method_only() {
    let database = with_past().await;
    assert_eq!(growth_after(&database, &[1000, 2000, 3000], 4000, "Walk").await, None);
    assert_eq!(growth_after(&database, &[1000, 2000, 3000, 4000], 5000, "Statvfs").await, None, "another series");
}

#[tokio::test]
async fn what_is_not_complete_leaves_growth_as_it_was() {
    let database = with_past().await;
    let id = measured(&database, "1", result("v", 5000)).await;
    past(&database, id, &[1000, 2000, 3000, 4000], "Walk").await;
    measured(&database, "2", result("v", 5000)).await;
    let partial =
        VolumeResult { completeness: Completeness::Partial, reason: Some(VolumeReason::ReadErrors), ..result("v", 9) };
    measured(&database, "3", partial).await;
    let volume = volumes::get(&mut *database.controller().await, id).await.unwrap();
    assert!(near(volume.growth_bytes_per_day, 1000), "{volume:?}");
}

#[tokio::test]
async fn lists_are_sorted_by_what_was_measured_last() {
    let database = Database::new().await;
    let id = measured(&database, "1", result("v", 4096)).await;
    let ranked = "SELECT allocated_bytes FROM volume_rankings";
    assert_eq!(database.number(ranked).await, 4096);
    measured(&database, "2", VolumeResult::unknown("v", VolumeReason::Unreadable)).await;
    assert_eq!(database.number(ranked).await, 4096, "what was known last");
    let volume = volumes::get(&mut *database.controller().await, id).await.unwrap();
    assert_eq!((volume.completeness.as_deref(), volume.allocated_bytes), (Some("Unknown"), Some(4096)));
    assert_eq!((volume.capacity_bytes, volume.available_bytes), (Some(1 << 40), Some(1 << 30)));
    measured(&database, "3", result("v", 100)).await;
    assert_eq!(database.number(ranked).await, 100);
}

#[tokio::test]
async fn a_missing_partition_loses_no_result() {
    let database = Database::new().await;
    let mut superuser = database.superuser().await;
    database::execute(
        &mut superuser,
        "DO $$ DECLARE part text; BEGIN FOR part IN SELECT inhrelid::regclass::text FROM pg_inherits
             WHERE inhparent IN ('volume_sizes'::regclass, 'volume_sizes_daily'::regclass) AND inhrelid::regclass::text NOT LIKE '%idx'
             AND inhrelid::regclass::text NOT LIKE '%pkey' LOOP EXECUTE 'DROP TABLE ' || part; END LOOP; END $$"
            .to_owned(),
    )
    .await;
    measured(&database, "1", result("v", 10)).await;
    assert_eq!(database.number("SELECT count(*) FROM scan_results").await, 1);
    assert_eq!(database.number("SELECT allocated_bytes FROM volume_latest").await, 10);
    assert_eq!(database.number("SELECT count(*) FROM volume_sizes").await, 0);
    let args = maintain_args(&database);
    volumeviz::maintain::round(&args).await.unwrap();
    measured(&database, "2", result("v", 20)).await;
    assert_eq!(database.number("SELECT count(*) FROM volume_sizes").await, 1, "maintain made today's partition again");
    assert_eq!(database.number("SELECT count(*) FROM volume_sizes_daily").await, 1);
}

#[tokio::test]
async fn a_result_too_old_for_its_partition_takes_no_other_with_it() {
    let database = Database::new().await;
    let run = plan(&database, "1", &["n1"]).await;
    let ticket = ticket(&database, run, "n1").await;
    let agent = Agent::on(&database, "n1");
    agent.claimed(ticket).await;
    agent.inventory(ticket, &[volume("old"), volume("new")], &[]).await;
    let old = VolumeResult { age_ms: 5 * 86_400_000, ..result("old", 10) };
    assert_eq!(agent.report(ticket, &[old, result("new", 20)]).await, Reply::Ok);
    assert_eq!(database.number("SELECT count(*) FROM scan_results").await, 2);
    assert_eq!(database.number("SELECT sum(allocated_bytes)::bigint FROM volume_sizes").await, 20);
}

/// The newer outcome says nothing of how big it was then.
#[tokio::test]
async fn a_late_complete_result_is_the_last_complete_one_all_the_same() {
    let database = Database::new().await;
    let id = measured(&database, "newer", VolumeResult::unknown("v", VolumeReason::Unreadable)).await;
    measured(&database, "older", VolumeResult { age_ms: 600_000, ..result("v", 1000) }).await;
    measured(&database, "older still", VolumeResult { age_ms: 1_200_000, ..result("v", 500) }).await;
    let volume = volumes::get(&mut *database.controller().await, id).await.unwrap();
    assert_eq!(volume.completeness.as_deref(), Some("Unknown"));
    assert_eq!(database.number("SELECT complete_allocated_bytes FROM volume_latest").await, 1000);
}

/// Raw sizes each 6 hours for the last days, and their daily rows.
async fn series(database: &Database, days: i32) -> (i64, DateTime<Utc>) {
    with_past_month(database).await;
    let id = measured(database, "1", result("v", 1)).await;
    let mut conn = database.superuser().await;
    sqlx::query("SELECT maintain.make_partitions(1)").execute(&mut **conn).await.unwrap();
    for sql in [
        "DO $$ DECLARE day date; BEGIN FOR day IN SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date - n FROM generate_series(2, 25) AS n LOOP
             EXECUTE format('CREATE TABLE volume_sizes_%s PARTITION OF volume_sizes FOR VALUES FROM (%L) TO (%L)', to_char(day, 'YYYYMMDD'),
                 day || ' 00:00:00+00', day + 1 || ' 00:00:00+00'); END LOOP; END $$",
        "DELETE FROM volume_sizes; DELETE FROM volume_sizes_daily",
        "UPDATE volumes SET first_seen_at = clock_timestamp() - interval '50 days'",
    ] {
        database::execute(&mut conn, sql.to_owned()).await;
    }
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&mut **conn).await.unwrap();
    sqlx::query(
        "INSERT INTO volume_sizes (created_at, volume_id, scan_result_id, completeness, method, allocated_bytes, files)
         SELECT $2::timestamptz - make_interval(hours => 6 * n), $1, 1, 'Complete', 'Walk', n, 1 FROM generate_series(0, 4 * $3 - 1) AS n",
    )
    .bind(id)
    .bind(now)
    .bind(days)
    .execute(&mut **conn)
    .await
    .unwrap();
    database::execute(
        &mut conn,
        "INSERT INTO volume_sizes_daily SELECT volume_id, (created_at AT TIME ZONE 'UTC')::date, 'Walk', count(*), min(allocated_bytes),
             max(allocated_bytes), min(allocated_bytes), 1, 1, max(created_at) FROM volume_sizes GROUP BY 1, 2"
            .to_owned(),
    )
    .await;
    (id, now + Duration::seconds(1))
}

#[tokio::test]
async fn a_short_range_is_answered_raw_and_a_long_one_by_day() {
    let database = Database::new().await;
    let (id, now) = series(&database, 20).await;
    let mut conn = database.controller().await;
    let mut ask = async |days: i64, resolution| {
        let range = Range { from: now - Duration::days(days), to: now, resolution, after: None };
        sizes::history(&mut conn, id, &range, 500).await.unwrap()
    };
    let raw = ask(5, Resolution::Auto).await;
    assert_eq!((raw.resolution, raw.points.len()), (Resolution::Raw, 20));
    assert!(raw.points.is_sorted_by_key(|point| point.at) && raw.points.iter().all(|point| point.samples == 1));
    let daily = ask(15, Resolution::Auto).await;
    assert_eq!(daily.resolution, Resolution::Daily);
    assert!((15..=16).contains(&daily.points.len()) && daily.points.iter().all(|point| point.samples <= 4));
    assert_eq!(ask(15, Resolution::Raw).await.points.len(), 60);
    assert_eq!(ask(5, Resolution::Daily).await.resolution, Resolution::Daily);
    let (from, to) = (now - Duration::days(40), now - Duration::days(35));
    let before_raw =
        sizes::history(&mut conn, id, &Range { from, to, resolution: Resolution::Auto, after: None }, 500).await;
    assert_eq!(before_raw.unwrap().resolution, Resolution::Daily, "raw sizes of then are gone");
}

/// A history read page by page; at which resolutions, and its points.
async fn paged(
    database: &Database,
    id: i64,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    resolution: Resolution,
    limit: i64,
) -> (Vec<Resolution>, Vec<SizePoint>) {
    let mut conn = database.controller().await;
    let (mut resolutions, mut points) = (Vec::new(), Vec::new());
    let mut range = Range { from, to, resolution, after: None };
    loop {
        let page = sizes::history(&mut conn, id, &range, limit).await.unwrap();
        assert!(page.points.len() <= usize::try_from(limit).unwrap());
        resolutions.push(page.resolution);
        points.extend(page.points);
        assert!(points.len() < 1000, "pages without end");
        let Some(next) = page.next else { return (resolutions, points) };
        range.after = Some(Cursor::decode(&next, id, resolution).unwrap());
    }
}

#[tokio::test]
async fn a_history_is_read_on_from_where_a_page_ended() {
    let database = Database::new().await;
    let (id, now) = series(&database, 5).await;
    let range = (now - Duration::days(5), now);
    let (_, points) = paged(&database, id, range, Resolution::Raw, 7).await;
    let read: Vec<i64> = points.iter().map(|point| point.allocated_bytes).collect();
    assert_eq!(read, (0..20).rev().collect::<Vec<_>>());
    let (resolutions, by_day) = paged(&database, id, range, Resolution::Daily, 2).await;
    let (_, whole) = paged(&database, id, range, Resolution::Daily, 500).await;
    assert_eq!(by_day, whole);
    assert!((5..=6).contains(&whole.len()) && resolutions.iter().all(|found| *found == Resolution::Daily));
}

#[tokio::test]
async fn what_was_measured_at_the_same_time_is_neither_lost_nor_repeated_between_pages() {
    let database = Database::new().await;
    let (id, now) = series(&database, 5).await;
    for copy in [
        "INSERT INTO volume_sizes (created_at, volume_id, scan_result_id, completeness, method, allocated_bytes, files)
             SELECT created_at, volume_id, 2, 'Complete', 'Statvfs', allocated_bytes + 1000, 1 FROM volume_sizes",
        // The other method of each day was measured later in one and earlier in the other direction of their names.
        "INSERT INTO volume_sizes_daily SELECT volume_id, day, 'Statvfs', samples, 1, 1, 1, 1, 1, last_at FROM volume_sizes_daily",
        "INSERT INTO volume_sizes_daily SELECT volume_id, day, 'Another', samples, 1, 1, 1, 1, 1, last_at + interval '1 microsecond' FROM volume_sizes_daily WHERE method = 'Walk'",
    ] {
        database::execute(&mut **database.superuser().await, copy.to_owned()).await;
    }
    for resolution in [Resolution::Raw, Resolution::Daily] {
        let range = (now - Duration::days(5), now);
        let (_, whole) = paged(&database, id, range, resolution, 500).await;
        assert!(whole.len() >= 15, "{resolution:?}: {}", whole.len());
        assert!(whole.is_sorted_by_key(|point| point.at));
        for limit in 1..=4 {
            let (_, read) = paged(&database, id, range, resolution, limit).await;
            assert_eq!(read, whole, "{resolution:?}, pages of {limit}");
        }
    }
}

#[tokio::test]
async fn what_fits_a_history_is_judged_once_for_all_its_pages() {
    let database = Database::new().await;
    let (id, now) = series(&database, 20).await;
    let (resolutions, points) = paged(&database, id, (now - Duration::days(20), now), Resolution::Auto, 8).await;
    assert_eq!(resolutions, [Resolution::Daily; 3], "the last pages are of less than 7 days");
    assert!((20..=21).contains(&points.len()));
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_history_only() {
    let database = Database::new().await;
    let (id, now) = series(&database, 5).await;
    let range = Range { from: now - Duration::days(5), to: now, resolution: Resolution::Raw, after: None };
    let next = sizes::history(&mut *database.controller().await, id, &range, 1).await.unwrap().next.unwrap();
    assert_eq!(Cursor::decode(&next, id + 1, Resolution::Raw), Err(InvalidCursor::OtherList));
    assert_eq!(Cursor::decode(&next, id, Resolution::Daily), Err(InvalidCursor::OtherList));
    assert_eq!(Cursor::decode("2026-01-01T00:00:00Z", id, Resolution::Raw), Err(InvalidCursor::Unreadable));
}

/// A result that waited while the database was away, and arrives after one that was measured later.
#[tokio::test]
async fn a_late_result_never_overwrites_a_newer_one() {
    let database = Database::new().await;
    let id = measured(&database, "newer", result("v", 2000)).await;
    let late = |bytes| VolumeResult {
        age_ms: 600_000,
        filesystem: Some(Filesystem { capacity_bytes: 1, available_bytes: 1 }),
        ..result("v", bytes)
    };
    measured(&database, "older", late(1000)).await;
    let unknown = VolumeResult { age_ms: 600_000, ..VolumeResult::unknown("v", VolumeReason::Unreadable) };
    measured(&database, "older still", unknown).await;
    let volume = volumes::get(&mut *database.controller().await, id).await.unwrap();
    assert_eq!((volume.completeness.as_deref(), volume.allocated_bytes), (Some("Complete"), Some(2000)));
    assert_eq!((volume.capacity_bytes, volume.available_bytes), (Some(1 << 40), Some(1 << 30)));
    for (sql, expected) in [
        ("SELECT complete_allocated_bytes FROM volume_latest", 2000),
        ("SELECT (complete_measured_at = measured_at)::integer::bigint FROM volume_latest", 1),
        // Which of two days they are on depends on the time of day.
        ("SELECT last_allocated_bytes FROM volume_sizes_daily ORDER BY day DESC LIMIT 1", 2000),
        ("SELECT sum(samples)::bigint FROM volume_sizes_daily", 2),
        ("SELECT min(min_allocated_bytes) FROM volume_sizes_daily", 1000),
        ("SELECT (last_scanned = (SELECT max(measured_at) FROM scan_results))::integer::bigint FROM volumes", 1),
    ] {
        assert_eq!(database.number(sql).await, expected, "{sql}");
    }
}

pub(crate) fn maintain_args(database: &Database) -> volumeviz::maintain::Args {
    volumeviz::maintain::Args {
        listen: "127.0.0.1:0".parse().unwrap(),
        raw_retention_days: 30,
        daily_retention_days: 730,
        database: database::args(database::OWNER, &database.name, &[]),
    }
}
