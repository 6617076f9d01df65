//! Everything the process logs, at the level that people turn on when they look for a mistake.

use std::io::{self, Write};
use std::sync::{Mutex, OnceLock};

static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Logged;

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGGED.lock().map_err(|_| io::ErrorKind::Other)?.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From the first call on, what is logged is kept.
pub(crate) fn keep() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| tracing_subscriber::fmt().with_env_filter("debug").with_writer(|| Logged).init());
}

/// What was logged so far.
pub(crate) fn text() -> String {
    String::from_utf8_lossy(&LOGGED.lock().unwrap()).into_owned()
}
