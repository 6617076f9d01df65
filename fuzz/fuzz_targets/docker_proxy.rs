//! What of a request gets through to Docker: lines of `METHOD TARGET` and `NAME: VALUE`.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;
use volumeviz::docker_proxy::allowed::passed_on;

const CALLS: [&[u8]; 4] = [b"/version", b"/info", b"/volumes", b"/containers/json?all=true&size=false"];

fuzz_target!(|request: &[u8]| {
    let mut lines = request.split(|byte| *byte == b'\n');
    let Some((method, target)) = lines.next().and_then(|line| split(line, b' ')) else { return };
    let (Ok(asked), Ok(uri)) = (Method::from_bytes(method), Uri::try_from(target)) else { return };
    let headers: HeaderMap = lines
        .filter_map(|line| {
            let (name, value) = split(line, b':')?;
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value.trim_ascii()).ok()?))
        })
        .collect();
    let empty = headers.iter().all(|(name, value)| match name.as_str() {
        "transfer-encoding" | "upgrade" => false,
        "content-length" => value.as_bytes() == b"0",
        _ => true,
    });
    let through = passed_on(&asked, &uri, &headers).map(|asked| asked.as_str().as_bytes());
    if let Some(through) = through {
        assert_eq!(method, b"GET");
        assert!(is_call(through), "{:?}", String::from_utf8_lossy(through));
        assert!(empty, "{headers:?}");
        // A fragment is cut off by whoever reads a target, and goes nowhere.
        assert_eq!(target.split(|byte| *byte == b'#').next(), Some(through));
    }
    // What agents ask does get through.
    assert!(through.is_some() || method != b"GET" || !is_call(target) || !empty);
});

fn split(line: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let found = line.iter().position(|byte| *byte == at)?;
    Some((&line[..found], &line[found + 1..]))
}

/// One of the four, below a version of the API or not.
fn is_call(target: &[u8]) -> bool {
    CALLS.iter().any(|call| target.strip_suffix(*call).is_some_and(|before| before.is_empty() || is_version(before)))
}

fn is_version(text: &[u8]) -> bool {
    let Some((major, minor)) = text.strip_prefix(b"/v").and_then(|version| split(version, b'.')) else { return false };
    [major, minor].iter().all(|part| matches!(part.len(), 1..=4) && part.iter().all(u8::is_ascii_digit))
}
