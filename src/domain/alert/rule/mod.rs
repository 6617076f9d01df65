//! What is asked of a subject: the rules, their limits and units, and how a figure is told to people.

mod spec;

pub use self::spec::{NotOneRule, RuleSpec};
use crate::domain::bytes::HumanBytes;

/// The names of all rules, in the order of [`RuleSpec`].
pub const NAMES: [&str; 10] = [
    "sizeAbove",
    "percentOfCapacityAbove",
    "growthAbove",
    "fullWithin",
    "filesAbove",
    "unusedLongerThan",
    "candidateBytesAbove",
    "scanOlderThan",
    "failedNodesAbove",
    "databaseDown",
];

/// One rule with its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// See [`RuleSpec::size_above`].
    SizeAbove {
        /// Limit.
        bytes: i64,
    },
    /// See [`RuleSpec::percent_of_capacity_above`].
    PercentOfCapacityAbove {
        /// Limit.
        percent: i32,
    },
    /// See [`RuleSpec::growth_above`].
    GrowthAbove {
        /// Limit.
        bytes_per_day: i64,
    },
    /// See [`RuleSpec::full_within`].
    FullWithin {
        /// Limit.
        days: i32,
    },
    /// See [`RuleSpec::files_above`].
    FilesAbove {
        /// Limit.
        files: i64,
    },
    /// See [`RuleSpec::unused_longer_than`].
    UnusedLongerThan {
        /// Limit.
        days: i32,
    },
    /// See [`RuleSpec::candidate_bytes_above`].
    CandidateBytesAbove {
        /// Limit.
        bytes: i64,
    },
    /// See [`RuleSpec::scan_older_than`].
    ScanOlderThan {
        /// Limit.
        seconds: i32,
    },
    /// See [`RuleSpec::failed_nodes_above`].
    FailedNodesAbove {
        /// Limit.
        nodes: i32,
    },
    /// See [`RuleSpec::database_down`].
    DatabaseDown,
}

/// What the figures of the rule with this name count; empty where there is nothing to count.
pub fn unit(name: &str) -> &'static str {
    match name {
        "sizeAbove" | "candidateBytesAbove" => "bytes",
        "percentOfCapacityAbove" => "percent",
        "growthAbove" => "bytesPerDay",
        "fullWithin" | "unusedLongerThan" => "days",
        "filesAbove" => "files",
        "scanOlderThan" => "seconds",
        "failedNodesAbove" => "nodes",
        _ => "",
    }
}

/// Whether low figures of the rule with this name are the bad ones.
pub fn is_low_bad(name: &str) -> bool {
    name == "fullWithin"
}

/// When a rule's figure opens a state, and when it ends one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// In the rule's unit.
    pub threshold: f64,
    /// What fires ends only here.
    pub clear: f64,
    /// Small figures are the bad ones.
    pub below: bool,
}

impl Limit {
    /// Strictly beyond the threshold.
    pub fn is_exceeded_by(&self, value: f64) -> bool {
        if self.below { value < self.threshold } else { value > self.threshold }
    }

    /// The same of a figure that may be higher in truth.
    pub fn is_exceeded_by_at_least(&self, value: f64) -> bool {
        !self.below && value > self.threshold
    }

    /// Back by more than the hysteresis.
    pub fn is_cleared_by(&self, value: f64) -> bool {
        if self.below { value >= self.clear } else { value <= self.clear }
    }
}

/// Without `clearBelow`, a figure that is measured must come back by this share of its limit: else one that wobbles at it would fire again
/// and again.
const HYSTERESIS: f64 = 0.05;

