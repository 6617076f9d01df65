//! When a schedule is due: five cron fields in a time zone.
//!
//! Changes of the clock follow Vixie cron. A job at a fixed time that the clock skips runs right after the jump; one whose time comes twice
//! runs at the first. A job that repeats (`*` or steps in minute or hour) follows real time: it runs in both passes of a repeated hour.

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

/// Due times that are counted one by one; a controller that was away for longer tells "at least".
pub const MAX_COUNTED: i64 = 1000;

/// The fields of a schedule, for people.
pub const FIELDS: &str = "minute (0-59), hour (0-23), day of month (1-31), month (1-12), day of week (0-7, SUN-SAT)";

/// A schedule that can be followed.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: Tz,
}

/// A schedule that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not five cron fields.
    #[error("spec.schedule: {expression:?} is not a cron schedule: {problem}")]
    Expression {
        /// As given.
        expression: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A date that never comes, such as 30 February.
    #[error("spec.schedule: {expression:?} never comes")]
    Never {
        /// As given.
        expression: String,
    },
    /// Not in the IANA time zone database.
    #[error("spec.timeZone: {name:?} is not an IANA time zone such as Europe/Berlin")]
    TimeZone {
        /// As given.
        name: String,
    },
}

/// Due times that have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// The last of them.
    pub latest: DateTime<Utc>,
    /// How many; at least so many from [`MAX_COUNTED`] on.
    pub count: i64,
}

