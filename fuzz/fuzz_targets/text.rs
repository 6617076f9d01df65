//! Text from elsewhere: names, paths, messages, in whatever bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use volumeviz::crd::conditions::{MAX_MESSAGE_CHARS, shorten};
use volumeviz::domain::bytes::HumanBytes;
use volumeviz::domain::text::{bounded, end_of, from_bytes, showable, storable};

/// Less is never asked for: a mark of what was cut takes its room.
const LEAST: usize = 64;

fuzz_target!(|bytes: &[u8]| {
    let (most, name) = match bytes.split_first() {
        Some((most, name)) => (usize::from(*most) + LEAST, name),
        None => (LEAST, bytes),
    };
    let text = from_bytes(name);
    assert!(!text.contains('\0'));
    match std::str::from_utf8(name) {
        Ok(clean) => said(clean, most, &text),
        Err(_) => assert!(text.contains("\\x"), "what is no UTF-8 is seen: {text:?}"),
    }
    said(&text, most, &text);
    if let Ok(number) = name.try_into().map(i64::from_le_bytes) {
        assert!(HumanBytes(number).to_string().len() <= 16, "{}", HumanBytes(number));
    }
});

fn said(text: &str, most: usize, named: &str) {
    let stored = storable(text).into_owned();
    assert!(!stored.contains('\0') && storable(&stored) == stored);
    assert!(text.contains('\0') || stored == text, "what can be stored is left alone");
    assert_eq!(named, stored, "a name in UTF-8 is stored as any other text");

    let cut = bounded(text.into(), most);
    assert!(cut.len() <= most, "{} of {most}", cut.len());
    assert_eq!(cut == text, text.len() <= most);
    assert!(cut == text || cut.contains("…[cut, "), "a cut is seen: {cut:?}");
    let other = format!("{text}.");
    assert!(bounded(other.as_str().into(), most) != cut, "two do not become one");

    let end = end_of(text, most);
    assert!(end.chars().count() <= most && (end == text || end.starts_with('…')));
    assert!(text.ends_with(end.strip_prefix('…').unwrap_or(&end)) || end == text);

    let shown = showable(text);
    assert!(!shown.contains(char::is_control));
    assert_eq!(showable(&shown), shown, "what was shown is shown again as it is");
    let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    assert!(!text.bytes().all(is_plain) || shown == text, "plain text is left alone");

    let short = shorten(text, MAX_MESSAGE_CHARS);
    assert!(short.chars().count() <= MAX_MESSAGE_CHARS);
    assert!(short == shown || shown.starts_with(short.strip_suffix('…').unwrap()));
}
