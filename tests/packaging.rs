//! What packages bring beside the binary, as they get it: completions for shells, manual pages.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use volumeviz::cli::Cli;

fn volumeviz(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_volumeviz")).args(arguments).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = volumeviz(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Every command with those it is part of: `["volumeviz", "migrate", "up"]`.
fn commands() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut left = vec![(vec!["volumeviz".to_owned()], Cli::command())];
    while let Some((path, command)) = left.pop() {
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            left.push(([path.as_slice(), &[inner.get_name().to_owned()]].concat(), inner.clone()));
        }
        found.push(path);
    }
    assert!(found.iter().any(|path| path.join(" ") == "volumeviz migrate up"), "{found:?}");
    found
}

#[test]
fn each_shell_knows_every_subcommand() {
    for shell in Shell::value_variants() {
        let script = printed(&["completions", &shell.to_string()]);
        let words: BTreeSet<&str> = script.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
        for path in commands() {
            let name = path.last().unwrap().as_str();
            assert!(words.contains(name), "{shell}: {path:?}");
        }
    }
}

#[test]
fn bash_completes_what_was_begun() {
    let complete = |words: &str, at: &str| {
        let script = format!(
            r#"source <("$0" completions bash); COMP_WORDS=({words}); COMP_CWORD={at}
               _volumeviz volumeviz "${{COMP_WORDS[{at}]}}" "${{COMP_WORDS[{at}-1]}}"; echo "${{COMPREPLY[@]}}""#
        );
        let output = Command::new("bash").args(["-euc", &script, env!("CARGO_BIN_EXE_volumeviz")]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    assert_eq!(complete("volumeviz mig", "1"), "migrate");
    assert_eq!(complete("volumeviz migrate ver", "2"), "verify");
    assert_eq!(complete("volumeviz scan --compare", "2"), "--compare-du");
}

#[test]
fn each_subcommand_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(printed(&["man", "--dir", folder.path().to_str().unwrap()]), "");
    let files: BTreeSet<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let expected: BTreeSet<String> = commands().iter().map(|path| format!("{}.1", path.join("-"))).collect();
    assert_eq!(files, expected);
    let page = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
    for (file, says) in
        [("volumeviz-scan.1", "compare"), ("volumeviz-agent.1", "controller asks"), ("volumeviz.1", "Docker volumes")]
    {
        assert!(page(file).starts_with(".ie") && page(file).contains(says), "{file}");
    }
    assert_eq!(printed(&["man"]), page("volumeviz.1"));
}

#[test]
fn a_directory_that_is_not_there_is_told() {
    let output = volumeviz(&["man", "--dir", "/does/not/exist"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("/does/not/exist: No such file or directory"), "{told}");
}
