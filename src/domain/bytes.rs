//! Byte counts for people.

use std::fmt;

/// A byte count that displays in binary units with three significant digits: `0 B`, `999 B`, `1.46 KiB`, `12.0 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanBytes(pub i64);

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = *self;
        if bytes.unsigned_abs() < 1024 {
            return f.pad(&format!("{bytes} B"));
        }
        #[expect(clippy::cast_precision_loss, reason = "three significant digits are shown")]
        let mut value = bytes as f64 / 1024.0;
        let mut unit = 0;
        // 1023.5 would print as "1024": it belongs to the next unit.
        while value.abs() >= 1023.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        let decimals = match value.abs() {
            v if v < 9.995 => 2,
            v if v < 99.95 => 1,
            _ => 0,
        };
        f.pad(&format!("{value:.decimals$} {}", UNITS[unit]))
    }
}

#[cfg(test)]
mod tests {
    use super::HumanBytes;

    #[test]
    fn shows_three_significant_digits_in_binary_units() {
        let cases: [(i64, &str); 9] = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1500, "1.46 KiB"),
            (10 * 1024, "10.0 KiB"),
            (1024 * 1024 - 1, "1.00 MiB"),
            (123 << 30, "123 GiB"),
            (i64::MAX, "8.00 EiB"),
            (-2048, "-2.00 KiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(HumanBytes(bytes).to_string(), expected);
        }
    }
}
