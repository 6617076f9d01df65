//! What the sources must look like: arrows between modules, generated files, the chart, budgets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_stack_arrays,
    reason = "a test fails by panicking"
)]

mod chart;
mod dashboards;
mod documents;
mod fuzz;
mod generated;
mod layers;
mod logs;
mod metrics;
mod notifications;
mod promql;
mod reference;
mod release;
mod rules;
mod runbook;
mod security;
#[path = "../kit/tool.rs"]
mod tool;
