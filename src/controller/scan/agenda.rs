//! What a scan's schedule asks for now: a pure function of the spec, the last status and what was observed.
//!
//! The status remembers since when the schedule is followed and which due time was dealt with last; the database knows which runs were made.
//! Nothing between the two can be lost: a run that was made is found by its key, and a status that was not written is worked out again.

use chrono::{DateTime, TimeDelta, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::observe::{Observed, Runs};
use crate::crd::conditions::to_seconds;
use crate::crd::{ConcurrencyPolicy, FollowedSchedule, VolumeScan, VolumeScanStatus};
use crate::domain::schedule::{Invalid, Schedule};

/// What the schedule asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agenda {
    /// The schedule as it is followed from now on; absent without one, and while the scan is suspended.
    pub followed: Option<FollowedSchedule>,
    /// The run that is due now.
    pub due: Option<DateTime<Utc>>,
    /// When the next one is due.
    pub next: Option<DateTime<Utc>>,
    /// The last due time that is dealt with.
    pub settled: Option<DateTime<Utc>>,
    /// Due times that passed without a run.
    pub skipped: Option<Skipped>,
}

/// Due times that passed without a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: i64,
    /// Why the last of them did not start.
    pub cause: Cause,
}

/// Why a run that was due did not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Another run was under way, and `concurrencyPolicy` is `Forbid`.
    RunActive,
    /// `startingDeadlineSeconds` passed: the controller or the database was away.
    TooLate,
    /// A later one was made up for instead.
    Overtaken,
}

impl Cause {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunActive => "another run was under way",
            Self::TooLate => "startingDeadlineSeconds passed before it could",
            Self::Overtaken => "a later one was made up for",
        }
    }
}

/// Works it out.
pub fn agenda(scan: &VolumeScan, observed: &Observed) -> Result<Agenda, Invalid> {
    let Some(expression) = &scan.spec.schedule else { return Ok(Agenda::default()) };
    let schedule = Schedule::parse(expression, scan.spec.time_zone.as_deref())?;
    let status = scan.status.clone().unwrap_or_default();
    let told = status.last_schedule_time.as_ref().and_then(to_chrono);
    if scan.spec.suspend {
        return Ok(Agenda { settled: told, ..Agenda::default() });
    }
    let now = DateTime::from_timestamp(observed.now.as_second(), 0).unwrap_or_default();
    let followed = follow(scan, &status, expression, observed.now);
    let since = to_chrono(&followed.since).max(told).unwrap_or(now);
    let mut agenda =
        Agenda { followed: Some(followed), next: schedule.next_after(now), settled: told, ..Agenda::default() };
    if let Some(runs) = &observed.runs {
        agenda.settle(scan, &schedule, runs, since, now);
    }
    Ok(agenda)
}

impl Agenda {
    /// Deals with the due times after `since`, up to now.
    fn settle(
        &mut self,
        scan: &VolumeScan,
        schedule: &Schedule,
        runs: &Runs,
        mut since: DateTime<Utc>,
        now: DateTime<Utc>,
    ) {
        let made: Vec<_> = runs.due_times.iter().take_while(|due| **due > since).collect();
        if let Some(latest) = made.first() {
            let passed = schedule.passed(since, **latest).map_or(0, |passed| passed.count);
            let made = i64::try_from(made.len()).unwrap_or(i64::MAX);
            self.skip(passed - made, Cause::Overtaken);
            self.settled = Some(**latest);
            since = **latest;
        }
        let Some(passed) = schedule.passed(since, now) else { return };
        let deadline = TimeDelta::seconds(scan.spec.starting_deadline_seconds.into());
        let cause = if now - passed.latest > deadline {
            Cause::TooLate
        } else if runs.active.as_ref().is_some_and(|active| {
            // One that began after this was due came in its place.
            scan.spec.concurrency_policy == ConcurrencyPolicy::Forbid || active.run.created_at > passed.latest
        }) {
            Cause::RunActive
        } else {
            // Those before it are dealt with together with it, when its run is there.
            self.due = Some(passed.latest);
            return;
        };
        self.skip(passed.count, cause);
        self.settled = Some(passed.latest);
    }

    fn skip(&mut self, count: i64, cause: Cause) {
        if count > 0 {
            let before = self.skipped.map_or(0, |skipped| skipped.count);
            self.skipped = Some(Skipped { count: before.saturating_add(count), cause });
        }
    }
}

/// A new scan's schedule holds from its creation; one that was changed, or suspended until now, from now on.
fn follow(scan: &VolumeScan, status: &VolumeScanStatus, expression: &str, now: Timestamp) -> FollowedSchedule {
    let same = status
        .schedule
        .clone()
        .filter(|followed| followed.expression == expression && followed.time_zone == scan.spec.time_zone);
    let created = scan.metadata.creation_timestamp.clone().filter(|_| status.observed_generation.is_none());
    same.unwrap_or_else(|| FollowedSchedule {
        expression: expression.to_owned(),
        time_zone: scan.spec.time_zone.clone(),
        since: created.unwrap_or_else(|| Time(to_seconds(now))),
    })
}

fn to_chrono(time: &Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.0.as_second(), 0)
}
