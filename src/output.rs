//! What commands print on standard output.

use std::fmt::Display;
use std::io::{ErrorKind, Write};

use serde::Serialize;

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to print: {0}")]
pub struct Error(#[source] std::io::Error);

/// Prints lines. A reader that has enough (`| head`) ends it without an error; `println!` would panic.
pub fn print(lines: impl IntoIterator<Item = impl Display>) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    let printed = lines.into_iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error(error)),
        _ => Ok(()),
    }
}

/// Prints one JSON document for people and programs.
pub fn print_json(document: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(document).map_err(|error| Error(error.into()))?;
    print([text])
}
