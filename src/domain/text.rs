//! Text from elsewhere, made storable and showable without losing what it said.

use std::borrow::Cow;
use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Makes text storable in PostgreSQL, which refuses the character NUL: it becomes `\u{0}`. Everything else stays as it is.
pub fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\\u{0}")) } else { Cow::Borrowed(text) }
}

/// Text of at most `most` bytes. Longer text is cut, and ends in how long it was and a hash of all of it, so that two do not become one.
pub fn bounded(text: Cow<'_, str>, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text;
    }
    let hash = Sha256::digest(text.as_bytes());
    let mut mark = format!("…[cut, {} bytes, ", text.len());
    for byte in &hash[..6] {
        // Writing into a String cannot fail.
        let _ = write!(mark, "{byte:02x}");
    }
    mark.push(']');
    let mut cut = text[..text.floor_char_boundary(most.saturating_sub(mark.len()))].to_owned();
    cut.push_str(&mark);
    Cow::Owned(cut)
}

/// The last `most` characters of a text, the first of them `…` when something was cut.
pub fn end_of(text: &str, most: usize) -> String {
    match text.chars().count().checked_sub(most) {
        None | Some(0) => text.to_owned(),
        Some(cut) => ['…'].into_iter().chain(text.chars().skip(cut + 1)).collect(),
    }
}

/// A file name as text: bytes that are no UTF-8 become `\xff`, the rest stays.
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&storable(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing into a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Text for people: what a terminal would obey, and what changes the look of the text beside it, is shown as an escape. It is one line.
pub fn showable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// JSON as it was serialized, and harmless on a terminal: of what terminals obey, JSON itself escapes the first 32 characters only.
pub fn showable_json(json: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| !c.is_ascii_whitespace() && is_obeyed(c);
    if !json.contains(is_harmful) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_harmful(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing into a String cannot fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Whether a character acts instead of being seen: controls (C0, DEL, C1), ends of lines, what turns or joins the text around it, what is invisible.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_kept_is_escaped_visibly() {
        assert_eq!(storable("a\0b"), "a\\u{0}b");
        assert_eq!(from_bytes(b"caf\xe9/\xff"), "caf\\xe9/\\xff");
        assert_eq!(showable("a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
        assert_eq!(showable("\u{9b}2J \u{202e}gpj.\u{200b}"), "\\u{9b}2J \\u{202e}gpj.\\u{200b}");
        assert_eq!(showable("é e\u{301} 漢 🌀 \\ \" {}"), "é e\u{301} 漢 🌀 \\ \" {}", "what is seen stays");
    }

    #[test]
    fn what_is_too_long_is_cut_visibly_and_stays_different() {
        assert_eq!(bounded("short".into(), 100), "short");
        let (one, other) = ("ü".repeat(500) + "1", "ü".repeat(500) + "2");
        let cut = bounded(one.as_str().into(), 100);
        assert!(cut.starts_with("üü") && cut.contains("[cut, 1001 bytes, ") && cut.len() <= 100, "{cut}");
        assert_ne!(cut, bounded(other.as_str().into(), 100));
    }

    #[test]
    fn of_a_long_text_the_end_is_told() {
        assert_eq!([end_of("a/ü/c", 5), end_of("a/ü/c", 4), end_of("", 3)], ["a/ü/c", "…ü/c", ""]);
    }

    /// Text of any kind, or such that much of it is obeyed.
    fn hostile() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[\\x00-\\x22\\\\\\x7f-\\xadü\u{2028}\u{202e}\u{200b}\u{feff}\u{e0041}🌀]{0,20}"]
    }

    proptest! {
        #[test]
        fn bounded_text_is_bounded(text in any::<String>(), most in 64..200_usize) {
            prop_assert!(bounded(text.as_str().into(), most).len() <= most);
        }

        #[test]
        fn stored_text_has_no_nul_and_clean_text_is_untouched(text in any::<String>(), bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let stored = storable(&text).into_owned();
            prop_assert!(!stored.contains('\0') && !from_bytes(&bytes).contains('\0'));
            prop_assert_eq!(storable(&stored), stored.as_str());
            prop_assert!(text.contains('\0') || stored == text);
        }

        #[test]
        fn shown_text_is_one_harmless_line_and_stays_as_it_is(text in hostile()) {
            let shown = showable(&text);
            prop_assert!(!shown.contains(is_obeyed) && shown.lines().count() <= 1);
            prop_assert_eq!(showable(&shown), shown.as_str());
            prop_assert!(text.contains(is_obeyed) || shown == text);
        }

        #[test]
        fn shown_json_says_the_same(text in hostile()) {
            let document = serde_json::json!({ text.as_str(): [text.as_str()] });
            for json in [document.to_string(), serde_json::to_string_pretty(&document).unwrap()] {
                let shown = showable_json(&json);
                prop_assert!(!shown.contains(|c| c != '\n' && is_obeyed(c)));
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&shown).unwrap(), &document);
            }
        }
    }
}
