//! What is logged: ids, names and counts, and the messages of errors; never a whole object.

use std::fs;

use crate::layers::sources;

const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

/// The last part of a field's name: an id, a name, a number, or one word.
const FIELDS: [&str; 22] = [
    "attempt",
    "class",
    "count",
    "filter",
    "id",
    "instance",
    "key",
    "kind",
    "method",
    "migrations",
    "name",
    "nodes",
    "partition",
    "partitions",
    "path",
    "reason",
    "result",
    "rows",
    "socket",
    "subjects",
    "uid",
    "volumes",
];

/// What may be written as Rust writes it: text and single words, as well as constants.
const PLAIN: [&str; 3] = ["class", "current", "path"];

/// What a call of a log macro has between its parentheses, without the contents of its strings, and these.
struct Call {
    code: String,
    strings: Vec<String>,
}

/// The calls in a source.
fn calls(source: &str) -> Vec<Call> {
    let begins = LEVELS.map(|level| format!("tracing::{level}!("));
    let found = begins.iter().flat_map(|begin| source.match_indices(begin).map(|(at, begin)| at + begin.len()));
    found.map(|at| read(&source[at..])).collect()
}

/// Up to the parenthesis that closes what is open.
fn read(rest: &str) -> Call {
    let mut call = Call { code: String::new(), strings: Vec::new() };
    let (mut open, mut characters) = (1, rest.chars());
    while let Some(character) = characters.next() {
        match character {
            '(' => open += 1,
            ')' => open -= 1,
            '"' => {
                let mut text = String::new();
                while let Some(inner) = characters.next().filter(|inner| *inner != '"') {
                    text.extend(if inner == '\\' { characters.next() } else { Some(inner) });
                }
                call.strings.push(text);
            }
            _ => {}
        }
        if open == 0 {
            return call;
        }
        call.code.push(character);
    }
    panic!("a call without end: {rest:.80}")
}

/// The arguments of a call: parts between commas that are in no parentheses of their own.
fn arguments(code: &str) -> Vec<&str> {
    let mut open = 0;
    let parts = code.split(|character| {
        open += i32::from(matches!(character, '(' | '[' | '{')) - i32::from(matches!(character, ')' | ']' | '}'));
        character == ',' && open == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// What of a call may put a whole object into a log.
fn wrong(call: &Call) -> Vec<String> {
    let mut wrong = Vec::new();
    let arguments = arguments(&call.code);
    let message = arguments.iter().position(|argument| argument.starts_with('"')).unwrap_or(arguments.len());
    for field in &arguments[..message] {
        let (name, value) = field.split_once(" = ").unwrap_or_else(|| (field.trim_start_matches(['?', '%']), field));
        if !FIELDS.contains(&name.rsplit('.').next().unwrap_or(name)) {
            wrong.push(format!("the field {name}"));
        }
        if value.strip_prefix('?').is_some_and(|shown| !PLAIN.contains(&shown)) {
            wrong.push(format!("{value} as Rust writes it"));
        }
    }
    for text in &call.strings {
        let shown = text.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(shown, _)| shown);
        for (name, _) in shown.filter_map(|shown| shown.split_once(':')).filter(|(_, form)| form.contains('?')) {
            let is_constant = !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            if !is_constant && !PLAIN.contains(&name) {
                wrong.push(format!("{{{name}}} as Rust writes it"));
            }
        }
    }
    let whole = ["json!", "to_string(&", "to_value", "to_vec"].into_iter().filter(|whole| call.code.contains(whole));
    wrong.extend(whole.map(|whole| format!("{whole} makes JSON of a whole")));
    wrong
}

#[test]
fn no_log_line_has_a_whole_object() {
    let (mut count, mut found) = (0, Vec::new());
    for file in sources("src") {
        let source = fs::read_to_string(&file).unwrap();
        // Tests log what they like.
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        // Else the macros go by other names, or arguments are logged as Rust writes them.
        let imported = LEVELS.map(|level| format!("use tracing::{level}"));
        let others = ["use tracing::{", "use tracing::*", "instrument", "_span!", "tracing::event!"];
        for hidden in imported.iter().map(String::as_str).chain(others) {
            assert!(!source.contains(hidden), "{}: {hidden}", file.display());
        }
        for call in calls(source) {
            count += 1;
            found.extend(wrong(&call).into_iter().map(|wrong| format!("{}: {wrong}", file.display())));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(count >= 60, "{count} calls: are they found?");
}

#[test]
fn a_whole_object_would_be_seen() {
    let logged = [
        "?scan, \"planned\"",
        "scan.name = name, ?observed, \"planned\"",
        "scan.name = ?scan, \"planned\"",
        "scan.spec = name, \"planned\"",
        "job.id = id, %pod, \"claimed\"",
        "\"planned {scan:?}\"",
        "\"planned {scan:#?}\"",
        "\"planned {:?}\", scan",
        "\"planned {:?} (at {PERIOD:?})\", scan",
        "\"planned {}\", json!(scan)",
        "scan.name = serde_json::to_string(&scan), \"planned\"",
    ];
    for logged in logged {
        let [call] = &calls(&format!("f(); tracing::info!({logged}); g(x?, \"\")"))[..] else { panic!("{logged}") };
        assert!(!wrong(call).is_empty(), "{logged}");
    }
    let [call] =
        &calls("tracing::warn!(run.id = planned.id, nodes = run.nodes.len(), \"in {PERIOD:?}: {}\", f(a, b)?)")[..]
    else {
        panic!("one call")
    };
    assert_eq!(wrong(call), [""; 0]);
}
