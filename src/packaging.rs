//! What packages bring beside the binary: completions for shells, and manual pages.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::output;

/// Why they could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A page could not be made.
    #[error("failed to make the manual page: {0}")]
    Make(#[source] std::io::Error),
    /// The pages could not be written.
    #[error("failed to write manual pages into {0}: {1}")]
    Write(String, #[source] std::io::Error),
    /// Standard output cannot be written.
    #[error(transparent)]
    Print(#[from] output::Error),
}

/// Prints what makes `shell` complete `command`.
pub fn completions(mut command: Command, shell: Shell) -> Result<(), Error> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}

/// Prints the manual page of `command`, or writes it and one for each subcommand into a directory.
pub fn manual(command: Command, dir: Option<&Path>) -> Result<(), Error> {
    // `help` only shows what the pages say.
    let command = command.disable_help_subcommand(true);
    if let Some(dir) = dir {
        return clap_mangen::generate_to(command, dir).map_err(|error| Error::Write(dir.display().to_string(), error));
    }
    let mut page = Vec::new();
    Man::new(command).render(&mut page).map_err(Error::Make)?;
    print(&page)
}

fn print(text: &[u8]) -> Result<(), Error> {
    Ok(output::print(String::from_utf8_lossy(text).lines())?)
}
