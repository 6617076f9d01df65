//! `volumeviz fill-template`: fills in a Secret's templates for the controller, within limits that no template gets out of.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::controller::notify::filler::{Filler, MAX_MEMORY, MAX_SECONDS, MAX_TRANSFER};
use crate::controller::notify::template::Templates;
use crate::domain::alert::notification::Notification;
use crate::sandbox::limits::{self, Limits};

const LIMITS: Limits = Limits { memory: MAX_MEMORY, stack: 8 << 20, seconds: MAX_SECONDS, descriptors: 16 };

/// Why nothing was filled in. Nobody reads it but who runs it by hand.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does nothing without.
    #[error("failed to limit what filling in a template may take: {0}")]
    Limits(#[source] io::Error),
    /// Not what the controller asks.
    #[error("failed to read what is to be filled in: {0}")]
    Request(#[source] io::Error),
    /// Nobody is there to take it.
    #[error("failed to write what was filled in: {0}")]
    Answer(#[source] io::Error),
}

/// Reads templates and a notification, and writes what they make of it, both as JSON.
pub fn run() -> Result<(), Error> {
    if !limits::hold(&LIMITS) {
        match begin_anew().map_err(Error::Limits)? {}
    }
    let mut request = Vec::new();
    io::stdin().take(MAX_TRANSFER).read_to_end(&mut request).map_err(Error::Request)?;
    let request = serde_json::from_slice(&request).map_err(|error| Error::Request(error.into()))?;
    let (templates, notification): (Templates, Notification) = request;
    let answer = serde_json::json!(templates.fill_in(&notification)).to_string();
    io::stdout().write_all(answer.as_bytes()).map_err(Error::Answer)
}

/// Begins anew within the limits: memory that the allocator reserved before there was one would be outside it.
fn begin_anew() -> io::Result<Infallible> {
    limits::set(&LIMITS)?;
    Err(Command::new(Filler::THIS_PROGRAM).args(std::env::args_os().skip(1)).exec())
}