impl Rule {
    /// The name in specs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SizeAbove { .. } => NAMES[0],
            Self::PercentOfCapacityAbove { .. } => NAMES[1],
            Self::GrowthAbove { .. } => NAMES[2],
            Self::FullWithin { .. } => NAMES[3],
            Self::FilesAbove { .. } => NAMES[4],
            Self::UnusedLongerThan { .. } => NAMES[5],
            Self::CandidateBytesAbove { .. } => NAMES[6],
            Self::ScanOlderThan { .. } => NAMES[7],
            Self::FailedNodesAbove { .. } => NAMES[8],
            Self::DatabaseDown => NAMES[9],
        }
    }

    /// Its limit in the unit of its figures, see [`unit`].
    #[expect(clippy::cast_precision_loss, reason = "a limit of 8 PiB need not be kept to the byte")]
    pub fn threshold(self) -> f64 {
        match self {
            Self::SizeAbove { bytes } | Self::CandidateBytesAbove { bytes } => bytes as f64,
            Self::PercentOfCapacityAbove { percent } => percent.into(),
            Self::GrowthAbove { bytes_per_day } => bytes_per_day as f64,
            Self::FullWithin { days } | Self::UnusedLongerThan { days } => days.into(),
            Self::FilesAbove { files } => files as f64,
            Self::ScanOlderThan { seconds } => seconds.into(),
            Self::FailedNodesAbove { nodes } => nodes.into(),
            Self::DatabaseDown => 0.0,
        }
    }

    /// Its limit with `clearBelow`, or with the hysteresis that goes with its kind of figure.
    #[expect(clippy::cast_precision_loss, reason = "a limit of 8 PiB need not be kept to the byte")]
    pub fn limit(self, clear_below: Option<i64>) -> Limit {
        let threshold = self.threshold();
        let below = is_low_bad(self.name());
        let counted = matches!(
            self,
            Self::UnusedLongerThan { .. }
                | Self::ScanOlderThan { .. }
                | Self::FailedNodesAbove { .. }
                | Self::DatabaseDown
        );
        let clear = match clear_below {
            Some(clear) => (clear as f64).min(threshold),
            None if counted => threshold,
            None if below => threshold * (1.0 + HYSTERESIS),
            None => threshold * (1.0 - HYSTERESIS),
        };
        Limit { threshold, clear, below }
    }

    /// A figure and the limit for people: `12.0 GiB, above 10.0 GiB`.
    pub fn tell(self, value: f64, at_least: bool) -> String {
        let least = if at_least { "at least " } else { "" };
        let (figure, limit) = (self.show(value), self.show(self.threshold()));
        match self {
            Self::SizeAbove { .. } | Self::FilesAbove { .. } => format!("{least}{figure}, limit {limit}"),
            Self::PercentOfCapacityAbove { .. } => format!("{least}{figure} of its file system, limit {limit}"),
            Self::GrowthAbove { .. } => format!("grows by {figure} a day, limit {limit}"),
            Self::FullWithin { .. } => {
                format!("fills its file system in {figure} at its present growth, limit {limit}")
            }
            Self::UnusedLongerThan { .. } => format!("unused for {figure}, limit {limit}"),
            Self::CandidateBytesAbove { .. } => format!("{least}{figure} in candidates for removal, limit {limit}"),
            Self::ScanOlderThan { .. } => format!("no newer results for {figure}, limit {limit}"),
            Self::FailedNodesAbove { .. } => format!("{figure} without a result in the last run, limit {limit}"),
            Self::DatabaseDown => "the database cannot be used".to_owned(),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, and is shown in three digits"
    )]
    fn show(self, value: f64) -> String {
        match self {
            Self::SizeAbove { .. } | Self::CandidateBytesAbove { .. } | Self::GrowthAbove { .. } => {
                HumanBytes(value as i64).to_string()
            }
            Self::PercentOfCapacityAbove { .. } => percent(value),
            Self::FullWithin { .. } => counted(value, 1, "day"),
            Self::UnusedLongerThan { .. } => counted(value, 0, "day"),
            Self::FilesAbove { .. } => counted(value, 0, "file"),
            Self::FailedNodesAbove { .. } => counted(value, 0, "node"),
            Self::ScanOlderThan { .. } => {
                humantime::format_duration(std::time::Duration::from_secs(value as u64)).to_string()
            }
            Self::DatabaseDown => String::new(),
        }
    }
}

/// Small shares of big file systems are no zeros.
fn percent(value: f64) -> String {
    match value {
        _ if value.fract() == 0.0 => format!("{value:.0} %"),
        _ if value >= 1.0 => format!("{value:.1} %"),
        _ if value >= 0.01 => format!("{value:.2} %"),
        _ => "under 0.01 %".to_owned(),
    }
}

fn counted(value: f64, decimals: usize, noun: &str) -> String {
    // Downwards, so that a figure below its limit is never shown as the limit.
    let scale = if decimals == 0 { 1.0 } else { 10.0 };
    let value = (value * scale).floor() / scale;
    let decimals = if value.fract() == 0.0 { 0 } else { decimals };
    let plural = if (value - 1.0).abs() < f64::EPSILON { "" } else { "s" };
    format!("{value:.decimals$} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_figures_must_come_back_by_five_percent_counted_ones_by_one() {
        let limit = Rule::SizeAbove { bytes: 1000 }.limit(None);
        assert!(limit.is_cleared_by(950.0) && !limit.is_cleared_by(951.0));
        let limit = Rule::FailedNodesAbove { nodes: 2 }.limit(None);
        assert!(limit.is_exceeded_by(3.0) && limit.is_cleared_by(2.0));
        let limit = Rule::FullWithin { days: 10 }.limit(None);
        assert!(
            limit.is_exceeded_by(9.9)
                && !limit.is_exceeded_by(10.0)
                && !limit.is_cleared_by(10.4)
                && limit.is_cleared_by(10.5)
        );
    }

    #[test]
    fn figures_are_told_with_their_limit() {
        let told = |rule: Rule, value| rule.tell(value, false);
        assert_eq!(told(Rule::SizeAbove { bytes: 1 << 30 }, 2_147_483_648.0), "2.00 GiB, limit 1.00 GiB");
        assert_eq!(Rule::FilesAbove { files: 1 }.tell(2.0, true), "at least 2 files, limit 1 file");
        assert_eq!(
            told(Rule::FullWithin { days: 7 }, 6.97),
            "fills its file system in 6.9 days at its present growth, limit 7 days"
        );
        let percent = |value| told(Rule::PercentOfCapacityAbove { percent: 0 }, value);
        assert_eq!(percent(12.34), "12.3 % of its file system, limit 0 %");
        assert_eq!(percent(0.024), "0.02 % of its file system, limit 0 %");
        assert_eq!(percent(0.002), "under 0.01 % of its file system, limit 0 %");
        assert_eq!(told(Rule::ScanOlderThan { seconds: 3600 }, 7260.0), "no newer results for 2h 1m, limit 1h");
    }
}
