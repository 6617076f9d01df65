//! What follows from a figure: the life of one subject, Pending → Firing → over.

use chrono::{DateTime, TimeDelta, Utc};

use super::rule::Limit;
use super::{NoData, Standing};

/// What is known of a subject's figure now, in the rule's unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// Known.
    Exactly(f64),
    /// A part could not be measured: it is this or more.
    AtLeast(f64),
    /// Not known, or from before the last run.
    Missing,
    /// There is no such subject any more.
    Gone,
}

impl Sample {
    /// Whether it is beyond the limit for sure.
    pub fn exceeds(self, limit: &Limit) -> bool {
        match self {
            Self::Exactly(value) => limit.is_exceeded_by(value),
            Self::AtLeast(value) => limit.is_exceeded_by_at_least(value),
            Self::Missing | Self::Gone => false,
        }
    }
}

/// A subject's state before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Pending or Firing.
    pub standing: Standing,
    /// Since when it is open.
    pub since: DateTime<Utc>,
    /// It was opened for want of a figure.
    pub for_want_of_data: bool,
}

/// How an alert judges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    /// The rule's limit.
    pub limit: Limit,
    /// `forSeconds`: how long a figure must be above the limit before it fires.
    pub hold: TimeDelta,
    /// What a subject without a figure means.
    pub no_data: NoData,
}

