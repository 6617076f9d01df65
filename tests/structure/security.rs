//! Each control of `docs/security.md` has tests that there are.

use std::fs;

use crate::layers::sources;

#[test]
fn tests_of_controls_exist() {
    let page = include_str!("../../docs/security.md");
    let (_, table) = page.split_once("## Controls and their tests").unwrap();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| S")).collect();
    assert_eq!(rows.len(), 21);
    let code: String =
        ["src", "tests"].into_iter().flat_map(sources).map(|file| fs::read_to_string(file).unwrap()).collect();
    for row in rows {
        let tests = row.split(" | ").nth(2).unwrap();
        // Names of tests are long; what is short is a field or a command.
        let named: Vec<&str> =
            tests.split('`').skip(1).step_by(2).filter(|name| name.matches('_').count() >= 2).collect();
        let unknown: Vec<&&str> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {row}");
        assert!(
            !named.is_empty() || row.contains("make ") || row.contains("no scanner") || row.contains("compiler"),
            "{row}"
        );
    }
}
