//! `volumeviz scan` as its users call it: exit codes, JSON, table.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../kit/engine.rs"]
mod engine;
#[path = "../kit/hostile.rs"]
mod hostile;
mod names;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

fn volumeviz(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_volumeviz")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    for arguments in [
        &["crds"][..],
        &["man"],
        &["completions", "zsh"],
        &["scan", "/etc/apt"],
        &["scan", "--output", "json", "/etc/apt"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_volumeviz")).args(arguments).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn json_has_the_documented_shape() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), "12345").unwrap();
    let output = volumeviz(&["scan", "--output", "json", path(root.path())]);
    assert_eq!(output.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let volume = report["volumes"][0].as_object().unwrap();
    let keys = [
        "name",
        "path",
        "driver",
        "allocated_bytes",
        "apparent_bytes",
        "files",
        "directories",
        "completeness",
        "errors",
        "skipped_mounts",
        "method",
        "duration_ms",
    ];
    for key in keys {
        assert!(volume.contains_key(key), "{key} is missing");
    }
    assert_eq!(
        (&volume["apparent_bytes"], &volume["files"], &volume["directories"]),
        (&5.into(), &1.into(), &1.into())
    );
    assert_eq!((&volume["completeness"], &volume["method"]), (&"Complete".into(), &"Walk".into()));
    assert_eq!(report["totals"]["allocated_bytes"], volume["allocated_bytes"]);
}

#[test]
fn exit_codes_tell_how_complete_it_is() {
    let root = tempfile::tempdir().unwrap();
    let code = |arguments: &[&str]| volumeviz(arguments).status.code();
    assert_eq!(code(&["scan", path(root.path())]), Some(0));
    assert_eq!(code(&["scan", path(root.path()), "/does/not/exist"]), Some(1));
    assert_eq!(code(&["scan", "/does/not/exist"]), Some(2));
    assert_eq!(code(&["scan", "--output", "xml"]), Some(2));
    assert_eq!(code(&["scan", "--docker", "/does/not/exist.sock"]), Some(2));
}

#[test]
fn a_path_that_is_no_directory_is_named_with_the_reason() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    fs::write(&file, "1").unwrap();
    let output = volumeviz(&["scan", path(root.path()), "/does/not/exist", path(&file)]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "error: unable to read /does/not/exist: No such file or directory (os error 2)\n");
    let table = text(&output.stdout);
    let row = table.lines().find(|row| row.starts_with(path(&file))).unwrap();
    assert!(row.ends_with("Unknown (Unreadable): 1 NotADirectory"), "{table}");
}

#[test]
fn an_error_that_nobody_can_read_costs_no_result() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_volumeviz"));
    let output = command.args(["scan", "/does/not/exist", "/etc/apt"]).stderr(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("2 volumes: 1 complete, 0 partial, 1 unknown"), "{}", text(&output.stdout));
}

#[test]
fn without_docker_it_says_what_to_do() {
    let output = volumeviz(&["scan", "--docker", "/does/not/exist.sock"]);
    let told = text(&output.stderr);
    assert!(told.contains("/does/not/exist.sock") && told.contains("volumeviz scan /srv"), "{told}");
}

