//! `spec.schedule` and `spec.timeZone`, and when they are due: lines of expression, time zone, second since 1970.

#![no_main]

use chrono::{DateTime, TimeDelta, Utc};
use libfuzzer_sys::fuzz_target;
use volumeviz::domain::schedule::{MAX_COUNTED, Passed, Schedule};

/// From year -9999 to year 9999: what a status can hold.
const TIMES: std::ops::Range<i64> = -377_700_000_000..253_400_000_000;

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let (expression, zone) = (lines.next().unwrap_or_default(), lines.next().filter(|zone| !zone.is_empty()));
    let second = lines.next().and_then(|second| second.parse().ok()).unwrap_or(1_774_750_000);
    match Schedule::parse(expression, zone) {
        Ok(schedule) if TIMES.contains(&second) => due(&schedule, DateTime::from_timestamp(second, 0).unwrap()),
        Ok(_) => {}
        Err(invalid) => {
            let told = invalid.to_string();
            assert!(told.starts_with("spec.schedule: ") || told.starts_with("spec.timeZone: "), "{told}");
        }
    }
});

/// The next due time is later, at the beginning of a minute, the first, and found again from anywhere before it. What has passed is told to the
/// second, and counted up to its bound.
fn due(schedule: &Schedule, now: DateTime<Utc>) {
    let Some(next) = schedule.next_after(now) else { return };
    assert!(next > now, "{next} is not after {now}");
    assert_eq!(schedule.next_after(next - TimeDelta::seconds(1)), Some(next));
    assert_eq!(schedule.next_after(now + (next - now) / 2).map(|again| again <= next), Some(true));
    assert_eq!(schedule.passed(now, next), Some(Passed { latest: next, count: 1 }));
    assert_eq!(schedule.passed(now, next - TimeDelta::seconds(1)), None);
    let until = now + TimeDelta::days(400);
    match schedule.passed(now, until) {
        Some(Passed { latest, count }) => {
            assert!(next <= latest && latest <= until && (1..=MAX_COUNTED).contains(&count));
            assert!(schedule.next_after(latest).is_none_or(|later| later > until), "{latest} is not the last");
        }
        None => assert!(next > until),
    }
}