impl Schedule {
    /// Parses `spec.schedule` and `spec.timeZone` (absent: UTC).
    pub fn parse(expression: &str, time_zone: Option<&str>) -> Result<Self, Invalid> {
        let name = time_zone.unwrap_or("UTC");
        let zone: Tz = name.parse().map_err(|_| Invalid::TimeZone { name: name.to_owned() })?;
        let invalid = |problem: String| Invalid::Expression { expression: expression.to_owned(), problem };
        // croner knows nicknames such as @daily; one way to say it is enough.
        if expression.split_whitespace().count() != 5 {
            return Err(invalid(format!("it must have five fields: {FIELDS}")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(expression).map_err(|error| {
            let problem = error.to_string();
            invalid(format!("{}; the fields are {FIELDS}", problem.trim_end_matches('.')))
        })?;
        let schedule = Self { cron, zone };
        match schedule.next_after(DateTime::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(Invalid::Never { expression: expression.to_owned() }),
        }
    }

    /// The first due time after this one; `None` at the end of the calendar.
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.cron.find_next_occurrence(&time.with_timezone(&self.zone), false).ok()?;
        Some(next.with_timezone(&Utc)).filter(|next| *next > time)
    }

    /// The due times after `after`, up to and with `until`.
    pub fn passed(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<Passed> {
        let mut passed: Option<Passed> = None;
        let mut from = after;
        while let Some(latest) = self.next_after(from).filter(|next| *next <= until) {
            let count = passed.map_or(0, |passed| passed.count) + 1;
            passed = Some(Passed { latest, count: count.min(MAX_COUNTED) });
            from = if count == MAX_COUNTED { latest.max(self.shortly_before_last(until)) } else { latest };
        }
        passed
    }

    /// A day before the last due time up to `until`: far enough for a clock that was set back, and few steps to go on from.
    fn shortly_before_last(&self, until: DateTime<Utc>) -> DateTime<Utc> {
        let last = self.cron.find_previous_occurrence(&until.with_timezone(&self.zone), true);
        last.map_or(until, |last| last.with_timezone(&Utc)) - TimeDelta::days(1)
    }
}

/// What can be told of a schedule without parsing it, in RE2's syntax: five fields of values within their bounds. A range that runs backwards
/// and a date that never comes get through.
pub fn pattern() -> String {
    let day = "0?[1-9]|[12][0-9]|3[01]";
    let weekday = "0?[0-7]|sun|mon|tue|wed|thu|fri|sat";
    let fields = [
        field("[*]", "[0-5]?[0-9]", ""),
        field("[*]", "[01]?[0-9]|2[0-3]", ""),
        field("[*?]", day, &format!("|L|LW|({day})W")),
        field("[*]", "0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec", ""),
        format!("[+]?{}", field("[*?]", weekday, &format!("|L|({weekday})L|({weekday})(-({weekday}))?#(L|[1-5])"))),
    ];
    format!("(?i)^{}$", fields.join(" +"))
}

/// Any value, or a list of values, of ranges and steps, and of what else this field may have.
fn field(any: &str, value: &str, or_else: &str) -> String {
    let step = "/0*[1-9][0-9]{0,3}";
    let item = format!("({value}|({value})-({value})({step})?|[*]{step}{or_else})");
    format!("({any}|{item}(,{item})*)")
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn schedule(expression: &str, zone: &str) -> Schedule {
        Schedule::parse(expression, Some(zone)).unwrap()
    }

    fn times(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = schedule(expression, zone);
        let next = |time: &DateTime<Utc>| schedule.next_after(*time);
        let first = next(&utc(after));
        std::iter::successors(first, next).take(count).map(|time| time.format("%m-%dT%H:%M").to_string()).collect()
    }

    #[test]
    fn fields_mean_what_cron_says() {
        assert_eq!(times("30 3 * * *", "UTC", "2026-01-01T03:30:00Z", 2), ["01-02T03:30", "01-03T03:30"]);
        assert_eq!(
            times("0 0 13 * 5", "UTC", "2026-02-01T00:00:00Z", 3),
            ["02-06T00:00", "02-13T00:00", "02-20T00:00"],
            "day of month or day of week, as soon as both are given"
        );
        assert_eq!(times("0 9 * * MON-FRI", "UTC", "2026-01-02T09:00:00Z", 1), ["01-05T09:00"]);
        assert_eq!(times("0 3 * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", 1), ["01-01T02:00"]);
    }

    /// Europe/Berlin, 29 March 2026: 02:00 CET becomes 03:00 CEST (01:00 UTC).
    #[test]
    fn a_fixed_time_that_the_clock_skips_is_due_right_after() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            ["03-28T01:30", "03-29T01:00", "03-30T00:30"]
        );
        assert_eq!(
            times("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 4),
            ["03-29T00:30", "03-29T01:00", "03-29T01:30", "03-29T02:00"],
            "what repeats follows real time"
        );
    }

    /// Europe/Berlin, 25 October 2026: 03:00 CEST becomes 02:00 CET (01:00 UTC).
    #[test]
    fn a_fixed_time_that_comes_twice_is_due_once() {
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", 3),
            ["10-24T00:30", "10-25T00:30", "10-26T01:30"]
        );
        assert_eq!(
            times("0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 4),
            ["10-25T00:00", "10-25T01:00", "10-25T02:00", "10-25T03:00"],
            "what repeats follows real time"
        );
    }

    #[test]
    fn what_cannot_be_followed_names_its_field() {
        for (expression, zone, field) in [
            ("* * * *", "UTC", "spec.schedule"),
            ("* * * * * *", "UTC", "spec.schedule"),
            ("@daily", "UTC", "spec.schedule"),
            ("61 * * * *", "UTC", "spec.schedule"),
            ("0 0 30 2 *", "UTC", "spec.schedule"),
            ("CRON_TZ=UTC 0 0 * *", "UTC", "spec.schedule"),
            ("0 0 * * *", "Mars/Olympus", "spec.timeZone"),
            ("0 0 * * *", "", "spec.timeZone"),
        ] {
            let error = Schedule::parse(expression, Some(zone)).unwrap_err().to_string();
            assert!(error.starts_with(field), "{expression:?} {zone:?}: {error}");
        }
    }

    fn is_let_in(expression: &str) -> bool {
        static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new(&pattern()).unwrap());
        PATTERN.is_match(expression)
    }

    #[test]
    fn what_cron_knows_is_let_in() {
        for expression in [
            "* * * * *",
            "*/5 1-3 * * MON-FRI",
            "0,30  9-17/2 1,15 jan-jun,Dec *",
            "59 23 31 12 7",
            "00 00 01 01 00",
            "0 0 L * ?",
            "0 0 LW,15W * *",
            "0 0 ? * MON#1,fri#5,5L,2#L",
            "0 0 13 * +5",
            "0 0 * * sat-sun",
            "*/05 */06 * * *",
            "0 9 * * MON-FRI#1,2-4#L",
        ] {
            assert!(Schedule::parse(expression, None).is_ok(), "{expression:?} can be followed");
            assert!(is_let_in(expression), "{expression:?} is let in");
        }
    }

    #[test]
    fn values_out_of_bounds_are_not_let_in() {
        for expression in [
            "60 0 * * *",
            "0 24 * * *",
            "30 25 * * *",
            "0 0 0 * *",
            "0 0 32 * *",
            "0 0 * 0 *",
            "0 0 * 13 *",
            "0 0 * * 8",
            "0-60 * * * *",
            "*/0 * * * *",
            "5/10 * * * *",
            "/5 * * * *",
            "1,,2 * * * *",
            ", * * * *",
            "MON * * * *",
            "0 0 * * MONDAY",
            "0 0 * FOO *",
            "0 0 * * 1#6",
            "L 0 * * *",
            "? 0 * * *",
            "-1 * * * *",
            "0 0 * *",
            "* * * * * *",
            " * * * * *",
            "@daily",
            "CRON_TZ=UTC 0 0 * *",
        ] {
            assert!(!is_let_in(expression), "{expression:?} is let in");
        }
    }

    #[test]
    fn passed_times_are_counted_up_to_a_bound_and_the_last_is_exact() {
        let schedule = schedule("* * * * *", "UTC");
        let passed = |from: &str, to: &str| schedule.passed(utc(from), utc(to));
        let three = Passed { latest: utc("2026-01-01T00:03:00Z"), count: 3 };
        assert_eq!(passed("2026-01-01T00:00:00Z", "2026-01-01T00:03:59Z"), Some(three));
        assert_eq!(passed("2026-01-01T00:00:00Z", "2026-01-01T00:00:59Z"), None);
        let year = Passed { latest: utc("2027-01-01T00:00:00Z"), count: MAX_COUNTED };
        assert_eq!(passed("2026-01-01T00:00:00Z", "2027-01-01T00:00:30Z"), Some(year));
        let weekly = Schedule::parse("30 2 * * SUN", Some("Europe/Berlin")).unwrap();
        let decades = Passed { latest: utc("2026-01-04T01:30:00Z"), count: MAX_COUNTED };
        assert_eq!(weekly.passed(utc("1970-01-01T00:00:00Z"), utc("2026-01-09T23:00:00Z")), Some(decades));
    }

    const MONTHS: [&str; 12] = ["jan", "Feb", "MAR", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    const WEEKDAYS: [&str; 7] = ["sun", "Mon", "TUE", "wed", "thu", "fri", "sat"];

    /// A field of cron as its manual has it, of values from `first` to `last`, which may have names.
    fn fields(first: usize, last: usize, names: &'static [&'static str]) -> impl Strategy<Value = String> {
        let value = move |value: usize, looks: u8| match (looks, names.get(value.wrapping_sub(first))) {
            (0, Some(name)) => (*name).to_owned(),
            (1, _) => format!("{value:02}"),
            _ => value.to_string(),
        };
        let item =
            (first..=last, first..=last, 1..=99_u16, 0..5_u8, 0..3_u8).prop_map(move |(a, b, step, kind, looks)| {
                let (from, to) = (value(a.min(b), looks), value(a.max(b), looks));
                match kind {
                    0 => from,
                    1 => format!("{from}-{to}"),
                    2 => format!("{from}-{to}/{step}"),
                    3 => format!("*/{step:02}"),
                    _ => format!("*/{step}"),
                }
            });
        prop_oneof![Just("*".to_owned()), prop::collection::vec(item, 1..4).prop_map(|items| items.join(",")),]
    }

    proptest! {
        #[test]
        fn numbers_and_names_within_bounds_are_let_in(
            fields in (fields(0, 59, &[]), fields(0, 23, &[]), fields(1, 31, &[]), fields(1, 12, &MONTHS), fields(0, 6, &WEEKDAYS)),
        ) {
            let (minute, hour, day, month, weekday) = fields;
            let expression = format!("{minute} {hour} {day} {month} {weekday}");
            prop_assert!(is_let_in(&expression));
            let parsed = Schedule::parse(&expression, None);
            prop_assert!(matches!(parsed, Ok(_) | Err(Invalid::Never { .. })), "{:?}", parsed);
        }

        /// In any zone and at any time: the next due time is later, is the first, and is found again from just before it.
        #[test]
        fn due_times_are_strictly_ordered(
            second in 1_500_000_000_i64..1_900_000_000,
            expression in prop::sample::select(vec!["* * * * *", "30 2 * * *", "*/7 1-3 * * *", "0 0 1 * *", "15 2 * 3,10 SUN"]),
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia"]),
        ) {
            let schedule = schedule(expression, zone);
            let now = DateTime::from_timestamp(second, 0).unwrap();
            let next = schedule.next_after(now).unwrap();
            prop_assert!(next > now);
            prop_assert_eq!(schedule.passed(now, next), Some(Passed { latest: next, count: 1 }));
            prop_assert_eq!(schedule.passed(now, next - TimeDelta::seconds(1)), None);
            let later = schedule.next_after(next).unwrap();
            prop_assert!(later > next);
        }
    }
}
