//! What a history of calls must be like: nothing acknowledged is lost or doubled, and a ticket that was replaced acknowledges nothing.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

/// A call: begun before `asked`, over after `answered`, in microseconds of the history. One that was refused is none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub asked: u128,
    pub answered: u128,
    pub ticket: Uuid,
    pub what: What,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Acknowledged,
    /// Its connection was cut before the answer: it may have happened, or not.
    Unknown,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Claimed,
    Listed,
    /// These sizes of these volumes; final for the run unless they were already.
    Reported(Vec<(String, i64)>),
    Completed,
    /// `fail`: whatever came before, the ticket ends here.
    GaveUp,
    /// By a leader: re-ticketed, ended or cancelled.
    Replaced,
}

/// What the rows say in the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Rows {
    /// Every ticket that a job ever had, as far as anybody saw, with the job.
    pub jobs: BTreeMap<Uuid, i64>,
    /// Run, node and state of each job.
    pub ended: BTreeMap<i64, (i64, String, String)>,
    /// Size of each result, by job and volume; more than one: doubled.
    pub results: Vec<(i64, String, i64)>,
    /// Selected volumes of each job that succeeded which have no result.
    pub missing: i64,
    /// Results without exactly one size, and days whose samples do not add up.
    pub miscounted: i64,
    /// Runs that ended, and how often that was acknowledged.
    pub run_ends: BTreeMap<i64, (bool, usize)>,
}

/// What is wrong with a history; nothing when it holds.
pub(super) fn check(history: &[Call], rows: &Rows) -> Vec<String> {
    let mut wrong = Vec::new();
    let unknown = history.iter().filter(|call| !rows.jobs.contains_key(&call.ticket));
    wrong.extend(unknown.map(|call| format!("a ticket that no job had: {call:?}")));
    wrong.extend(lost(history, rows));
    wrong.extend(from_nobody(history, rows));
    let once: BTreeSet<_> = rows.results.iter().map(|(job, volume, _)| (job, volume)).collect();
    if once.len() < rows.results.len() {
        wrong.push("a volume has two results in one job".to_owned());
    }
    wrong.extend(after_replacement(history));
    let mut succeeded = BTreeSet::new();
    for (run, node, state) in rows.ended.values() {
        if state == "succeeded" && !succeeded.insert((run, node)) {
            wrong.push(format!("run {run} has two successes on {node}"));
        }
    }
    if rows.missing > 0 {
        wrong.push(format!("{} volumes of completed jobs have no result", rows.missing));
    }
    if rows.miscounted > 0 {
        wrong.push(format!("{} results or days are counted otherwise in the sizes", rows.miscounted));
    }
    for (run, (ended, acknowledged)) in &rows.run_ends {
        if *acknowledged > 1 || (*acknowledged == 1 && !ended) {
            wrong.push(format!("the end of run {run} was acknowledged {acknowledged} times; it has ended: {ended}"));
        }
    }
    wrong
}

fn acknowledged(history: &[Call]) -> impl Iterator<Item = &Call> {
    history.iter().filter(|call| call.outcome == Outcome::Acknowledged)
}

/// What was acknowledged and is not there.
fn lost(history: &[Call], rows: &Rows) -> Vec<String> {
    let mut lost = BTreeSet::new();
    for call in acknowledged(history) {
        let Some(job) = rows.jobs.get(&call.ticket) else { continue };
        match &call.what {
            What::Completed if rows.ended.get(job).is_none_or(|(_, _, state)| state != "succeeded") => {
                lost.insert(format!("a completion was acknowledged and lost: {call:?}"));
            }
            What::Reported(results) => {
                let gone = results
                    .iter()
                    .filter(|(volume, _)| !rows.results.iter().any(|kept| (kept.0, &kept.1) == (*job, volume)));
                lost.extend(
                    gone.map(|(volume, _)| format!("job {job}: the result of {volume} was acknowledged and is lost")),
                );
            }
            _ => {}
        }
    }
    lost.into_iter().collect()
}

/// What is there and comes of no call, acknowledged or not.
fn from_nobody(history: &[Call], rows: &Rows) -> Vec<String> {
    let made = |job: i64, did: &dyn Fn(&What) -> bool| {
        history.iter().any(|call| rows.jobs.get(&call.ticket) == Some(&job) && did(&call.what))
    };
    let results = rows.results.iter().filter(|(job, volume, bytes)| {
        !made(*job, &|what| matches!(what, What::Reported(results) if results.contains(&(volume.clone(), *bytes))))
    });
    let results =
        results.map(|(job, volume, bytes)| format!("job {job}: {volume} is {bytes}, and nobody reported that"));
    let succeeded = rows
        .ended
        .iter()
        .filter(|(job, (_, _, state))| state == "succeeded" && !made(**job, &|what| *what == What::Completed));
    results.chain(succeeded.map(|(job, _)| format!("job {job} succeeded, and nobody completed it"))).collect()
}

