//! What commands print: results on standard output, errors on standard error. Whatever is in them, terminals obey none of it.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

use crate::domain::text::{showable, showable_json};

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to print: {0}")]
pub struct Error(#[source] std::io::Error);

/// Prints lines. A reader that has enough (`| head`) ends it without an error; `println!` would panic.
pub fn print(lines: impl IntoIterator<Item = impl Display>) -> Result<(), Error> {
    try_print(lines).map(drop)
}

/// Whether the reader wants more.
fn try_print(lines: impl IntoIterator<Item = impl Display>) -> Result<bool, Error> {
    let mut out = std::io::stdout().lock();
    let printed = lines.into_iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match printed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error(error)),
    }
}

/// Prints one JSON document for people and programs.
pub fn print_json(document: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(document).map_err(|error| Error(error.into()))?;
    print([showable_json(&text)])
}

/// Prints one JSON document on a line of its own; `false`: its reader has enough.
pub fn print_json_line(document: &impl Serialize) -> Result<bool, Error> {
    let text = serde_json::to_string(document).map_err(|error| Error(error.into()))?;
    try_print([showable_json(&text)])
}

/// Tells an error, in one line. When nobody can read it, that is no reason to end.
pub fn print_error(error: &dyn Display) {
    drop(writeln!(std::io::stderr(), "error: {}", showable(&error.to_string())));
}
