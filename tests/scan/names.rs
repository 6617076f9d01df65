//! Names and messages that want to do harm, in each output.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use volumeviz::domain::text::showable;

use super::*;

#[test]
fn volumes_of_any_name_are_a_line_each_and_as_they_are_in_json() {
    let names: Vec<&str> = hostile::TEXTS.iter().copied().filter(|name| !name.is_empty()).collect();
    let listed =
        names.iter().map(|name| json!({"Name": name, "Driver": name, "Mountpoint": name, "Labels": {*name: name}}));
    let engine = engine::Engine::with(&listed.collect::<Vec<_>>(), &[]);
    let scan = |format: &str| {
        let output = volumeviz(&["scan", "--docker", path(&engine.socket()), "--output", format]);
        assert_eq!(text(&output.stderr), "");
        text(&output.stdout)
    };
    let table = scan("table");
    let lines: Vec<&str> = table.strip_suffix('\n').unwrap().split('\n').collect();
    assert_eq!(lines.iter().flat_map(|line| hostile::harm(line)).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(lines.len(), names.len() + 3, "a line each, a head, and the sums after an empty one: {table}");

    let mut expected: Vec<String> = names.iter().map(|name| name.replace('\0', "\\u{0}")).collect();
    expected.sort();
    let document = scan("json");
    assert_eq!(document.lines().flat_map(hostile::harm).collect::<Vec<_>>(), [""; 0]);
    let document: Value = serde_json::from_str(&document).unwrap();
    let rows = document["volumes"].as_array().unwrap().iter();
    let mut found: Vec<&str> = rows.clone().map(|row| row["name"].as_str().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    assert!(rows.clone().all(|row| row["name"] == row["path"] && row["name"] == row["driver"]), "{document}");

    let lines = scan("jsonl");
    let lines: Vec<&str> = lines.strip_suffix('\n').unwrap().split('\n').collect();
    assert_eq!(lines.iter().flat_map(|line| hostile::harm(line)).collect::<Vec<_>>(), [""; 0]);
    let rows: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut found: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    found.sort_unstable();
    assert_eq!((found, rows.len()), (expected.iter().map(String::as_str).collect(), names.len() + 1));
}

#[test]
fn files_of_any_name_are_a_line_each_and_as_they_are_in_json() {
    let root = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for name in hostile::file_names() {
        let folder = root.path().join(OsStr::from_bytes(&[b"d", name.as_slice()].concat()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(OsStr::from_bytes(&name)), [1; 5000]).unwrap();
        fs::write(folder.join(OsStr::from_bytes(&[b"x.", name.as_slice()].concat())), [1; 9000]).unwrap();
        let shown: String = name.utf8_chunks().fold(String::new(), |shown, chunk| {
            let bytes = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            std::iter::once(chunk.valid().to_owned()).chain(bytes).fold(shown, |shown, part| shown + &part)
        });
        expected.extend([format!("d{shown}/{shown}"), format!("d{shown}/x.{shown}")]);
    }
    expected.sort();
    let arguments = ["scan", "--top", "1000", "--histogram", path(root.path())];
    let document = volumeviz(&[&arguments[..], &["--output", "json"]].concat()).stdout;
    assert_eq!(text(&document).lines().flat_map(hostile::harm).collect::<Vec<_>>(), [""; 0]);
    let document: Value = serde_json::from_slice(&document).unwrap();
    let listed = document["volumes"][0]["top_files"].as_array().unwrap();
    let mut found: Vec<&str> = listed.iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, expected);

    let table = text(&volumeviz(&arguments).stdout);
    let lines: Vec<&str> = table.strip_suffix('\n').unwrap().split('\n').collect();
    assert_eq!(lines.iter().flat_map(|line| hostile::harm(line)).collect::<Vec<_>>(), [""; 0]);
    let files = lines.iter().skip_while(|line| **line != "  Biggest files").skip(1);
    assert_eq!(files.take_while(|line| **line != "  Biggest directories").count(), expected.len());
}

/// What an engine answers is in the error, and nothing of it is obeyed.
#[test]
fn an_error_is_one_harmless_line() {
    for name in hostile::TEXTS {
        let refusal = json!({"message": name}).to_string();
        let engine = engine::Engine::start(move |_| (500, engine::whole(&refusal)));
        let nowhere = format!("/nowhere/{}", name.replace('\0', ""));
        for (socket, what) in [(path(&engine.socket()), *name), (nowhere.as_str(), nowhere.as_str())] {
            let output = volumeviz(&["scan", "--docker", socket]);
            let told = text(&output.stderr);
            let line = told.strip_suffix('\n').unwrap();
            assert_eq!((output.status.code(), hostile::harm(line)), (Some(2), vec![]));
            assert!(line.starts_with("error: ") && line.contains(&showable(what)), "{line}");
        }
    }
}
