//! The `volumeviz` executable.
fn main() {}
