//! `spec.volumeSelector`: a line of JSON, then lines of volumes' names.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use volumeviz::domain::selector::{NameGlob, VolumeFacts, VolumeKind, VolumeMatcher, VolumeSelector, VolumeUsage};

fuzz_target!(|text: &str| {
    let (json, names) = text.split_once('\n').unwrap_or((text, "data"));
    let Ok(selector) = serde_json::from_str::<VolumeSelector>(json) else { return };
    match VolumeMatcher::new(&selector) {
        Ok(matcher) => names.split('\n').take(16).for_each(|name| judge(&selector, &matcher, name)),
        Err(invalid) => {
            let field = if invalid.field == "names" { &selector.names } else { &selector.exclude_names };
            assert_eq!(field.get(invalid.index).map(|glob| glob.0.as_str()), Some(invalid.glob.as_str()), "{invalid}");
        }
    }
});

/// A volume is selected when each part of the selector says so by itself.
fn judge(selector: &VolumeSelector, matcher: &VolumeMatcher, name: &str) {
    let labels = BTreeMap::from([(name.to_owned(), "a".to_owned())]);
    for (kind, usage) in [(VolumeKind::Named, VolumeUsage::Unused), (VolumeKind::Anonymous, VolumeUsage::InUse)] {
        let facts = VolumeFacts { name, driver: "local", labels: &labels, kind, usage };
        let included = selector.names.is_empty() || selector.names.iter().any(|glob| matches(glob, name));
        let excluded = selector.exclude_names.iter().any(|glob| matches(glob, name));
        let rest = VolumeSelector { names: Vec::new(), exclude_names: Vec::new(), ..selector.clone() };
        let rest = VolumeMatcher::new(&rest).unwrap().matches(facts);
        assert_eq!(matcher.matches(facts), included && !excluded && rest, "{name:?}");
        assert!(selector.kinds.is_empty() || selector.kinds.contains(&kind) || !rest);
        assert!(selector.usage.is_empty() || selector.usage.contains(&usage) || !rest);
        assert!(selector.drivers.is_empty() || selector.drivers.iter().any(|driver| driver.0 == "local") || !rest);
        assert!(selector.labels.as_ref().is_none_or(|wanted| wanted.matches(&labels)) || !rest);
    }
}

fn matches(glob: &NameGlob, name: &str) -> bool {
    let alone = VolumeSelector { names: vec![glob.clone()], ..VolumeSelector::default() };
    let facts =
        VolumeFacts { name, driver: "", labels: &BTreeMap::new(), kind: VolumeKind::Named, usage: VolumeUsage::Unused };
    let matched = VolumeMatcher::new(&alone).unwrap().matches(facts);
    // Without classes, alternatives and what is said of paths a glob is simple enough to be tried by hand.
    let simple = glob.0.is_ascii() && !glob.0.contains(['[', ']', '{', '}', '\\', '!']) && !glob.0.contains("**");
    if simple && name.is_ascii() {
        assert_eq!(matched, matches_by_hand(glob.0.as_bytes(), name.as_bytes()), "{:?} and {name:?}", glob.0);
    }
    matched
}

fn matches_by_hand(glob: &[u8], name: &[u8]) -> bool {
    // Whether the glob so far matches the first so many bytes of the name.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for sign in glob {
        match sign {
            b'*' => (1..=name.len()).for_each(|end| reached[end] |= reached[end - 1]),
            sign => {
                for end in (1..=name.len()).rev() {
                    reached[end] = reached[end - 1] && (*sign == b'?' || *sign == name[end - 1]);
                }
                reached[0] = false;
            }
        }
    }
    reached[name.len()]
}
