//! Numbers as text, the same on the web page and in `top`.

use super::{Absence, NodeView, Number};

/// Framebuffer in GiB, with one decimal below 100 GiB.
#[must_use]
pub fn gib(mib: f64) -> String {
    let gib = mib / 1024.0;
    if gib >= 99.95 { format!("{gib:.0} GiB") } else { format!("{gib:.1} GiB") }
}

impl Number {
    /// The number as `text` has it, or a dash and the reason why it is absent.
    #[must_use]
    pub fn text(&self, text: impl Fn(f64) -> String) -> String {
        match self {
            Self::Known(value) => text(*value),
            Self::Absent { absent: Absence::NotCollected } => "– not collected".to_owned(),
            Self::Absent { absent: Absence::Unread(reason) } => format!("– {reason}"),
        }
    }

    /// Framebuffer in GiB.
    #[must_use]
    pub fn gib(&self) -> String {
        self.text(gib)
    }

    /// A whole number with its unit.
    #[must_use]
    pub fn with_unit(&self, unit: &str) -> String {
        self.text(|value| format!("{value:.0} {unit}"))
    }

    /// The number as a percentage of another, if both are known.
    #[must_use]
    pub fn percent_of(&self, whole: &Self) -> Option<f64> {
        let whole = whole.known().filter(|whole| *whole > 0.0)?;
        Some(self.known()? / whole * 100.0)
    }
}

impl NodeView {
    /// The name of the node in the cluster, else that of the host.
    #[must_use]
    pub fn name(&self) -> &str {
        if self.node.is_empty() { &self.hostname } else { &self.node }
    }

    /// `2 failed, 6 ok`; `no GPU`.
    #[must_use]
    pub fn status_counts(&self) -> String {
        let counts = self.totals.gpus_by_status.iter();
        let counts: Vec<String> =
            counts.map(|count| format!("{} {}", count.gpu_count, count.status.label())).collect();
        if counts.is_empty() { "no GPU".to_owned() } else { counts.join(", ") }
    }
}

/// `1 process`, `2 processes`.
#[must_use]
pub fn count(n: usize, noun: &str) -> String {
    let plural = if noun.ends_with('s') { "es" } else { "s" };
    format!("{n} {noun}{}", if n == 1 { "" } else { plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_three_digits() {
        assert_eq!([gib(0.0), gib(512.0), gib(81_559.0)], ["0.0 GiB", "0.5 GiB", "79.6 GiB"]);
        assert_eq!([gib(102_380.0), gib(1_304_944.0)], ["100 GiB", "1274 GiB"]);
    }

    #[test]
    fn absent_number_has_its_reason() {
        let absent = |absence| Number::Absent { absent: absence };
        assert_eq!(absent(Absence::Unread("hung".to_owned())).gib(), "– hung");
        assert_eq!(absent(Absence::NotCollected).with_unit("W"), "– not collected");
        assert_eq!(Number::Known(3.0).percent_of(&Number::Known(12.0)), Some(25.0));
        assert_eq!(Number::Known(3.0).percent_of(&Number::Known(0.0)), None);
    }
}
