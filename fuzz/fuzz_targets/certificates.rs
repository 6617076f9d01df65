//! The two Secrets with certificates, in which somebody may write anything. The first byte says which key is broken, and how.

#![no_main]

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use libfuzzer_sys::fuzz_target;
use volumeviz::controller::certificates::plan::{Certificates, Data};
use volumeviz::tls::issue::{Holder, said};

const KEYS: [(usize, &str); 7] =
    [(0, "ca.crt"), (0, "ca.key"), (0, "tls.crt"), (0, "tls.key"), (1, "ca.crt"), (1, "tls.crt"), (1, "tls.key")];

static NOW: LazyLock<DateTime<Utc>> = LazyLock::new(|| DateTime::from_timestamp(1_790_000_000, 0).unwrap());
/// In order before anything is broken.
static MADE: LazyLock<[Data; 2]> = LazyLock::new(|| {
    let made = Certificates::of(&Data::new(), &Data::new()).renewed(*NOW).unwrap();
    [made.controller_data(), made.agent_data()]
});

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let (secret, key) = KEYS[usize::from(*choice) % KEYS.len()];
    let text = match choice / 32 {
        // `0` to `6` as they are written.
        1 => bytes.to_vec(),
        2 => pem("CERTIFICATE", bytes),
        3 => pem("PRIVATE KEY", bytes),
        4 => [MADE[secret][key].as_slice(), &pem("CERTIFICATE", bytes)].concat(),
        5 => [pem("CERTIFICATE", bytes).as_slice(), &MADE[secret][key]].concat(),
        _ => spliced(&MADE[secret][key], bytes),
    };
    if let Ok(text) = std::str::from_utf8(&text) {
        // Its dates are what they are; there is nothing that may not be said of it.
        drop(said(text));
    }
    let mut data = MADE.clone();
    data[secret].insert(key.to_owned(), text);
    mended(&Certificates::of(&data[0], &data[1]));
});

/// Whatever was written, both sides are believed afterwards, and then nothing is due.
fn mended(broken: &Certificates) {
    let mended = broken.renewed(*NOW).unwrap();
    for (side, holder) in [(&mended.controller, Holder::Controller), (&mended.agent, Holder::Agent)] {
        side.verify(holder, *NOW).unwrap();
        assert!(!format!("{side:?}").contains("PRIVATE"));
    }
    assert_eq!(mended.controller.authorities, mended.agent.authorities);
    assert!(mended.renewed(*NOW).unwrap() == mended, "it is renewed for ever");
    let expiry = mended.expiry().unwrap();
    assert!(expiry.agent.min(expiry.controller) - *NOW > TimeDelta::days(30), "{expiry:?}");
    assert!(!mended.agent_data().contains_key("ca.key"));
}

fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der)).into_bytes()
}

/// What was in order, with these bytes over a part of it.
fn spliced(good: &[u8], bytes: &[u8]) -> Vec<u8> {
    let [at, bytes @ ..] = bytes else { return good.to_vec() };
    let at = usize::from(*at) * good.len() / 256;
    let end = good.len().min(at + bytes.len());
    [&good[..at], bytes, &good[end..]].concat()
}
