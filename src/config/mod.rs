//! Settings, parsed once from options and environment.

pub mod database;
