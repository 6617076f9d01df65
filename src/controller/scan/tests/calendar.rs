//! Schedules, suspension, cancelling and deletion by table and by law.

use super::super::agenda::{Cause, Skipped, agenda};
use super::super::next_pass;
use super::super::plan::expiry;
use super::told::{says, truth};
use super::*;
use crate::crd::ConcurrencyPolicy;
use crate::domain::run::CancelReason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Midnight of 1 January 2026, UTC.
const MIDNIGHT: i64 = 1_767_225_600;
const HOUR: i64 = 3600;

/// A scan that is due each full hour and was told of last at `since`.
fn hourly(since: i64) -> VolumeScan {
    let mut scan = scan();
    scan.spec.schedule = Some("0 * * * *".to_owned());
    scan.metadata.creation_timestamp = Some(Time(Timestamp::from_second(since).unwrap()));
    scan
}

/// The same after a pass at `now` that found no run.
fn followed(since: i64, now: i64) -> VolumeScan {
    let mut scan = hourly(since);
    scan.status = Some(status::next(&scan, &idle(now), None));
    scan
}

fn idle(now: i64) -> Observed {
    Observed { now: Timestamp::from_second(now).unwrap(), ..observed(Runs { figures_read: true, ..Runs::default() }) }
}

fn busy(now: i64) -> Observed {
    let mut observed = with_active(active(vec![job(1)]));
    observed.now = Timestamp::from_second(now).unwrap();
    observed.runs.as_mut().unwrap().asked = None;
    observed
}

/// What `now` looks like once the run that was due at `due` is there.
fn started(now: i64, due: i64) -> Observed {
    let mut observed = busy(now);
    observed.runs.as_mut().unwrap().due_times = vec![at(due)];
    observed
}

fn key(scan: &VolumeScan, observed: &Observed) -> Option<String> {
    plan(scan, observed).start.map(|start| start.key.to_string())
}

fn skipped(scan: &VolumeScan, observed: &Observed) -> Option<Skipped> {
    agenda(scan, observed).unwrap().skipped
}

fn second(time: Option<&Time>) -> Option<i64> {
    time.map(|time| time.0.as_second())
}

#[test]
fn a_run_starts_when_it_is_due_and_not_before() {
    let scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    assert_eq!(key(&scan, &idle(MIDNIGHT + HOUR - 1)), None);
    assert_eq!(key(&scan, &idle(MIDNIGHT + HOUR)).as_deref(), Some("s:2026-01-01T01:00:00Z"));
    let told = status::next(&scan, &started(MIDNIGHT + HOUR, MIDNIGHT + HOUR), None);
    assert_eq!(second(told.last_schedule_time.as_ref()), Some(MIDNIGHT + HOUR));
    assert_eq!(second(told.next_schedule_time.as_ref()), Some(MIDNIGHT + 2 * HOUR));
    assert_eq!(told.skipped_runs, None);
}

#[test]
fn a_run_that_was_made_is_not_made_again_whatever_status_was_lost() {
    let scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    let mut over = idle(MIDNIGHT + HOUR + 30);
    over.runs.as_mut().unwrap().due_times = vec![at(MIDNIGHT + HOUR)];
    assert_eq!(plan(&scan, &over), Plan::default());
    let mut told = scan.clone();
    told.status = Some(status::next(&scan, &over, None));
    let restored = idle(MIDNIGHT + HOUR + 60);
    assert_eq!(plan(&told, &restored), Plan::default(), "the status remembers what a restored database does not");
}

#[test]
fn a_scan_that_is_new_is_due_from_its_creation_on() {
    let seen_late = hourly(MIDNIGHT + HOUR - 30);
    assert_eq!(key(&seen_late, &idle(MIDNIGHT + HOUR + 100)).as_deref(), Some("s:2026-01-01T01:00:00Z"));
    assert_eq!(key(&hourly(MIDNIGHT + HOUR + 1), &idle(MIDNIGHT + HOUR + 100)), None);
}

#[test]
fn of_missed_runs_the_last_is_made_up_for_within_its_deadline() {
    let scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    let back = MIDNIGHT + 5 * HOUR + 299;
    assert_eq!(key(&scan, &idle(back)).as_deref(), Some("s:2026-01-01T05:00:00Z"));
    let told = status::next(&scan, &started(back, MIDNIGHT + 5 * HOUR), None);
    assert_eq!(told.skipped_runs, Some(4));
    let too_late = idle(MIDNIGHT + 5 * HOUR + 301);
    assert_eq!(key(&scan, &too_late), None);
    assert_eq!(skipped(&scan, &too_late), Some(Skipped { count: 5, cause: Cause::TooLate }));
    let told = status::next(&scan, &too_late, None);
    assert_eq!((told.skipped_runs, second(told.last_schedule_time.as_ref())), (Some(5), Some(MIDNIGHT + 5 * HOUR)));
}

