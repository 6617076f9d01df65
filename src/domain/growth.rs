//! What growth means for the future.

/// Days until a file system with `available_bytes` left is full at this growth, when nothing else changes; `None` when it does not grow or
/// either is not known.
pub fn full_in_days(available_bytes: Option<i64>, bytes_per_day: Option<i64>) -> Option<f64> {
    let (available, growth) = (available_bytes?, bytes_per_day?);
    // Precise to 2^-53: more than an estimate of days is worth.
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    (growth > 0).then(|| available.max(0) as f64 / growth as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_grows_gets_full() {
        assert_eq!(full_in_days(Some(1000), Some(100)), Some(10.0));
        assert_eq!(full_in_days(Some(1000), Some(0)), None);
        assert_eq!(full_in_days(Some(1000), Some(-5)), None);
        assert_eq!(full_in_days(None, Some(100)), None);
        assert_eq!(full_in_days(Some(1000), None), None);
        assert_eq!(full_in_days(Some(-1), Some(1)), Some(0.0));
    }
}
