//! The product's own vocabulary: pure values and rules.
//!
//! Nothing here knows Kubernetes, SQL, Docker or HTTP, and nothing here does I/O or reads a clock; every other module builds on it.

pub mod alert;
pub mod bytes;
pub mod contract;
pub mod dispatch;
pub mod growth;
pub mod measurement;
pub mod run;
pub mod schedule;
pub mod selector;
pub mod text;
pub mod work;
