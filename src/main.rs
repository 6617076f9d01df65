//! The `volumeviz` executable.

use std::process::ExitCode;

// musl's own allocator serialises threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    volumeviz::cli::run()
}
