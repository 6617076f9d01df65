//! Any spec that the schema lets pass. Every field is made here, one by one: one that is new does not compile until it is.

use prop::bool::weighted;
use prop::collection::{btree_map, vec};
use prop::option;
use prop::sample::{select, subsequence};

use super::*;
use crate::crd::{ConcurrencyPolicy, Measurement};
use crate::domain::selector::{DriverName, LabelOperator, LabelRequirement, VolumeKind, VolumeUsage};
use crate::domain::work::Mode;

/// Up to so many characters: a few of any kind, or as many as there may be of those that take most room.
pub(super) fn any_text(most: usize) -> impl Strategy<Value = String> {
    let long = select(vec!["\u{1}", "\"", "ü", "🌀"]).prop_map(move |character: &str| character.repeat(most));
    prop_oneof![4 => "\\PC{0,8}", 1 => long]
}

pub(super) fn any_schedule() -> impl Strategy<Value = String> {
    let known = vec![
        "* * * * *",
        "0 * * * *",
        "*/7 1-3 * * *",
        "30 2 * * SUN",
        "0 0 29 2 *",
        "0 0 30 2 *",
        "61 * * * *",
        "L W # ? 1",
    ];
    prop_oneof![9 => select(known).prop_map(str::to_owned), 1 => "[^ ]{1,6}( [^ ]{1,6}){4}"]
}

pub(super) fn any_zone() -> impl Strategy<Value = String> {
    prop_oneof![4 => select(&["UTC", "Europe/Berlin", "Australia/Lord_Howe"][..]).prop_map(str::to_owned), 1 => any_text(64)]
}

pub(super) fn any_trigger() -> impl Strategy<Value = String> {
    prop_oneof![select(&["a", "b", "s:2026-01-01T00:00:00Z"][..]).prop_map(str::to_owned), any_text(128)]
}

pub(super) fn any_limit() -> impl Strategy<Value = NodeLimit> {
    prop_oneof![
        1 => (1..=10_000_i32).prop_map(NodeLimit::Count),
        3 => (1..4_i32).prop_map(NodeLimit::Count),
        1 => (1..=100_i32).prop_map(|percent| NodeLimit::Share(format!("{percent}%"))),
    ]
}

prop_compose! {
    fn any_limits()(
        max_parallel_nodes in any_limit(),
        parallel_volumes in 1..=16_i32,
        entries_per_second in option::of(100..=10_000_000_i32),
        volume_timeout_seconds in 10..=86_400_i32,
        (node_more, run_more) in (0..=86_400_i32, 0..=432_000_i32),
        min_interval_seconds in 0..=604_800_i32,
    ) -> Limits {
        let node_timeout_seconds = volume_timeout_seconds + node_more;
        Limits {
            max_parallel_nodes,
            parallel_volumes,
            entries_per_second,
            volume_timeout_seconds,
            node_timeout_seconds,
            run_timeout_seconds: node_timeout_seconds + run_more,
            min_interval_seconds,
        }
    }
}

/// The label that the nodes of these tests have, or any.
fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just("kubernetes.io/hostname".to_owned()), 1 => "[a-z]{1,8}"]
}

fn any_value() -> impl Strategy<Value = LabelValue> {
    prop_oneof![3 => (1..5_u8).prop_map(|number| format!("node-{number}")), 1 => any_text(1024)].prop_map(LabelValue)
}

prop_compose! {
    fn any_requirement()(
        key in any_key(),
        operator in select(vec![LabelOperator::In, LabelOperator::NotIn, LabelOperator::Exists, LabelOperator::DoesNotExist]),
        values in vec(any_value(), 1..3),
    ) -> LabelRequirement {
        let compares = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
        LabelRequirement { key, operator, values: if compares { values } else { Vec::new() } }
    }
}

prop_compose! {
    fn any_label_selector()(
        match_labels in option::of(btree_map(any_key(), any_value(), 0..3)),
        match_expressions in vec(any_requirement(), 0..3),
    ) -> LabelSelector {
        // One of the two must be there.
        let match_expressions = (match_labels.is_none() || !match_expressions.is_empty()).then_some(match_expressions);
        LabelSelector { match_labels, match_expressions }
    }
}

prop_compose! {
    fn any_volume_selector()(
        (names, exclude_names) in (vec("\\PC{1,8}".prop_map(NameGlob), 0..3), vec("\\PC{1,8}".prop_map(NameGlob), 0..3)),
        drivers in vec("\\PC{1,8}".prop_map(DriverName), 0..3),
        labels in option::of(any_label_selector()),
        kinds in subsequence(vec![VolumeKind::Named, VolumeKind::Anonymous], 0..=2),
        usage in subsequence(vec![VolumeUsage::InUse, VolumeUsage::Unused], 0..=2),
    ) -> VolumeSelector {
        VolumeSelector { names, exclude_names, drivers, labels, kinds, usage }
    }
}

prop_compose! {
    fn any_measurement()(mode in select(vec![Mode::Walk, Mode::Fast, Mode::Inventory]), top_entries in 0..=20_i32) -> Measurement {
        Measurement { mode, top_entries }
    }
}

prop_compose! {
    pub(super) fn any_spec()(
        schedule in option::of(any_schedule()),
        time_zone in option::of(any_zone()),
        (suspend, replace) in (weighted(0.2), weighted(0.3)),
        trigger in option::of(any_trigger()),
        cancel_run_id in option::of(prop_oneof![1..9_i64, 1..=i64::MAX]),
        starting_deadline_seconds in 1..=86_400_i32,
        node_selector in option::of(any_label_selector()),
        volume_selector in option::weighted(0.4, any_volume_selector()),
        measurement in any_measurement(),
        limits in any_limits(),
        (max_attempts, unused_after_days, run_history_limit) in (1..=5_i32, 1..=3650_i32, 1..=1000_i32),
        ttl in option::of(prop_oneof![0..1000_i32, 0..=31_536_000_i32]),
    ) -> VolumeScanSpec {
        VolumeScanSpec {
            time_zone: time_zone.filter(|_| schedule.is_some()),
            ttl_seconds_after_finished: ttl.filter(|_| schedule.is_none()),
            schedule,
            suspend,
            trigger,
            cancel_run_id,
            concurrency_policy: if replace { ConcurrencyPolicy::Replace } else { ConcurrencyPolicy::Forbid },
            starting_deadline_seconds,
            node_selector,
            volume_selector,
            measurement,
            limits,
            max_attempts,
            unused_after_days,
            run_history_limit,
        }
    }
}
