//! What `make setup` builds.

use std::env;
use std::path::{Path, PathBuf};

/// A program or folder of it.
pub(crate) fn tool(name: &str) -> PathBuf {
    let cache = || {
        let cache = env::var("XDG_CACHE_HOME").map(PathBuf::from);
        cache.unwrap_or_else(|_| Path::new(&env::var("HOME").unwrap()).join(".cache")).join("volumeviz/bin")
    };
    env::var("CLUSTER_BIN").map_or_else(|_| cache(), PathBuf::from).join(name)
}