#[test]
fn forbid_skips_and_counts_once_and_replace_cancels() {
    let mut scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    let due = busy(MIDNIGHT + HOUR);
    assert_eq!(key(&scan, &due), None);
    assert_eq!(skipped(&scan, &due), Some(Skipped { count: 1, cause: Cause::RunActive }));
    let mut told = scan.clone();
    told.status = Some(status::next(&scan, &due, None));
    assert_eq!(skipped(&told, &busy(MIDNIGHT + HOUR + 1)), None, "it is dealt with");
    assert_eq!(key(&told, &idle(MIDNIGHT + HOUR + 2)), None, "skipped is not put off");

    scan.spec.concurrency_policy = ConcurrencyPolicy::Replace;
    let plan = plan(&scan, &due);
    assert_eq!(plan.finish, Some(Finish::Cancel(CancelReason::Replaced)));
    assert_eq!(plan.start.unwrap().key.to_string(), "s:2026-01-01T01:00:00Z");
}

#[test]
fn a_trigger_is_never_skipped() {
    let mut scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    scan.spec.trigger = Some("now".to_owned());
    assert_eq!(key(&scan, &busy(MIDNIGHT + 120)), None, "it waits");
    assert_eq!(key(&scan, &idle(MIDNIGHT + 120)).as_deref(), Some("t:now"));
    assert_eq!(key(&scan, &idle(MIDNIGHT + HOUR)).as_deref(), Some("t:now"), "and goes before what is scheduled");
    scan.spec.concurrency_policy = ConcurrencyPolicy::Replace;
    assert_eq!(key(&scan, &busy(MIDNIGHT + 120)).as_deref(), Some("t:now"));
}

#[test]
fn a_trigger_whose_run_is_past_the_history_limit_starts_nothing() {
    let mut scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    scan.spec.trigger = Some("once".to_owned());
    let mut done = idle(MIDNIGHT + 120);
    done.runs.as_mut().unwrap().asked = Some(7);
    scan.status = Some(status::next(&scan, &done, None));
    assert_eq!(plan(&scan, &idle(MIDNIGHT + 180)), Plan::default());
    scan.spec.trigger = Some("again".to_owned());
    assert_eq!(key(&scan, &idle(MIDNIGHT + 180)).as_deref(), Some("t:again"));
}

#[test]
fn a_run_that_began_after_the_due_time_is_not_replaced_for_it() {
    let mut scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    scan.spec.concurrency_policy = ConcurrencyPolicy::Replace;
    let mut later = busy(MIDNIGHT + HOUR + 120);
    later.runs.as_mut().unwrap().active.as_mut().unwrap().run.created_at = at(MIDNIGHT + HOUR + 60);
    assert_eq!((plan(&scan, &later).finish, key(&scan, &later)), (None, None));
    assert_eq!(skipped(&scan, &later), Some(Skipped { count: 1, cause: Cause::RunActive }));
}

#[test]
fn a_scan_without_schedule_whose_run_is_past_the_history_limit_is_done() {
    let mut scan = scan();
    scan.status = Some(status::next(&scan, &at_rest(ended(RunResult::Succeeded, "RunSucceeded")), None));
    let mut purged = at_rest(ended(RunResult::Succeeded, "RunSucceeded"));
    purged.runs.as_mut().unwrap().asked = None;
    assert_eq!(plan(&scan, &purged), Plan::default());
    says(&status::next(&scan, &purged, None), "Ready", "True", "RunSucceeded");
}

#[test]
fn a_suspended_scan_starts_nothing_and_makes_up_for_nothing() {
    let mut scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    scan.spec.suspend = true;
    scan.spec.trigger = Some("now".to_owned());
    let now = idle(MIDNIGHT + HOUR);
    assert_eq!(plan(&scan, &now), Plan::default());
    let told = status::next(&scan, &now, None);
    says(&told, "Ready", "True", "Suspended");
    says(&told, "Scheduled", "False", "Suspended");
    assert_eq!((told.state, &told.schedule, &told.next_schedule_time), (Some(State::Suspended), &None, &None));
    assert!(offered(&plan(&scan, &busy(MIDNIGHT + HOUR)).steps) == [1], "a run under way finishes");

    scan.status = Some(told);
    (scan.spec.suspend, scan.spec.trigger) = (false, None);
    let awake = idle(MIDNIGHT + HOUR + 10);
    assert_eq!(plan(&scan, &awake), Plan::default(), "01:00 passed while it was suspended");
    assert_eq!(skipped(&scan, &awake), None);
    assert_eq!(key(&scan, &idle(MIDNIGHT + 2 * HOUR)), None, "not before the status says that it is followed again");
    scan.status = Some(status::next(&scan, &awake, None));
    assert_eq!(key(&scan, &idle(MIDNIGHT + 2 * HOUR)).as_deref(), Some("s:2026-01-01T02:00:00Z"));
}

