//! `domain` ← `crd` ← `controller`; `domain` ← `store` ← `controller`, `agent`; `agent::walk` stands alone.

use std::fs;
use std::path::{Path, PathBuf};

/// Sources below `folder` must not name any of `forbidden`.
struct Layer {
    folder: &'static str,
    forbidden: &'static [&'static str],
}

const LAYERS: [Layer; 7] = [
    Layer {
        folder: "src/domain",
        forbidden: &[
            "crate::crd",
            "crate::store",
            "crate::controller",
            "crate::agent",
            "crate::http",
            "kube",
            "k8s_openapi",
            "sqlx",
            "axum",
            "tokio",
        ],
    },
    Layer {
        folder: "src/crd",
        forbidden: &["crate::store", "crate::controller", "crate::agent", "sqlx", "axum", "tokio"],
    },
    Layer {
        folder: "src/store",
        forbidden: &["crate::crd", "crate::controller", "crate::agent", "kube", "k8s_openapi", "axum"],
    },
    Layer { folder: "src/controller", forbidden: &["crate::agent", "rustix"] },
    Layer { folder: "src/api", forbidden: &["crate::crd", "crate::controller", "crate::agent"] },
    Layer { folder: "src/agent", forbidden: &["crate::crd", "crate::controller", "kube", "k8s_openapi"] },
    Layer {
        folder: "src/agent/walk",
        forbidden: &["crate::domain", "crate::store", "crate::http", "crate::config", "sqlx", "tokio", "axum"],
    },
];

#[test]
fn arrows_point_one_way() {
    let mut broken = Vec::new();
    for Layer { folder, forbidden } in LAYERS {
        for file in sources(folder) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(!text.contains("use crate::{"), "{}: one line for each module, which can be seen", file.display());
            for name in forbidden {
                broken.extend(uses(&text, name).map(|line| format!("{}: {line}", file.display())));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn a_broken_arrow_would_be_seen() {
    for line in
        ["use kube::Client;", "let c: kube::Client;", "pub use kube;", "use crate::{http, store};\nuse kube as k;"]
    {
        assert_eq!(uses(line, "kube").count(), 1, "{line}");
    }
    for line in ["// about kube::Client", "/// [`kube`]", "let kubectl = 1;", "\"kube\""] {
        assert_eq!(uses(line, "kube").count(), 0, "{line}");
    }
}

/// Agents tell ages and the database's clock decides, so a node whose clock is off changes nothing.
#[test]
fn agents_and_the_store_read_no_wall_clock() {
    for file in ["src/agent", "src/store"].into_iter().flat_map(sources) {
        let text = fs::read_to_string(&file).unwrap();
        for clock in ["SystemTime", "Utc::now", "Local::now", "Timestamp::now"] {
            assert!(!text.contains(clock), "{} reads {clock}", file.display());
        }
    }
}

#[test]
fn files_fit_in_a_head() {
    let long: Vec<_> = sources("src")
        .into_iter()
        .filter(|file| !file.components().any(|part| part.as_os_str() == "tests"))
        .filter_map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            let lines = text.split("#[cfg(test)]\nmod tests {").next().unwrap().lines().count();
            (lines > 450).then(|| format!("{}: {lines} lines", file.display()))
        })
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

pub(crate) fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Lines of code that use the path `name`.
fn uses<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.lines().map(str::trim).filter(|line| !line.starts_with("//")).filter(move |line| {
        line.match_indices(name).any(|(start, _)| {
            let before = line[..start].chars().next_back();
            let after = &line[start + name.len()..];
            let starts = before.is_none_or(|c| !is_word(c) && c != '"' && c != ':');
            starts && (after.starts_with("::") || after.starts_with(';') || after.starts_with(" as "))
        })
    })
}
