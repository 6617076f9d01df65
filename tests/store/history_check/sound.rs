//! What a history of calls must be like: nothing acknowledged is lost or doubled, and a ticket that was replaced acknowledges nothing.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

/// A call that was acknowledged: begun before `asked`, over after `answered`, in microseconds of the history.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Acknowledged {
    pub asked: u128,
    pub answered: u128,
    pub ticket: Uuid,
    pub what: What,
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
pub(super) fn check(history: &[Acknowledged], rows: &Rows) -> Vec<String> {
    let mut wrong = Vec::new();
    let job_of = |call: &Acknowledged| rows.jobs.get(&call.ticket).copied();
    let mut reported: BTreeMap<(i64, &str), Vec<i64>> = BTreeMap::new();
    for call in history {
        let Some(job) = job_of(call) else {
            wrong.push(format!("a ticket that no job had: {call:?}"));
            continue;
        };
        if let What::Reported(results) = &call.what {
            for (volume, bytes) in results {
                reported.entry((job, volume)).or_default().push(*bytes);
            }
        }
        if call.what == What::Completed && rows.ended.get(&job).is_none_or(|(_, _, state)| state != "succeeded") {
            wrong.push(format!("a completion was acknowledged and lost: {call:?}"));
        }
    }
    for ((job, volume), bytes) in &reported {
        match rows.results.iter().find(|(of, name, _)| (of, name.as_str()) == (job, *volume)) {
            None => wrong.push(format!("job {job}: the result of {volume} was acknowledged and is lost")),
            Some((_, _, kept)) if !bytes.contains(kept) => {
                wrong.push(format!("job {job}: {volume} is {kept}, and nobody reported that"));
            }
            Some(_) => {}
        }
    }
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

/// Calls that began after the end of their ticket was acknowledged, and were acknowledged all the same.
fn after_replacement(history: &[Acknowledged]) -> Vec<String> {
    let ends = history.iter().filter(|call| matches!(call.what, What::Replaced | What::GaveUp));
    let ends: BTreeMap<Uuid, u128> = ends.map(|call| (call.ticket, call.answered)).collect();
    let late = |call: &&Acknowledged| ends.get(&call.ticket).is_some_and(|end| call.asked > *end);
    history.iter().filter(late).map(|call| format!("acknowledged under a ticket that was replaced: {call:?}")).collect()
}

/// A small history that holds, to be forged.
fn sound() -> (Vec<Acknowledged>, Rows) {
    let [first, second] = [1, 2].map(Uuid::from_u128);
    let call = |at, ticket, what| Acknowledged { asked: at, answered: at + 5, ticket, what };
    let reported = |volume: &str, bytes| What::Reported(vec![(volume.to_owned(), bytes)]);
    let history = vec![
        call(0, first, What::Claimed),
        call(10, first, What::Listed),
        call(20, first, reported("a", 1)),
        call(30, first, What::Replaced),
        // Under way while the ticket was replaced: it may have come first.
        call(33, first, reported("a", 1)),
        call(40, second, What::Claimed),
        call(50, second, What::Listed),
        call(60, second, reported("b", 2)),
        call(70, second, What::Completed),
    ];
    let rows = Rows {
        jobs: [(first, 7), (second, 7)].into(),
        ended: [(7, (1, "n1".to_owned(), "succeeded".to_owned()))].into(),
        results: vec![(7, "a".to_owned(), 1), (7, "b".to_owned(), 2)],
        run_ends: [(1, (true, 1))].into(),
        ..Rows::default()
    };
    (history, rows)
}

type Forgery = (&'static str, fn(&mut Vec<Acknowledged>, &mut Rows));

#[test]
fn a_forged_history_is_rejected() {
    let (history, rows) = sound();
    assert_eq!(check(&history, &rows), [""; 0]);
    let forgeries: [Forgery; 9] = [
        ("is lost", |_, rows| _ = rows.results.pop()),
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
    ];
    for (expected, forge) in forgeries {
        let (mut history, mut rows) = sound();
        forge(&mut history, &mut rows);
        let wrong = check(&history, &rows);
        assert!(wrong.iter().any(|wrong| wrong.contains(expected)), "{expected}: {wrong:?}");
    }
}