#[test]
fn editing_the_schedule_starts_nothing_and_other_edits_change_nothing() {
    let mut scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    scan.metadata.generation = Some(77);
    scan.spec.unused_after_days = 7;
    assert_eq!(key(&scan, &idle(MIDNIGHT + HOUR)).as_deref(), Some("s:2026-01-01T01:00:00Z"));
    scan.spec.schedule = Some("30 * * * *".to_owned());
    let edited = idle(MIDNIGHT + 30 * 60 + 20);
    assert_eq!(plan(&scan, &edited), Plan::default(), "00:30 was before it was asked for");
    scan.status = Some(status::next(&scan, &edited, None));
    assert_eq!(key(&scan, &idle(MIDNIGHT + HOUR)), None);
    assert_eq!(key(&scan, &idle(MIDNIGHT + HOUR + 1800)).as_deref(), Some("s:2026-01-01T01:30:00Z"));
}

#[test]
fn an_invalid_schedule_stalls_and_the_run_under_way_goes_on() {
    let mut scan = hourly(MIDNIGHT);
    scan.spec.time_zone = Some("Mars/Olympus".to_owned());
    let plan = plan(&scan, &busy(MIDNIGHT + HOUR));
    let invalid = plan.invalid.clone().unwrap();
    assert!(invalid.message.starts_with("spec.timeZone"), "{}", invalid.message);
    assert_eq!(offered(&plan.steps), [1]);
    let told = status::next(&scan, &busy(MIDNIGHT + HOUR), Some(&invalid));
    says(&told, "Ready", "False", "InvalidSchedule");
    says(&told, "Stalled", "True", "InvalidSchedule");
    says(&told, "Scheduled", "False", "InvalidSchedule");
}

#[test]
fn a_scheduled_scan_is_ready_whatever_becomes_of_its_runs() {
    let scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    let running = status::next(&scan, &busy(MIDNIGHT + 120), None);
    says(&running, "Ready", "True", "RunActive");
    let mut failed = idle(MIDNIGHT + 120);
    failed.runs.as_mut().unwrap().finished = vec![ended(RunResult::Failed, "NoNodeSucceeded")];
    let told = status::next(&scan, &failed, None);
    says(&told, "Ready", "True", "WaitingForSchedule");
    says(&told, "LastRunSucceeded", "False", "NoNodeSucceeded");
    says(&told, "Scheduled", "True", "WaitingForSchedule");
    assert_eq!((truth(&told, "Stalled"), truth(&told, "Complete"), told.state), (None, None, Some(State::Waiting)));
}

#[test]
fn only_the_run_that_is_named_is_cancelled() {
    let mut scan = scan();
    scan.spec.cancel_run_id = Some(7);
    let plan = |scan: &VolumeScan| plan(scan, &with_active(active(vec![job(1)])));
    assert_eq!(plan(&scan).finish, Some(Finish::Cancel(CancelReason::CancelRequested)));
    assert_eq!((plan(&scan).start, plan(&scan).steps), (None, vec![]));
    scan.spec.cancel_run_id = Some(6);
    assert_eq!((plan(&scan).finish, offered(&plan(&scan).steps)), (None, vec![1]));
}

#[test]
fn a_scan_is_deleted_when_it_has_outlived_its_time() {
    let mut scan = scan();
    scan.spec.ttl_seconds_after_finished = Some(60);
    let mut over = at_rest(ended(RunResult::Failed, "NoNodeSucceeded"));
    over.now = Timestamp::from_second(1069).unwrap();
    assert!(!plan(&scan, &over).delete);
    let wait = next_pass(&scan, &over);
    assert!(wait > Duration::from_millis(1000) && wait < Duration::from_millis(1100), "{wait:?}");
    over.now = Timestamp::from_second(1070).unwrap();
    assert!(plan(&scan, &over).delete);
    assert!(next_pass(&scan, &over) > Duration::from_secs(60), "it is not deleted again before anybody tells");
    scan.spec.trigger = Some("again".to_owned());
    over.runs.as_mut().unwrap().asked = None;
    assert!(!plan(&scan, &over).delete && plan(&scan, &over).start.is_some(), "it has work");
    assert_eq!(expiry(&hourly(0), over.runs.as_ref().unwrap()), None);
}