#[test]
fn the_table_is_sorted_by_size_and_obeys_no_name() {
    let root = tempfile::tempdir().unwrap();
    let (small, big) = (root.path().join("small\u{1b}[31m"), root.path().join("big"));
    fs::create_dir(&small).unwrap();
    fs::create_dir(&big).unwrap();
    fs::write(big.join("file"), vec![1; 100_000]).unwrap();
    let output = volumeviz(&["scan", path(&small), path(&big), "/does/not/exist"]);
    let table = text(&output.stdout);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[1].contains("/big") && lines[2].contains("small\\u{1b}[31m") && lines[3].contains("Unknown (Vanished)"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'));
    assert!(lines[5].starts_with("3 volumes: 2 complete, 0 partial, 1 unknown; at least "), "{table}");
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    fn scan(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volumeviz"));
        Self(command.arg("scan").args(arguments).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Threads that walk.
    fn walking(&self) -> usize {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.0.id())) else { return 0 };
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("walk")).count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn fill(root: &Path, files: usize) {
    (0..files).for_each(|n| fs::write(root.join(n.to_string()), "1").unwrap());
}

fn json(arguments: &[&str]) -> Value {
    let output = volumeviz(&[&["scan", "--output", "json"], arguments].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn options_out_of_range_are_wrong_usage() {
    for wrong in
        [["--top", "0"], ["--top", "1001"], ["--threads", "0"], ["--threads", "257"], ["--entries-per-second", "0"]]
    {
        assert_eq!(volumeviz(&["scan", wrong[0], wrong[1], "/etc/apt"]).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn so_many_threads_walk_as_are_asked_for() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), 1000);
    for threads in [1, 5] {
        let scan = Running::scan(&["--threads", &threads.to_string(), "--entries-per-second", "50", path(root.path())]);
        let until = Instant::now() + Duration::from_secs(20);
        while scan.walking() < threads {
            assert!(Instant::now() < until, "{} of {threads} threads", scan.walking());
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(scan.walking(), threads);
    }
}

#[test]
fn a_budget_of_entries_slows_it() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), 500);
    let started = Instant::now();
    let report = json(&["--entries-per-second", "500", path(root.path())]);
    assert!(started.elapsed() >= Duration::from_millis(800), "500 files at 500 a second: {:?}", started.elapsed());
    assert_eq!(report["totals"]["files"], 500);
}

#[test]
fn the_biggest_files_and_directories_are_listed_when_asked_for() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("folder\u{1b}[31m");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("big"), vec![1; 500_000]).unwrap();
    fs::write(root.path().join("small"), vec![1; 100_000]).unwrap();
    fill(root.path(), 10);
    let volume = &json(&["--top", "2", path(root.path())])["volumes"][0];
    let paths = |list: &str| -> Vec<String> {
        let list = volume[list].as_array().unwrap();
        assert!(list.iter().all(|one| one["allocated_bytes"].as_u64() >= Some(100_000)), "{volume}");
        list.iter().map(|one| one["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths("top_files"), ["folder\u{1b}[31m/big", "small"]);
    assert_eq!(paths("top_directories"), ["folder\u{1b}[31m", "."]);
    assert!(volume.get("histogram").is_none());
    let table = text(&volumeviz(&["scan", "--top", "1", path(root.path())]).stdout);
    assert!(table.contains("folder\\u{1b}[31m/big\n") && !table.contains("small"), "{table}");
    assert!(!table.contains('\u{1b}'));
    let plain = json(&[path(root.path())]);
    assert!(plain["volumes"][0].get("top_files").is_none());
}

#[test]
fn a_histogram_is_told_when_asked_for() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("data.SQL"), vec![1; 100_000]).unwrap();
    fs::write(root.path().join("evil.\u{1b}[31m"), vec![1; 50_000]).unwrap();
    fs::write(root.path().join("empty"), "").unwrap();
    let old = fs::File::options().write(true).open(root.path().join("data.SQL")).unwrap();
    old.set_modified(std::time::SystemTime::now() - Duration::from_secs(40 * 24 * 3600)).unwrap();
    std::os::unix::fs::chown(root.path().join("data.SQL"), Some(999), None).unwrap();
    let volume = json(&["--histogram", path(root.path())])["volumes"][0].take();
    let histogram = &volume["histogram"];
    let files = |list: &str, key: &str| -> Vec<(Value, u64)> {
        let kinds = histogram[list].as_array().unwrap().iter();
        let kinds = kinds.map(|kind| (kind[key].clone(), kind["files"].as_u64().unwrap()));
        kinds.filter(|(_, files)| *files > 0).collect()
    };
    assert_eq!(files("sizes", "below_bytes"), [(json!(1), 1), (json!(65_536), 1), (json!(1_048_576), 1)]);
    assert_eq!(files("ages", "below_days"), [(json!(1), 2), (json!(90), 1)]);
    assert_eq!(files("owners", "uid"), [(json!(999), 1), (json!(0), 2)]);
    let extensions = [(json!("sql"), 1), (json!("\u{1b}[31m"), 1), (json!(null), 1)];
    assert_eq!(files("extensions", "extension"), extensions);
    assert_eq!(histogram["other_owners"], json!({"files": 0, "allocated_bytes": 0}));
    assert!(volume.get("top_files").is_none());
    let table = text(&volumeviz(&["scan", "--histogram", path(root.path())]).stdout);
    for told in ["1 files  below 64 KiB", "1 files  below 90 d", "1 files  uid 999", "1 files  .sql", ".\\u{1b}[31m"] {
        assert!(table.contains(told), "{told} is missing: {table}");
    }
    assert!(!table.contains('\u{1b}'));
}

/// A folder with a du that says and does this.
fn false_du(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    // By a child: a file that this process has open for writing might not be run.
    let write = "printf '#!/bin/sh\n%s\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let written =
        Command::new("sh").args(["-c", write, "sh", path(&folder.path().join("du")), script]).status().unwrap();
    assert!(written.success());
    folder
}

#[test]
fn it_can_be_compared_with_du() {
    let root = tempfile::tempdir().unwrap();
    fill(root.path(), 20);
    let compare = |du: Option<&Path>, format: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_volumeviz"));
        command.args(["scan", "--compare-du", "--output", format]).arg(root.path());
        if let Some(du) = du {
            command.env("PATH", du);
        }
        let output = command.output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, document, _) = compare(None, "json");
    let report: Value = serde_json::from_str(&document).unwrap();
    let volume = &report["volumes"][0];
    assert_eq!((code, &volume["du"]["allocated_bytes"]), (Some(0), &volume["allocated_bytes"]));
    assert_eq!((&volume["du"]["difference_bytes"], &report["totals"]["du_differences"]), (&json!(0), &json!(0)));
    assert!(compare(None, "table").1.contains("Complete; du: equal\n"));

    let bytes = volume["allocated_bytes"].as_u64().unwrap();
    let more = false_du(&format!("echo {} \"$3\"", bytes + 4096));
    let (code, table, _) = compare(Some(more.path()), "table");
    assert!(
        code == Some(1) && table.contains("; du: 4096 bytes more\n") && table.contains("du differs on 1"),
        "{table}"
    );

    let silent = false_du("if [ \"$3\" = /dev/null ]; then echo 0; else printf 'no \\033[31m\\n' >&2; exit 1; fi");
    let (code, table, _) = compare(Some(silent.path()), "table");
    assert!(
        code == Some(1) && table.contains("du: no figure (no \\u{1b}[31m)") && !table.contains('\u{1b}'),
        "{table}"
    );

    let (code, printed, told) = compare(Some(root.path()), "table");
    assert_eq!((code, printed.as_str()), (Some(2), ""));
    assert!(told.contains("--compare-du needs GNU du: failed to run du: "), "{told}");
}

#[test]
fn json_lines_come_as_soon_as_each_volume_is_measured() {
    let (few, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(many.path(), 1000);
    let output = volumeviz(&["scan", "--output", "jsonl", "--top", "1", path(few.path()), path(many.path())]);
    let lines: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&Value> = lines.iter().map(|line| &line["type"]).collect();
    assert_eq!(kinds, ["volume", "volume", "totals"]);
    // Both are walked at a time: either may be first.
    let of = |root: &Path| lines.iter().find(|line| line["path"] == path(root)).unwrap();
    assert_eq!((&of(few.path())["files"], &of(many.path())["files"]), (&json!(0), &json!(1000)));
    assert_eq!((&lines[2]["volumes"], &lines[2]["files"]), (&json!(2), &json!(1000)));
    assert!(of(many.path())["top_files"][0]["path"].is_string());

    // The second volume takes a minute and more by its budget.
    let arguments = ["--output", "jsonl", "--entries-per-second", "10", path(few.path()), path(many.path())];
    let (mut scan, started) = (Running::scan(&arguments), Instant::now());
    let mut line = String::new();
    BufReader::new(scan.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["path"], path(few.path()));
    assert!(started.elapsed() < Duration::from_secs(50), "{:?}", started.elapsed());
}

#[test]
fn a_reader_of_json_lines_that_has_enough_ends_the_scan() {
    let (few, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(many.path(), 1000);
    let arguments = ["--output", "jsonl", "--entries-per-second", "10", path(few.path()), path(many.path())];
    let mut scan = Running::scan(&arguments);
    drop(scan.0.stdout.take());
    let until = Instant::now() + Duration::from_secs(50);
    let ended = loop {
        if let Some(ended) = scan.0.try_wait().unwrap() {
            break ended;
        }
        assert!(Instant::now() < until, "it measures for nobody");
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(ended.code(), Some(0));
}

/// What a terminal gets that is the standard error, and how long it took.
fn on_terminal(arguments: &str) -> (String, Duration) {
    let command = format!("'{}' scan {arguments} > /dev/null", env!("CARGO_BIN_EXE_volumeviz"));
    let started = Instant::now();
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    (text(&output.stdout), started.elapsed())
}

#[test]
fn a_terminal_is_told_how_far_it_is() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("f\u{1b}[31m");
    fs::create_dir(&folder).unwrap();
    fill(&folder, 600);
    let arguments = format!("--entries-per-second 300 '{}'", path(&folder));
    let (told, took) = on_terminal(&arguments);
    let lines: Vec<&str> = told.split('\r').filter(|line| line.contains(" entries/s")).collect();
    assert!(lines.len() >= 2 && lines.len() as u128 <= took.as_millis() / 200, "{} in {took:?}: {told:?}", lines.len());
    assert!(lines.iter().all(|line| line.contains("f\\u{1b}[31m: ") && line.ends_with("\u{1b}[K")), "{told:?}");
    assert!(!told.contains("\u{1b}[31m") && !told.contains('\n'), "{told:?}");
    assert!(told.ends_with("\r\u{1b}[K"), "it is not erased: {told:?}");

    let elsewhere = volumeviz(&["scan", "--entries-per-second", "300", path(&folder)]);
    assert_eq!(text(&elsewhere.stderr), "");
}
