//! `docs/runbook.md` has a section for each alert, condition and reason that there is, and none for another.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use volumeviz::domain::run::{NodeCounts, conclude};

use crate::layers::sources;

const CONDITIONS: &str = "src/crd/conditions.rs";
/// Where the reasons of conditions stand, in that file.
const REASONS: &str = "pub mod reason {";

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file))
        .unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The lines of code from the one that begins so to the brace that ends it.
fn block<'a>(text: &'a str, begins: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with(begins));
    let first = lines.next().unwrap_or_else(|| panic!("{begins:?} is not there"));
    let end = format!("{}}}", &first[..first.len() - first.trim_start().len()]);
    lines.take_while(|line| **line != end).filter(|line| !line.trim_start().starts_with("//")).collect()
}

/// The texts in CamelCase among lines of code.
fn names<'a>(lines: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let texts = lines.into_iter().flat_map(|line| line.split('"').skip(1).step_by(2));
    let is_name = |text: &&str| {
        text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.contains(|c: char| c.is_ascii_lowercase())
            && text.chars().all(|c| c.is_ascii_alphanumeric())
    };
    texts.filter(is_name).map(str::to_owned).collect()
}

fn names_in(file: &str, begins: &str) -> BTreeSet<String> {
    let found = names(block(&read(file), begins));
    assert!(!found.is_empty(), "{file}: {begins:?} has no names");
    found
}

fn alerts() -> BTreeSet<String> {
    let template = read("charts/volumeviz/templates/prometheusrule.yaml");
    let alerts = template.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    alerts.map(str::to_owned).collect()
}

fn types() -> BTreeSet<String> {
    let text = read(CONDITIONS);
    names(text.split(REASONS).next().unwrap().lines().filter(|line| line.starts_with("pub const ")))
}

/// As runs of up to three nodes end, and as they are cancelled.
fn ends_of_runs() -> BTreeSet<String> {
    let mut ends = names_in("src/domain/run.rs", "impl CancelReason {");
    for total in 0..=3 {
        for succeeded in 0..=total {
            for without_docker in 0..=total - succeeded {
                let counts = NodeCounts { total, succeeded, ..NodeCounts::default() };
                ends.extend([false, true].map(|late| conclude(counts, without_docker, late).1.to_owned()));
            }
        }
    }
    ends
}

fn of_the_database() -> BTreeSet<String> {
    let mut reasons = names_in("src/store/error.rs", "pub const fn reason(");
    reasons.extend(names_in("src/store/health.rs", "impl Reason {"));
    reasons
}

/// Each chapter of the page with what it must have sections of.
fn chapters() -> [(&'static str, BTreeSet<String>); 7] {
    [
        ("Alerts", alerts()),
        ("Conditions", types()),
        ("Reasons of conditions", names_in(CONDITIONS, REASONS)),
        ("Why the database cannot be used", of_the_database()),
        ("Why a run ended so", ends_of_runs()),
        ("Why a node has no result", names_in("src/domain/run.rs", "impl JobReason {")),
        ("Why a volume has no exact figures", names_in("src/domain/measurement.rs", "impl VolumeReason {")),
    ]
}

/// What stands below a heading of the page, without those of the same level.
fn part<'a>(page: &'a str, level: &str, heading: &str) -> &'a str {
    let begins = format!("\n{level} ");
    let parts = page.split(&begins).skip(1);
    let mut found = parts.filter_map(|part| part.strip_prefix(heading)?.strip_prefix('\n'));
    let part = found.next().unwrap_or_else(|| panic!("docs/runbook.md has no {level} {heading}"));
    assert!(found.next().is_none(), "docs/runbook.md has {level} {heading} twice");
    part
}

#[test]
fn there_is_a_section_for_each_and_none_for_another() {
    let page = read("docs/runbook.md");
    for (chapter, expected) in chapters() {
        let text = part(&page, "##", chapter);
        let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let found: BTreeSet<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
        let missing: Vec<_> = expected.difference(&found).collect();
        let unknown: Vec<_> = found.difference(&expected).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "{chapter}: missing {missing:?}, unknown {unknown:?}");
        for heading in headings {
            let section = part(text, "###", heading);
            let has = |begins: &str| section.lines().any(|line| line.starts_with(begins));
            assert!(
                section.starts_with(|c: char| c.is_alphabetic() || c == '`'),
                "{chapter}, {heading}: what does it mean?"
            );
            let helps = ["* Impact: ", "* Look: ", "* Do: "].into_iter().all(has);
            assert!(
                helps || has("* Nothing to do"),
                "{chapter}, {heading}: what is its impact, where to look, what to do?"
            );
        }
    }
}

/// What Kubernetes Events are named by is written where they are made; all other reasons are from the lists above.
#[test]
fn no_reason_is_made_elsewhere_but_those_of_events() {
    let known: BTreeSet<String> = chapters().into_iter().flat_map(|(_, names)| names).collect();
    let mut events = BTreeSet::new();
    for file in sources("src/controller") {
        let text = fs::read_to_string(&file).unwrap();
        if file.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let code: Vec<&str> = text.split("#[cfg(test)]").next().unwrap().lines().map(str::trim).collect();
        let made = |line: &&&str| {
            ["reason: \"", "=> (EventType::", "=> (\"Warning\", ", "=> (\"Normal\", "]
                .iter()
                .any(|by| line.contains(by))
        };
        events.extend(names(code.iter().filter(made).copied()));
        if file.ends_with("conditions.rs") || file.ends_with("unreadable.rs") {
            let others: Vec<String> = names(code).difference(&known).filter(|name| *name != "True").cloned().collect();
            assert!(others.is_empty(), "{}: {others:?} is in no list of reasons", file.display());
        }
    }
    events.retain(|event| !known.contains(event) && !["Warning", "Normal"].contains(&event.as_str()));
    let page = read("docs/runbook.md");
    let rows = part(&page, "##", "Events").lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    assert_eq!(rows.map(|(event, _)| event.to_owned()).collect::<BTreeSet<_>>(), events);
}