#[test]
fn at_rest_the_next_pass_comes_when_the_next_run_is_due() {
    let scan = followed(MIDNIGHT + 60, MIDNIGHT + 60);
    let wait = next_pass(&scan, &idle(MIDNIGHT + HOUR - 5));
    assert!(wait > Duration::from_secs(5) && wait < Duration::from_millis(5100), "{wait:?}");
}

/// How far the clock of a leader may be from the right time, in seconds.
const WRONG: std::ops::RangeInclusive<i64> = -600..=600;

/// What the leader sees whose clock shows `now` when these runs were made.
fn seen(now: i64, runs: &[i64], is_active: bool) -> Observed {
    let mut observed = if is_active { busy(now) } else { idle(now) };
    observed.runs.as_mut().unwrap().due_times = newest_first(runs.iter().map(|due| at(*due)));
    observed
}

/// When the run is due that is to start.
fn due(scan: &VolumeScan, observed: &Observed) -> Option<i64> {
    key(scan, observed).map(|key| crate::domain::run::RunKey::due_time(&key).unwrap().timestamp())
}

proptest! {
    /// However the passes fall, however wrong the clock of each one's leader is, whatever statuses are lost and whenever runs end: each due time is
    /// started at most once, and every due time up to the last one dealt with was started or counted as skipped.
    #[test]
    fn every_due_time_is_started_once_or_counted(
        passes in prop::collection::vec((1_i64..5000, prop_oneof![2 => Just(0), 1 => WRONG], any::<[bool; 3]>()), 1..60),
        replace in any::<bool>(),
    ) {
        let mut scan = hourly(MIDNIGHT);
        scan.spec.concurrency_policy = if replace { ConcurrencyPolicy::Replace } else { ConcurrencyPolicy::Forbid };
        scan.status = Some(status::next(&scan, &idle(MIDNIGHT), None));
        let (mut time, mut runs, mut is_active, mut settled) = (MIDNIGHT, Vec::<i64>::new(), false, None);
        for (step, wrong, [ends, written, fails]) in passes {
            time += step;
            let now = time + wrong;
            is_active &= !ends;
            if let Some(due) = due(&scan, &seen(now, &runs, is_active)) {
                if fails {
                    continue;
                }
                prop_assert!(!runs.contains(&due), "{due} started twice");
                prop_assert!(due <= now && now - due <= 300, "{due} at {now}");
                runs.push(due);
                is_active = true;
            }
            if written {
                scan.status = Some(status::next(&scan, &seen(now, &runs, is_active), None));
                let last = second(scan.status.as_ref().unwrap().last_schedule_time.as_ref());
                prop_assert!(last >= settled, "what was dealt with comes again");
                settled = last;
            }
        }
        let last = settled.unwrap_or(MIDNIGHT);
        let started = i64::try_from(runs.iter().filter(|due| **due <= last).count()).unwrap();
        prop_assert_eq!(started + scan.status.unwrap().skipped_runs.unwrap_or(0), (last - MIDNIGHT) / HOUR);
    }

    /// With a deadline that is longer than clocks differ and passes are apart, wrong clocks lose no run: each is made, once, when the first clock
    /// shows its time.
    #[test]
    fn wrong_clocks_lose_no_run_within_its_deadline(
        passes in prop::collection::vec((1_i64..900, WRONG, any::<bool>()), 1..120),
    ) {
        let mut scan = hourly(MIDNIGHT);
        scan.spec.starting_deadline_seconds = 900 + 2 * 600;
        scan.status = Some(status::next(&scan, &idle(MIDNIGHT), None));
        let (mut time, mut latest, mut runs) = (MIDNIGHT, MIDNIGHT, Vec::<i64>::new());
        for (step, wrong, written) in passes {
            time += step;
            let now = time + wrong;
            latest = latest.max(now);
            runs.extend(due(&scan, &seen(now, &runs, false)));
            if written {
                scan.status = Some(status::next(&scan, &seen(now, &runs, false), None));
            }
            let expected: Vec<i64> = (1..=(latest - MIDNIGHT) / HOUR).map(|hour| MIDNIGHT + hour * HOUR).collect();
            prop_assert_eq!(&runs, &expected, "at {}, by a clock that shows {}", time, now);
        }
        prop_assert_eq!(scan.status.unwrap().skipped_runs, None);
    }
}
