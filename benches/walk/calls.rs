//! System calls a file, as strace counts them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process;
use crate::sets::Set;
use crate::tools::{Tool, Toolbox};

/// The system calls of one tool.
#[derive(Debug, Clone)]
pub struct Calls {
    /// The tool.
    pub tool: Tool,
    /// All calls of all its threads, from start to end.
    pub total: u64,
    /// The most frequent: name and count.
    pub most: Vec<(String, u64)>,
}

/// How many of the most frequent are told.
const TOLD: usize = 4;

/// Counts the calls of a tool with two threads on a set.
pub fn count(toolbox: &Toolbox, tool: Tool, set: &Set, scratch: &Path) -> Calls {
    let table = scratch.join("calls");
    let traced = toolbox.command(tool, Some(2), &set.paths);
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-U", "calls,name", "-o"]).arg(&table).arg(traced.get_program()).args(traced.get_args());
    process::run(&mut command, scratch).unwrap_or_else(|error| panic!("counting calls of {}: {error}", tool.name()));
    let text = fs::read_to_string(&table).unwrap();
    let row = |line: &str| {
        let (count, name) = line.trim().split_once(' ')?;
        Some((name.trim().to_owned(), count.parse::<u64>().ok()?))
    };
    let mut rows: Vec<(String, u64)> = text.lines().filter_map(row).filter(|(name, _)| name != "total").collect();
    rows.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let total = rows.iter().map(|(_, count)| count).sum();
    assert!(total > 0, "strace counted nothing: {text}");
    rows.truncate(TOLD);
    Calls { tool, total, most: rows }
}