/// Calls that began after the end of their ticket was acknowledged, and were acknowledged all the same.
fn after_replacement(history: &[Call]) -> Vec<String> {
    let ends = acknowledged(history).filter(|call| matches!(call.what, What::Replaced | What::GaveUp));
    let ends: BTreeMap<Uuid, u128> = ends.map(|call| (call.ticket, call.answered)).collect();
    let late = |call: &&Call| ends.get(&call.ticket).is_some_and(|end| call.asked > *end);
    acknowledged(history)
        .filter(late)
        .map(|call| format!("acknowledged under a ticket that was replaced: {call:?}"))
        .collect()
}

/// A small history that holds, to be forged.
fn sound() -> (Vec<Call>, Rows) {
    let [first, second] = [1, 2].map(Uuid::from_u128);
    let call = |at, ticket, what| Call { asked: at, answered: at + 5, ticket, what, outcome: Outcome::Acknowledged };
    let reported = |volume: &str, bytes| What::Reported(vec![(volume.to_owned(), bytes)]);
    let cut = |call: Call| Call { outcome: Outcome::Unknown, ..call };
    let history = vec![
        call(0, first, What::Claimed),
        call(10, first, What::Listed),
        call(20, first, reported("a", 1)),
        call(30, first, What::Replaced),
        // Under way while the ticket was replaced: it may have come first.
        call(33, first, reported("a", 1)),
        call(40, second, What::Claimed),
        // Cut: of these only the last has happened, and nothing was replaced.
        cut(call(42, first, reported("b", 7))),
        cut(call(44, second, What::Replaced)),
        cut(call(46, second, reported("c", 3))),
        call(50, second, What::Listed),
        call(60, second, reported("b", 2)),
        cut(call(65, second, What::Completed)),
        call(70, second, What::Completed),
    ];
    let rows = Rows {
        jobs: [(first, 7), (second, 7)].into(),
        ended: [(7, (1, "n1".to_owned(), "succeeded".to_owned()))].into(),
        results: [("a", 1), ("b", 2), ("c", 3)].map(|(volume, bytes)| (7, volume.to_owned(), bytes)).into(),
        run_ends: [(1, (true, 1))].into(),
        ..Rows::default()
    };
    (history, rows)
}

type Forgery = (&'static str, fn(&mut Vec<Call>, &mut Rows));

#[test]
fn a_forged_history_is_rejected() {
    let (history, rows) = sound();
    assert_eq!(check(&history, &rows), [""; 0]);
    let forgeries: [Forgery; 14] = [
        ("the result of b was acknowledged and is lost", |_, rows| _ = rows.results.remove(1)),
        ("the result of a was acknowledged and is lost", |_, rows| _ = rows.results.remove(0)),
        ("nobody reported that", |_, rows| rows.results[0].2 = 9),
        ("two results", |_, rows| rows.results.push((7, "a".to_owned(), 1))),
        ("was replaced", |history, _| history[4].asked = 36),
        ("a completion was acknowledged and lost", |_, rows| {
            rows.ended.get_mut(&7).unwrap().2 = "cancelled".to_owned();
        }),
        ("two successes", |_, rows| _ = rows.ended.insert(8, rows.ended[&7].clone())),
        ("have no result", |_, rows| rows.missing = 1),
        ("acknowledged 2 times", |_, rows| rows.run_ends.get_mut(&1).unwrap().1 = 2),
        ("a ticket that no job had", |history, _| history[0].ticket = Uuid::nil()),
        // What was cut and kept, twice; from nobody; and what was cut and is said to have been acknowledged.
        ("two results", |_, rows| rows.results.push((7, "c".to_owned(), 3))),
        ("c is 3, and nobody reported that", |history, _| _ = history.remove(8)),
        ("nobody completed it", |history, _| history.truncate(11)),
        ("under a ticket that was replaced", |history, _| history[7].outcome = Outcome::Acknowledged),
    ];
    for (expected, forge) in forgeries {
        let (mut history, mut rows) = sound();
        forge(&mut history, &mut rows);
        let wrong = check(&history, &rows);
        assert!(wrong.iter().any(|wrong| wrong.contains(expected)), "{expected}: {wrong:?}");
    }
}

/// Else a history with cut calls could be taken for a wrong one, whatever became of them.
#[test]
fn a_call_that_was_cut_may_have_happened_or_not() {
    let (history, mut rows) = sound();
    rows.results.pop();
    assert_eq!(check(&history, &rows), [""; 0], "the cut report of c did not happen");
    let (mut history, rows) = sound();
    history.pop();
    assert_eq!(check(&history, &rows), [""; 0], "the cut completion has happened");
    let (mut history, mut rows) = sound();
    history.pop();
    rows.ended.get_mut(&7).unwrap().2 = "cancelled".to_owned();
    assert_eq!(check(&history, &rows), [""; 0], "the cut completion did not happen");
}
