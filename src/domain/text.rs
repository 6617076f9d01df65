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

/// Text for a terminal: control characters are shown as escapes, so that none is obeyed.
pub fn showable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
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
            prop_assert!(!showable(&text).contains(char::is_control));
        }
    }
}
