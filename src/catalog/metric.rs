//! What a row of the catalogue is.

use super::headline::Headline;
use crate::policy::Tier;

/// Prometheus type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Can increase and decrease.
    Gauge,
    /// Only increases until it is reset, as by a reload of the driver.
    Counter,
}

impl Kind {
    /// The name in counters files and `# TYPE` lines.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// One metric family.
#[derive(Clone, Copy, Debug)]
pub struct Metric<Source: 'static> {
    /// Name of the family, as it is exported.
    pub name: &'static str,
    /// Gauge or counter.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: &'static str,
    /// NVML symbol or kubelet method that the value is read with.
    pub symbol: &'static str,
    /// How often the value is read.
    pub tier: Tier,
    /// How the value is read.
    pub source: Source,
    /// HELP text, one line.
    pub help: &'static str,
    /// When the series is absent for a healthy GPU; for `docs/metrics.md`. Empty if it never is.
    pub absent: &'static str,
    /// Which number of the web UI and `top` it is, if any.
    pub headline: Option<Headline>,
}

/// The base of a row of type gauge: read in each cycle, and never absent.
pub(super) const fn gauge<Source: Copy>(source: Source) -> Metric<Source> {
    Metric {
        name: "",
        kind: Kind::Gauge,
        unit: "",
        symbol: "",
        tier: Tier::Cycle,
        source,
        help: "",
        absent: "",
        headline: None,
    }
}

/// The base of a row of type counter, otherwise as [`gauge`].
pub(super) const fn counter<Source: Copy>(source: Source) -> Metric<Source> {
    Metric { kind: Kind::Counter, ..gauge(source) }
}
