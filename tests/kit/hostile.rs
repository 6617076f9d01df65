//! Names, labels and messages that want to do harm: one list for the tests of every output.

#![allow(dead_code, unreachable_pub, reason = "a module of several test programs, each of which uses a part")]

/// Text as a Docker Engine, a driver's plug-in or a file system may hand it over.
pub const TEXTS: &[&str] = &[
    // Terminals: clear the screen, a link, the clipboard, a title; C1 controls; going back over what was written.
    "\u{1b}[2J",
    "\u{1b}]8;;http://evil.example/\u{7}click\u{1b}]8;;\u{7}",
    "\u{1b}]52;c;cm0gLXJmIC8=\u{7}",
    "\u{9b}31m\u{9d}0;title\u{9c}",
    "a\rb",
    "a\u{8}\u{8}b\u{7f}",
    "a\tb\u{b}\u{c}",
    "nul\0byte",
    // Lines: a forged log record, header, row and sample.
    "a\nb",
    "a\n2026-03-01T03:30:12Z ERROR volumeviz: forged",
    "a\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1",
    "a\",node=\"x\"} 1\nvolume_files{volume=\"\\",
    "} 1\n# EOF\n",
    "a\u{85}b\u{2028}c\u{2029}d",
    // Quoting and formats.
    "\"",
    "\\",
    "\\\"",
    "\\u0000",
    "'",
    "{}",
    "{0:?}",
    "${HOME}$(id)`id`",
    "%s%n%x",
    "{\"a\": [1]}",
    "null",
    "~",
    "- a: &b *c",
    // Databases, pages, chats.
    "'; DROP TABLE volumes; --",
    "' OR '1'='1",
    "$1",
    "%_",
    "<script>alert(1)</script>",
    "<!channel> <http://evil.example|click> & @all",
    // Templates.
    "{{ subjects }}",
    "{% for i in range(100000) %}{{ i }}{% endfor %}",
    "{{ 7 * 7 }}{# #}",
    "{{#each .}}{{.}}",
    // What does not look like what it is.
    "\u{202e}gpj.exe\u{202c}",
    "\u{2066}a\u{2069}",
    "zero\u{200b}width\u{feff}\u{ad}",
    "\u{e0041}\u{e0042}",
    "e\u{301}\u{301}\u{301}",
    "😀👩\u{200d}👩\u{200d}👧",
    "𝕏\u{10ffff}",
    // Names of something else.
    "",
    " ",
    ".",
    "..",
    "a/../../etc/passwd",
    "--help",
];

/// Names that a directory can have: of [`TEXTS`], and of bytes that are no UTF-8.
pub fn file_names() -> Vec<Vec<u8>> {
    let texts = TEXTS.iter().map(|text| text.replace(['/', '\0'], "").into_bytes());
    let bytes = [&b"\xff\xfe"[..], b"caf\xe9", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\x9b31m"];
    let names = texts.chain(bytes.map(<[u8]>::to_vec));
    names.filter(|name| !matches!(name.as_slice(), b"" | b"." | b"..")).collect()
}

/// What is wrong with a text that people see on a terminal as one line; empty when nothing is.
pub fn harm(shown: &str) -> Vec<String> {
    let acts = |c: &char| {
        let (low, code) = (u32::from(*c) < 0x20, u32::from(*c));
        low || (0x7f..0xa0).contains(&code)
            || "\u{ad}\u{200b}\u{200d}\u{2028}\u{2029}\u{202c}\u{202e}\u{2066}\u{2069}\u{feff}\u{e0041}\u{e0042}"
                .contains(*c)
    };
    shown.chars().filter(acts).map(|c| format!("{c:?} in {shown:?}")).collect()
}

/// The same for each text of a JSON document, its keys among them.
pub fn harm_in(document: &serde_json::Value) -> Vec<String> {
    match document {
        serde_json::Value::String(text) => harm(text),
        serde_json::Value::Array(items) => items.iter().flat_map(harm_in).collect(),
        serde_json::Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| [harm(key), harm_in(value)].concat()).collect()
        }
        _ => Vec::new(),
    }
}