/// The subject's next state; `None`: nothing is open.
///
/// A lower bound may open a state and keep it, never end it. Without a figure all stays as it was: neither does anything open or end, nor does
/// what is pending fire.
pub fn judge(before: Option<Open>, sample: Sample, policy: &Policy, now: DateTime<Utc>) -> Option<Standing> {
    let firing = before.is_some_and(|open| open.standing == Standing::Firing && !open.for_want_of_data);
    let exceeded = match sample {
        Sample::Exactly(value) if firing => Some(!policy.limit.is_cleared_by(value)),
        Sample::Exactly(_) => Some(sample.exceeds(&policy.limit)),
        Sample::AtLeast(_) => sample.exceeds(&policy.limit).then_some(true),
        Sample::Missing => (policy.no_data == NoData::Alert).then_some(true),
        Sample::Gone => Some(false),
    };
    match (exceeded, before) {
        (None, before) => before.map(|open| open.standing),
        (Some(false), _) => None,
        (Some(true), Some(Open { standing: Standing::Firing, .. })) => Some(Standing::Firing),
        (Some(true), before) => {
            let since = before.map_or(now, |open| open.since);
            Some(if now - since >= policy.hold { Standing::Firing } else { Standing::Pending })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::alert::rule::Rule;

    fn policy(bytes: i64, clear_below: Option<i64>, hold: i64, no_data: NoData) -> Policy {
        Policy { limit: Rule::SizeAbove { bytes }.limit(clear_below), hold: TimeDelta::seconds(hold), no_data }
    }

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    /// Walks a series, one sample a second; the states after each.
    fn life(samples: &[Sample], policy: &Policy) -> Vec<Option<Standing>> {
        let mut open: Option<Open> = None;
        (0..)
            .zip(samples)
            .map(|(second, sample)| {
                let next = judge(open, *sample, policy, at(second));
                let want = |open: Option<Open>| {
                    open.map_or(matches!(sample, Sample::Missing), |open| {
                        open.for_want_of_data && matches!(sample, Sample::Missing)
                    })
                };
                open = next.map(|standing| Open {
                    standing,
                    since: open.map_or_else(|| at(second), |open| open.since),
                    for_want_of_data: want(open),
                });
                next
            })
            .collect()
    }

    /// How often a series of states begins to fire, and how often that ends.
    fn fires_and_ends(states: &[Option<Standing>]) -> (usize, usize) {
        let firing: Vec<bool> = states.iter().map(|state| *state == Some(Standing::Firing)).collect();
        let before = std::iter::once(&false).chain(&firing);
        let changes: Vec<(bool, bool)> = before.copied().zip(firing.iter().copied()).collect();
        let count = |change| changes.iter().filter(|seen| **seen == change).count();
        (count((false, true)), count((true, false)))
    }

    #[test]
    fn what_wobbles_at_the_limit_fires_once_and_ends_at_most_once() {
        for clear_below in [None, Some(950), Some(999)] {
            let wobble: Vec<Sample> =
                (0..200).map(|i| Sample::Exactly(if i % 2 == 0 { 1001.0 } else { 999.5 })).collect();
            let (fires, ends) = fires_and_ends(&life(&wobble, &policy(1000, clear_below, 0, NoData::Keep)));
            assert_eq!((fires, ends), (1, 0), "{clear_below:?}");
        }
    }

    #[test]
    fn fires_when_it_was_above_for_long_enough_and_not_before() {
        let states = life(&[Sample::Exactly(11.0); 5], &policy(10, None, 3, NoData::Keep));
        let pending = Some(Standing::Pending);
        assert_eq!(states, [pending, pending, pending, Some(Standing::Firing), Some(Standing::Firing)]);
    }

    #[test]
    fn a_dip_begins_the_wait_anew() {
        let above = Sample::Exactly(11.0);
        let states = life(&[above, above, Sample::Exactly(10.0), above, above], &policy(10, None, 2, NoData::Keep));
        assert_eq!(states.last(), Some(&Some(Standing::Pending)));
    }

    #[test]
    fn the_limit_itself_is_not_above_it_and_the_lower_one_clears() {
        let policy = policy(100, Some(80), 0, NoData::Keep);
        let states = life(&[100.0, 100.5, 81.0, 80.0].map(Sample::Exactly), &policy);
        assert_eq!(states, [None, Some(Standing::Firing), Some(Standing::Firing), None]);
    }

    #[test]
    fn a_lower_bound_fires_and_never_ends() {
        let policy = policy(100, None, 0, NoData::Keep);
        let states = life(&[Sample::AtLeast(50.0), Sample::AtLeast(101.0), Sample::AtLeast(0.0)], &policy);
        assert_eq!(states, [None, Some(Standing::Firing), Some(Standing::Firing)]);
    }

    #[test]
    fn what_fired_for_want_of_data_ends_with_the_first_figure_that_is_not_above() {
        let policy = policy(100, Some(50), 0, NoData::Alert);
        assert_eq!(life(&[Sample::Missing, Sample::Exactly(80.0)], &policy), [Some(Standing::Firing), None]);
    }

    #[test]
    fn what_is_gone_is_over() {
        let states = life(&[Sample::Exactly(11.0), Sample::Gone], &policy(10, None, 0, NoData::Keep));
        assert_eq!(states, [Some(Standing::Firing), None]);
    }

    fn sample() -> impl Strategy<Value = Sample> {
        prop_oneof![
            (0.0..200.0).prop_map(Sample::Exactly),
            (0.0..200.0).prop_map(Sample::AtLeast),
            Just(Sample::Missing),
            Just(Sample::Gone),
        ]
    }

    fn keeping() -> impl Strategy<Value = NoData> {
        prop_oneof![Just(NoData::Keep), Just(NoData::Ignore)]
    }

    proptest! {
        #[test]
        fn missing_data_changes_nothing(series in prop::collection::vec(sample(), 1..60), hold in 0_i64..5, no_data in keeping()) {
            let states = life(&series, &policy(100, None, hold, no_data));
            for (i, sample) in series.iter().enumerate().filter(|(_, sample)| **sample == Sample::Missing) {
                let before = i.checked_sub(1).and_then(|i| states[i]);
                prop_assert_eq!(states[i], before, "{:?}", sample);
            }
        }

        #[test]
        fn missing_data_ends_nothing_whatever_it_means(series in prop::collection::vec(sample(), 1..60), hold in 0_i64..5) {
            let states = life(&series, &policy(100, None, hold, NoData::Alert));
            for (i, _) in series.iter().enumerate().filter(|(_, sample)| **sample == Sample::Missing) {
                let before = i.checked_sub(1).and_then(|i| states[i]);
                prop_assert!(states[i] >= before);
            }
        }

        #[test]
        fn only_a_figure_at_or_below_the_lower_limit_ends_what_fires(series in prop::collection::vec(sample(), 1..60), hold in 0_i64..5) {
            let policy = policy(100, Some(60), hold, NoData::Keep);
            let states = life(&series, &policy);
            for (i, pair) in states.windows(2).enumerate() {
                if pair[0] == Some(Standing::Firing) && pair[1] != Some(Standing::Firing) {
                    prop_assert!(matches!(series[i + 1], Sample::Exactly(value) if value <= 60.0) || series[i + 1] == Sample::Gone);
                }
            }
        }

        #[test]
        fn nothing_fires_without_a_figure_above_the_limit(series in prop::collection::vec(sample(), 1..60), hold in 0_i64..5) {
            let states = life(&series, &policy(100, None, hold, NoData::Keep));
            let before = std::iter::once(&None).chain(&states);
            for ((before, state), sample) in before.zip(&states).zip(&series) {
                if *state == Some(Standing::Firing) && *before != *state {
                    prop_assert!(matches!(sample, Sample::Exactly(value) | Sample::AtLeast(value) if *value > 100.0));
                }
            }
        }
    }
}
