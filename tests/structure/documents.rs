//! What documents point at is there: files, headings, values of the chart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let folders = ["", "docs", "docs/adr", "docs/how-to", "charts/volumeviz", "examples/cloudnative-pg"]
        .map(|folder| repository().join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let documents = files.filter(|file| file.extension().is_some_and(|extension| extension == "md"));
    documents.map(|file| (file.clone(), fs::read_to_string(file).unwrap())).collect()
}

/// The lines of a document, and whether each is code.
fn lines(text: &str) -> impl Iterator<Item = (&str, bool)> {
    text.lines().scan(false, |code, line| {
        let fence = line.trim_start().starts_with("```");
        *code ^= fence;
        Some((line, *code || fence))
    })
}

/// Where GitHub's readers find the headings of a document; one that comes again is counted.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let headings = lines(text).filter(|(line, code)| !code && line.starts_with('#')).map(|(line, _)| {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    });
    let counted = headings.map(|anchor| {
        let before = seen.entry(anchor.clone()).or_default();
        *before += 1;
        if *before == 1 { anchor } else { format!("{anchor}-{}", *before - 1) }
    });
    counted.collect()
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for (file, text) in documents() {
        for (line, _) in lines(&text).filter(|(_, code)| !code) {
            let prose: String = line.split('`').step_by(2).collect();
            let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for target in targets.filter(|target| !target.contains("://")) {
                let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
                let found = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
                let there = found.exists()
                    && (anchor.is_empty() || anchors(&fs::read_to_string(&found).unwrap()).contains(anchor));
                if !there {
                    broken.push(format!("{}: {target}", file.strip_prefix(repository()).unwrap().display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Nobody publishes one.
#[test]
fn each_command_that_installs_says_where_the_image_is() {
    let mut count = 0;
    for (file, text) in documents() {
        let code: String = lines(&text).filter(|(_, code)| *code).flat_map(|(line, _)| [line, "\n"]).collect();
        for command in code.replace("\\\n", " ").lines().filter(|line| line.contains("helm install ")) {
            count += 1;
            assert!(command.contains("--set image.repository=REGISTRY/volumeviz"), "{}: {command}", file.display());
        }
    }
    assert!(count > 6, "{count} commands found");
}

/// Below each of the keys, however deep.
fn paths(values: &Value, above: &str, into: &mut BTreeSet<String>) {
    for (key, value) in values.as_object().into_iter().flatten() {
        let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        paths(value, &path, into);
        into.insert(path);
    }
}

/// Those that a document sets on a command line, and those that it names as code.
fn named<'a>(text: &'a str, values: &'a Value) -> impl Iterator<Item = &'a str> {
    let set =
        lines(text).filter(|(_, code)| *code).flat_map(|(line, _)| line.split("--set ").skip(1)).flat_map(|set| {
            let set = set.trim_start_matches('\'').split(['\'', ' ']).next().unwrap_or_default();
            let set = set.split('{').next().unwrap_or_default();
            set.split(',').filter_map(|setting| setting.split_once('=')).map(|(name, _)| name)
        });
    let code = lines(text).filter(|(_, code)| !code).flat_map(|(line, _)| line.split('`').skip(1).step_by(2));
    let code = code.filter_map(|code| code.split(['=', ':', ' ']).next()).filter(|code| {
        let top = code.split_once('.').is_some_and(|(top, _)| values.get(top).is_some());
        let document = Path::new(code).extension().is_some_and(|extension| extension == "md");
        top && !document && code.chars().all(|c| c.is_ascii_alphabetic() || c == '.')
    });
    set.chain(code)
}

#[test]
fn values_of_the_chart_are_its_values() {
    let values: Value =
        serde_yaml::from_str(&fs::read_to_string(repository().join("charts/volumeviz/values.yaml")).unwrap()).unwrap();
    let mut known = BTreeSet::new();
    paths(&values, "", &mut known);
    let (mut count, mut unknown) = (0, Vec::new());
    for (file, text) in documents() {
        for name in named(&text, &values) {
            count += 1;
            if !known.contains(name) {
                unknown.push(format!("{}: {name}", file.strip_prefix(repository()).unwrap().display()));
            }
        }
    }
    assert!(count > 50, "{count} values found");
    assert!(unknown.is_empty(), "{unknown:#?}");
}
